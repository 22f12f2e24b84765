"""A base model beside its edits and controls on one dataset: every figure of the tables, and what they say in words.

"The shortest 5 %" of two models are answers to different questions, so a table of them compares questions as much as
models. The matched form takes the (question, sample) pairs of the BASE model's shortest responses and looks at the same
pairs in every model. These pairs were picked for being short in the base, so any second draw, even of the base itself,
steps back towards the mean: the matched change is not all the edit's. Two comparisons are free of that step. With
several samples, every model is judged by the NEXT sample of the same questions, which was picked in none of them; and
random controls, where there are any, take the same step as the edit, which is therefore judged against them.

Models may have been asked other questions, or drawn another number of samples. A summary is of all responses of its
model, and says how many of them every model has; what is matched or subtracted is on the same pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from thinksteer.analysis import SHORTEST_PERCENTS, accuracy, mcnemar_p, mean_length, metrics, outcomes
from thinksteer.intervals import Estimate
from thinksteer.outcomes import Outcomes, shared
from thinksteer.records import InputError, Record

Role = Literal["base", "edited", "control"]
Group = Literal["edit", "control", "edit minus control"]


@dataclass(frozen=True)
class Member:
    """One model's evaluation and its token budget; a control is an edit of random heads or along a random direction.

    `setting` says how large an edit is (heads, strength): an edit is held against the controls of its own size.
    """

    model: str
    role: Role
    records: Sequence[Record]
    max_length: int | None
    setting: str = ""
    think_open: str = ""

    @cached_property
    def outcomes(self) -> Outcomes:
        """What the records show; they are gone through once."""
        return outcomes(self.records, loops=True, think_open=self.think_open)


@dataclass(frozen=True)
class Family:
    """A base model and its descendants on one dataset; the base, where it was evaluated, comes first."""

    dataset: str
    members: tuple[Member, ...]

    @property
    def base(self) -> Member | None:
        """The unedited model, None if it was not evaluated."""
        return next((member for member in self.members if member.role == "base"), None)

    def having(self, role: Role) -> list[Member]:
        """The members with this role, in order."""
        return [member for member in self.members if member.role == role]


@dataclass(frozen=True)
class Summary:
    """One model on one dataset. The dictionaries go from a percentage to the estimate over that share of responses.

    `n_in_all`: of how many of its responses every model of the family has the (question, sample); `matched` are of
    these.
    """

    dataset: str
    model: str
    role: Role
    accuracy: Estimate | None
    length: Estimate | None
    shortest: dict[int, Estimate | None]
    shortest_length: dict[int, Estimate | None]
    matched: dict[int, Estimate | None]
    matched_length: dict[int, Estimate | None]
    n_in_all: int
    metrics: dict[str, Any]


@dataclass(frozen=True)
class Difference:
    """`model` minus `reference` on the `n` responses both have; `before` and `after` are their accuracies there.

    `matched` is accuracy on the pairs of the base's shortest responses, `held_out` on the next samples of the same
    questions (None without a second sample); both by percentage.
    """

    dataset: str
    reference: str
    model: str
    group: Group
    n: int
    before: Estimate | None
    after: Estimate | None
    accuracy: Estimate | None
    p: float | None
    length: Estimate | None
    matched: dict[int, Estimate | None]
    held_out: dict[int, Estimate | None]


def _base_shortest(family: Family) -> dict[int, Outcomes]:
    """The base's shortest responses by percentage; empty without a base."""
    if family.base is None:
        return {}
    of = family.base.outcomes
    return {percent: of[of.shortest(percent)] for percent in SHORTEST_PERCENTS}


def _in_all(family: Family) -> Outcomes:
    """Of the first member, the responses whose (question, sample) every member has."""
    found = family.members[0].outcomes
    for member in family.members[1:]:
        found = found[shared(found, member.outcomes)[0]]
    return found


def summaries(family: Family) -> list[Summary]:
    """One summary per member, in order."""
    everywhere = _in_all(family)
    chosen = {percent: pairs[shared(pairs, everywhere)[0]] for percent, pairs in _base_shortest(family).items()}
    nothing = dict.fromkeys(SHORTEST_PERCENTS)
    result = []
    for member in family.members:
        of = member.outcomes
        own = {percent: of[of.shortest(percent)] for percent in SHORTEST_PERCENTS}
        same = {percent: of[shared(of, pairs)[0]] for percent, pairs in chosen.items()}
        result.append(
            Summary(
                dataset=family.dataset,
                model=member.model,
                role=member.role,
                accuracy=accuracy(of),
                length=mean_length(of),
                shortest={percent: accuracy(picked) for percent, picked in own.items()},
                shortest_length={percent: mean_length(picked) for percent, picked in own.items()},
                matched=nothing | {percent: accuracy(picked) for percent, picked in same.items()},
                matched_length=nothing | {percent: mean_length(picked) for percent, picked in same.items()},
                n_in_all=len(everywhere),
                metrics=metrics(of, member.max_length),
            )
        )
    return result


def differences(family: Family) -> list[Difference]:
    """Every edit and control against the base, then every edit against its controls; empty without a base."""
    if family.base is None:
        return []
    chosen = _base_shortest(family)
    edits, controls = family.having("edited"), family.having("control")
    compared: list[tuple[Member, Member, Group]] = [(family.base, member, "edit") for member in edits]
    compared += [(family.base, member, "control") for member in controls]
    compared += [
        (control, member, "edit minus control")
        for member in edits
        for control in controls
        if control.setting == member.setting
    ]
    return [_difference(family.dataset, *one, chosen) for one in compared]


def _difference(
    dataset: str, reference: Member, member: Member, group: Group, chosen: dict[int, Outcomes]
) -> Difference:
    first, second = shared(reference.outcomes, member.outcomes)
    if not len(first):
        raise InputError(
            f"{dataset}: {reference.model} and {member.model} share no (question, sample); "
            "evaluate both on the same questions, or leave one out of --models"
        )
    before, after = reference.outcomes[first], member.outcomes[second]
    picked = {percent: shared(before, pairs)[0] for percent, pairs in chosen.items()}
    again = {percent: before.next_samples[rows] for percent, rows in picked.items()}
    return Difference(
        dataset=dataset,
        reference=reference.model,
        model=member.model,
        group=group,
        n=len(first),
        before=accuracy(before),
        after=accuracy(after),
        accuracy=_change(before, after),
        p=mcnemar_p(before, after),
        length=before.mean(after.length - before.length, None),
        matched={percent: _change(before[rows], after[rows]) for percent, rows in picked.items()},
        held_out={percent: _change(before[rows[rows >= 0]], after[rows[rows >= 0]]) for percent, rows in again.items()},
    )


def _change(before: Outcomes, after: Outcomes) -> Estimate | None:
    """The change in accuracy, response by response (None: none is graded)."""
    return before.mean(after.verdict - before.verdict, (-1, 1))
