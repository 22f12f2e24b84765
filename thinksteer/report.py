"""The tables of a report: upstream's A to D first, in its order, then their matched forms, the changes, the endings."""

from collections.abc import Sequence
from typing import Literal, get_args

from thinksteer.analysis import SHORTEST_PERCENTS
from thinksteer.comparison import Difference, Summary
from thinksteer.intervals import Estimate
from thinksteer.records import Status
from thinksteer.tables import Column, Kind, Table

INTERVALS = (
    "Brackets: 95 % intervals over questions: Wilson's for accuracies, for as many independent responses as they are"
    " worth; for the rest a cluster bootstrap (2000 resamples)."
)
SHORTEST = "n is the number of responses at 20 %; a dash where the share is less than one response."
MATCHED = (
    "The same (question, sample) pairs in every row: those of the base model's shortest responses. They were picked for"
    " being short in the base, so any second draw steps back towards the mean: compare edits with controls."
)
HELD_OUT = (
    "Picked by the base's responses as in F, but every model is judged by its next sample of the same question, which"
    " was not picked in any: free of the step back towards the mean."
)
PAIRED = (
    "Paired by (question, sample); 95 % bootstrap over questions, each by itself, not corrected for the number of"
    " comparisons. McNemar's exact p takes the samples of a question together."
)

UNEQUAL = (
    "THE ROWS ARE NOT OF THE SAME RESPONSES: models have different (question, sample) pairs (see G). The changes in E"
    " are paired. "
)

MODEL = (Column("model", "text"), Column("role", "text"))
DATASET_MODEL = (Column("dataset", "text"), *MODEL)


def _overall(found: Sequence[Summary], name: str, title: str, field: Literal["accuracy", "length"]) -> Table:
    """Models as rows, datasets as columns, as upstream prints it."""
    datasets = list(dict.fromkeys(summary.dataset for summary in found))
    of_model: dict[str, dict[str, Summary]] = {}
    for summary in found:
        of_model.setdefault(summary.model, {})[summary.dataset] = summary
    rows = []
    for model, on in of_model.items():
        cells = [getattr(on[dataset], field) if dataset in on else None for dataset in datasets]
        rows.append((model, next(iter(on.values())).role, *cells))
    kind: Kind = "share" if field == "accuracy" else "tokens"
    columns = (*MODEL, *(Column(dataset, kind) for dataset in datasets))
    return Table(name, title, columns, tuple(rows), _unequal(found) + INTERVALS)


def _unequal(found: Sequence[Summary]) -> str:
    return UNEQUAL if any(one.n_in_all < one.metrics["n_responses"] for one in found) else ""


def _by_share(
    found: Sequence[Summary],
    name: str,
    title: str,
    field: Literal["shortest", "shortest_length", "matched", "matched_length"],
    note: str,
) -> Table:
    kind: Kind = "tokens" if field.endswith("length") else "share"
    columns = (*DATASET_MODEL, *(Column(f"shortest {percent} %", kind) for percent in SHORTEST_PERCENTS))
    rows = []
    for summary in found:
        estimates: dict[int, Estimate | None] = getattr(summary, field)
        largest = estimates[max(SHORTEST_PERCENTS)]
        n = None if largest is None else largest.n
        rows.append((summary.dataset, summary.model, summary.role, *(estimates[p] for p in SHORTEST_PERCENTS), n))
    return Table(name, title, (*columns, Column("n", "count")), tuple(rows), f"{note} {INTERVALS}")


COMPARED = (
    Column("dataset", "text"),
    Column("group", "text"),
    Column("model", "text"),
    Column("minus", "text"),
    Column("pairs", "count"),
)


def _compared(one: Difference) -> tuple[str, str, str, str, int]:
    return one.dataset, one.group, one.model, one.reference, one.n


