"""What a comparison says in plain sentences, made from its numbers; no clear change is said as plainly as a gain."""

from collections.abc import Sequence

from thinksteer.analysis import SHORTEST_PERCENTS
from thinksteer.comparison import Difference, Summary
from thinksteer.intervals import Estimate

SHORT = max(SHORTEST_PERCENTS)  # the share of which most is known


def headlines(of_family: Sequence[Summary], changes: Sequence[Difference]) -> list[str]:
    """One paragraph per edited model of one family: what the edit did, what random edits did, and what is not known;
    then, if the models do not have the same responses, how many each has."""
    edits = [change for change in changes if change.group == "edit"]
    said = [_of_edit(edit, changes) for edit in edits] or [_without_edit(of_family[0])]
    return [*said, *_unequal(of_family)]


def _unequal(of_family: Sequence[Summary]) -> list[str]:
    counts = {summary.model: summary.metrics["n_responses"] for summary in of_family}
    in_all = of_family[0].n_in_all
    if set(counts.values()) == {in_all}:
        return []
    each = ", ".join(f"{model} {count}" for model, count in counts.items())
    return [
        f"{of_family[0].dataset}: not all models have the same responses ({each}; {in_all} in all of them). "
        "Changes are of the same questions and samples, accuracies and lengths in the tables are not."
    ]


def _without_edit(first: Summary) -> str:
    right = first.accuracy
    said = "is not graded, the questions are open" if right is None else f"answers {100 * right.value:.1f} % correctly"
    return (
        f"{first.dataset}: {first.model} {said}. "
        "Nothing is compared: it takes a base model and an edited one, both evaluated."
    )


def _of_edit(edit: Difference, changes: Sequence[Difference]) -> str:
    beyond = [one for one in changes if one.group == "edit minus control" and one.model == edit.model]
    parts = [_accuracy(edit), *_length(edit.length), *_short(edit), *_against_controls(beyond)]
    return " ".join(parts)


def _accuracy(edit: Difference) -> str:
    change, before, after = edit.accuracy, edit.before, edit.after
    if change is None or before is None or after is None:
        return f"{edit.dataset}: {edit.model} beside {edit.reference}; the questions are open, answers are not graded."
    verdict = _verdict(
        change, "answers more correctly than", "answers less correctly than", "does not clearly differ from"
    )
    return (
        f"{edit.dataset}: {edit.model} {verdict} {edit.reference}: {100 * after.value:.1f} % against "
        f"{100 * before.value:.1f} %, a change of {_points(change)}."
    )


def _length(change: Estimate | None) -> list[str]:
    if change is None:
        return []
    verdict = _verdict(change, "longer", "shorter", "not clearly longer or shorter")
    return [f"Its thinking is {verdict} ({_tokens(change)})."]


def _short(edit: Difference) -> list[str]:
    """The change where the base thinks least: free of selection if there is a second sample, else with a warning."""
    held_out, matched = edit.held_out[SHORT], edit.matched[SHORT]
    if held_out is not None:
        verdict = _verdict(held_out, "rises", "falls", "does not clearly change")
        return [
            f"On the questions of the base's shortest {SHORT} %, drawn again, accuracy {verdict}: {_points(held_out)}."
        ]
    if matched is not None:
        return [
            f"On the base's shortest {SHORT} % accuracy changes by {_points(matched)}; part of this any second draw "
            "would show, as these were picked for being short."
        ]
    return []


def _against_controls(beyond: Sequence[Difference]) -> list[str]:
    if not beyond:
        return ["No random control was evaluated, so what any edit of this size does is not known."]
    overall = [one.accuracy for one in beyond if one.accuracy is not None]
    if not overall:
        return []
    short = [one.held_out[SHORT] or one.matched[SHORT] for one in beyond]
    there = [one for one in short if one is not None]
    name = "the random control" if len(beyond) == 1 else f"the {len(beyond)} random controls"
    text = f"Against {name}: overall {_standing(overall)}"
    return [f"{text}; on the base's shortest {SHORT} % {_standing(there)}." if there else f"{text}."]


def _standing(changes: Sequence[Estimate]) -> str:
    """How an edit stands against its controls: "+2.0 points [+0.5, +3.4] (clearly above)"; of many only how often."""
    if len(changes) > 2:
        above = sum(change.apart_from_zero and change.value > 0 for change in changes)
        below = sum(change.apart_from_zero and change.value < 0 for change in changes)
        values = [100 * change.value for change in changes]
        span = f"{min(values):+.1f} to {max(values):+.1f} points"
        return f"clearly above {above} and below {below} of {len(changes)} ({span})"
    return " and ".join(
        f"{_points(change)} ({_verdict(change, 'clearly above', 'clearly below', 'not clearly different')})"
        for change in changes
    )


def _verdict(change: Estimate, higher: str, lower: str, unclear: str) -> str:
    if not change.apart_from_zero:
        return unclear
    return higher if change.value > 0 else lower


def _points(change: Estimate) -> str:
    value = f"{100 * change.value:+.1f} points"
    if change.low is None or change.high is None:
        return value
    return f"{value} [{100 * change.low:+.1f}, {100 * change.high:+.1f}]"


def _tokens(change: Estimate) -> str:
    value = f"{change.value:+.1f} tokens"
    if change.low is None or change.high is None:
        return value
    return f"{value} [{change.low:+.1f}, {change.high:+.1f}]"
