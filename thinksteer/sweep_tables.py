"""The tables of steering: what each weight changed, where the changes lie, and what goes beyond a random direction."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from thinksteer.intervals import Estimate
from thinksteer.report import PAIRED
from thinksteer.significance import holm
from thinksteer.sweep import Change, Point, change_of, place, unequal
from thinksteer.tables import Cell, Column, Table

CHANGES = (
    "Tokens are all that were generated, those of a forced answer too; thinking are those between its delimiters."
    " Changes are from weight 0 of the same control with the same token budget."
)
ENDS = (
    "The change in accuracy among the responses whose unsteered twin was capped by the token budget, and among those"
    " whose twin finished by itself: a gain among the first alone is room to finish, not better thinking. Those were"
    " picked for what went wrong, so any second draw gains there: compare with random controls. Degenerate: the end of"
    " the text is a loop."
)
UNEQUAL = (
    " SETTINGS OF A CONTROL ARE NOT OF THE SAME RESPONSES (see n); changes are of the pairs that a setting and weight 0"
    " have in common."
)
HOLM = (
    "Holm p, of a control with several settings, is McNemar's corrected for all of them: where steering does nothing,"
    " the least of a sweep is below 0.05 in at most one sweep of twenty (Holm 1979)."
)
BEYOND = "Along the control's direction minus along a random one of the same norms, at the same weight and place."

Row = tuple[Point, Change | None]
Field = tuple[Column, Callable[[Point, Change | None], Cell]]
SETTING: tuple[Field, ...] = (
    (Column("control", "text"), lambda point, change: point["control"]),
    (Column("added to", "text"), lambda point, change: place(point)),
    (Column("weight", "text"), lambda point, change: f"{point['weight']:g}"),
)
LEVELS: tuple[Field, ...] = (
    (Column("n", "count"), lambda point, change: point["n_responses"]),
    (Column("accuracy", "share"), lambda point, change: _level(point, "accuracy")),
    (Column("tokens", "tokens"), lambda point, change: _level(point, "mean_tokens")),
    (Column("thinking", "tokens"), lambda point, change: point["mean_length"]),
)
PAIRS: Field = (Column("pairs", "count"), lambda point, change: change and change.tokens.n)
DIFFERENCES: tuple[Field, ...] = (
    (Column("accuracy change", "change"), lambda point, change: change and change.accuracy),
    (Column("McNemar p", "p"), lambda point, change: change and change.mcnemar_p),
    (Column("Holm p", "p"), lambda point, change: point.get("holm_p")),
    (Column("token change", "token_change"), lambda point, change: change and change.tokens),
    (Column("thinking change", "token_change"), lambda point, change: change and change.length),
)
ENDINGS: tuple[Field, ...] = (
    (Column("budget", "tokens"), lambda point, change: point["max_length"]),
    (Column("twin capped: n", "count"), lambda point, change: _twins(change, "accuracy_if_capped")),
    (Column("twin capped: change", "change"), lambda point, change: change and change.accuracy_if_capped),
    (Column("twin finished: n", "count"), lambda point, change: _twins(change, "accuracy_if_finished")),
    (Column("twin finished: change", "change"), lambda point, change: change and change.accuracy_if_finished),
    (Column("hit the cap", "share"), lambda point, change: point["cap_rate"]),
    (Column("degenerate", "share"), lambda point, change: point["degenerate_rate"]),
    (Column("degenerate change", "change"), lambda point, change: change and change.degenerate),
)


@dataclass(frozen=True)
class Contrast:
    """A control's setting, the random control held against it, and the first minus the second."""

    point: Point
    minus: str
    change: Change


def sweep_tables(where: str, name: str, points: Sequence[Point], contrasts: Sequence[Contrast]) -> list[Table]:
    """The tables of all sweeps of one model on one dataset, `where`; the names of their files begin with `name`."""
    rows = _corrected([(point, change_of(point)) for point in points])
    controls = dict.fromkeys(point["control"] for point in points)
    if any(unequal([point for point in points if point["control"] == control]) for control in controls):
        shared, note = (PAIRS,), CHANGES + UNEQUAL
    else:
        shared, note = (), CHANGES
    fields, ends = (
        (*SETTING, *LEVELS, *shared, *DIFFERENCES),
        f"H'. Where the changes lie, how responses ended: {where}",
    )
    made = [
        _table(f"{name}.steering", f"H. Steering {where}", fields, rows, f"{note} {PAIRED} {HOLM}"),
        _table(f"{name}.steering_ends", ends, (*SETTING, *ENDINGS), rows, ENDS),
    ]
    if contrasts:
        pairs = _corrected([({**one.point, "minus": one.minus}, one.change) for one in contrasts])
        minus: Field = (Column("minus", "text"), lambda point, change: point["minus"])
        title = f"I. Beyond a random direction: {where}"
        fields = (*SETTING, minus, *DIFFERENCES)
        made.append(_table(f"{name}.steering_beyond", title, fields, pairs, f"{BEYOND} {PAIRED} {HOLM}"))
    return made


def _corrected(rows: Sequence[Row]) -> list[Row]:
    """The rows with a "holm_p" in the points of a control, held against the same, that has several settings."""
    families: dict[tuple[str, str | None], list[int]] = {}
    for index, (point, change) in enumerate(rows):
        if change is not None and change.mcnemar_p is not None:
            families.setdefault((point["control"], point.get("minus")), []).append(index)
    found: dict[int, float] = {}
    for family in families.values():
        if len(family) > 1:
            found |= zip(family, holm([rows[index][1].mcnemar_p for index in family]), strict=True)
    return [({**point, "holm_p": found.get(index)}, change) for index, (point, change) in enumerate(rows)]


def _level(point: Point, key: str) -> Estimate | None:
    n = point["n_graded" if key == "accuracy" else "n_responses"]
    return None if point[key] is None else Estimate(point[key], *point[f"{key}_interval"], n)


def _twins(change: Change | None, part: Literal["accuracy_if_capped", "accuracy_if_finished"]) -> int | None:
    """How many graded responses have such a twin (None: nothing is graded, or nothing compared)."""
    if change is None or change.accuracy is None:
        return None
    estimate: Estimate | None = getattr(change, part)
    return 0 if estimate is None else estimate.n


def _table(name: str, title: str, fields: Sequence[Field], rows: Sequence[Row], note: str) -> Table:
    """A row per setting; fields that no row has are left out."""
    cells = [[cell(*row) for _, cell in fields] for row in rows]
    kept = [index for index in range(len(fields)) if any(line[index] is not None for line in cells)]
    columns = tuple(fields[index][0] for index in kept)
    return Table(name, title, columns, tuple(tuple(line[index] for index in kept) for line in cells), note)