def _changes(found: Sequence[Difference]) -> list[Table]:
    """The overall change, the change on the base's shortest responses, and there on samples that were not picked."""
    p_values = any(one.p is not None for one in found)
    overall = tuple((*_compared(one), one.accuracy, one.length, *([one.p] if p_values else [])) for one in found)
    measured = [Column("accuracy, points", "change"), Column("thinking, tokens", "token_change")]
    columns = (*COMPARED, *measured, *([Column("McNemar p", "p")] if p_values else []))
    title = "E. Change in accuracy and thinking length"
    result = [Table("difference_overall", title, columns, overall, PAIRED)]
    shares = tuple(Column(f"shortest {percent} %, points", "change") for percent in SHORTEST_PERCENTS)
    parts: tuple[tuple[Literal["matched", "held_out"], str, str, str], ...] = (
        ("matched", "difference_matched", "F. Change in accuracy on the base's shortest responses", MATCHED),
        ("held_out", "difference_held_out", "F'. The same, on the next sample of the same questions", HELD_OUT),
    )
    for field, name, title, note in parts:
        by_share: list[dict[int, Estimate | None]] = [getattr(one, field) for one in found]
        if any(estimates[max(SHORTEST_PERCENTS)] is not None for estimates in by_share):
            rows = tuple(
                (*_compared(one), *(estimates[p] for p in SHORTEST_PERCENTS))
                for one, estimates in zip(found, by_share, strict=True)
            )
            result.append(Table(name, title, (*COMPARED, *shares), rows, note))
    return result


def _health(found: Sequence[Summary]) -> Table:
    """How the responses ended, so that no average hides what was cut, missing or looping."""
    status = get_args(Status)
    rates = ("cap_rate", "no_answer_rate", "degenerate_rate", "forced_rate", "reopened_rate")
    rows = tuple(
        (
            summary.dataset,
            summary.model,
            summary.metrics["n_responses"],
            summary.n_in_all,
            summary.metrics["n_questions"],
            summary.metrics["n_samples"],
            summary.metrics["max_length"],
            *(summary.metrics["status"][name] for name in status),
            *(summary.metrics[rate] for rate in rates),
            summary.metrics["forced_tokens"],
        )
        for summary in found
    )
    counts = (
        Column("responses", "count"),
        Column("in all models", "count"),
        Column("questions", "count"),
        Column("samples", "count"),
        Column("budget", "tokens"),
    )
    shares = (*status, "hit the cap", "no answer", "degenerate", "forced", "reopened")
    columns = (DATASET_MODEL[0], MODEL[0], *counts, *(Column(share, "share") for share in shares))
    columns += (Column("tokens after forcing", "tokens"),)
    note = (
        "In all models: (question, sample) pairs that the base and all its edits have. "
        "Shares in %. Thinking closed, cut by the token budget, ended by end-of-text while open, empty (closed with "
        "nothing in it), never begun. Capped chains enter mean lengths as far as they got (a lower bound), responses "
        "without thinking do not enter them. Degenerate: the end of the text is a loop. Forced: an answer was asked "
        "for at the budget's end; of these, reopened: the thinking was opened again after that."
    )
    return Table("responses", "G. How the responses ended", columns, rows, note)


def tables(found: Sequence[Summary], changes: Sequence[Difference]) -> list[Table]:
    """Every table of a report; matched and difference tables only where there is a base to compare with."""
    result = [
        _overall(found, "accuracy_overall", "A. Accuracy, %", "accuracy"),
        _overall(found, "length_overall", "B. Mean thinking length, tokens", "length"),
        _by_share(
            found,
            "accuracy_shortest",
            "C. Accuracy of each model's own shortest, %",
            "shortest",
            _unequal(found) + SHORTEST,
        ),
        _by_share(
            found, "length_shortest", "D. Their mean length, tokens", "shortest_length", _unequal(found) + SHORTEST
        ),
    ]
    most = max(SHORTEST_PERCENTS)
    with_base = [summary for summary in found if summary.matched[most] or summary.matched_length[most]]
    if with_base:
        result += [
            _by_share(with_base, "accuracy_matched", "C'. Accuracy where the base is shortest, %", "matched", MATCHED),
            _by_share(with_base, "length_matched", "D'. Mean length there, tokens", "matched_length", MATCHED),
        ]
    return [*result, *(_changes(changes) if changes else []), _health(found)]
