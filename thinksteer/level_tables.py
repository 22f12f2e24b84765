"""The tables of what steering does to questions of different kinds."""

from collections.abc import Sequence

from thinksteer.level_effects import MEASURES, Contrast, Effect, Measure
from thinksteer.tables import Cell, Column, Table

INTERVALS = "95 % intervals are over questions, each by itself: nothing is corrected for looking at many."
CHANGES = (
    f"Changes are from weight 0 of the same control, on the same (question, sample). {INTERVALS} McNemar's exact p is"
    " of the change in accuracy. `strict`: accuracy by the stricter reading of letters."
)
DIFFERENCES = (
    "Accuracy minus that of no steering, or of a random direction of the same norms at the same weight and layer, on"
    " the same (question, sample); last, whether one kind is changed more than the other. What is done in many steps is"
    f" disturbed by any direction, so only what goes beyond random ones is the direction's own. {INTERVALS}"
)


def effects_table(name: str, where: str, found: Sequence[Effect]) -> Table:
    """A row for each kind in each setting; measures that no row has are left out."""
    measures = [one for one in MEASURES if any(effect.means[one.title] for effect in found)]
    columns = [*_setting("kind"), Column("questions", "count")]
    for one in measures:
        columns += [Column(one.title, "share" if one.is_share else "tokens")]
        columns += [Column(f"{one.title} change", "change" if one.is_share else "token_change")]
    rows = [_effect(one, measures) for one in found]
    return Table(name, f"Steering {where}, by kind", (*columns, Column("McNemar p", "p")), tuple(rows), CHANGES)


def contrasts_table(name: str, where: str, levels: Sequence[str], found: Sequence[Contrast]) -> Table:
    """A row for each setting and what it is held against; of two kinds also the first minus the second."""
    titles = [*levels, *([" minus ".join(levels)] if len(levels) == 2 else [])]
    columns = (*_setting("minus"), *(Column(title, "change") for title in titles))
    rows = tuple(_contrast(one, levels)[: len(columns)] for one in found)
    return Table(name, f"Steering {where}, kind against kind", columns, rows, DIFFERENCES)


def _setting(last: str) -> list[Column]:
    return [Column(title, "text") for title in ("control", "added to", "weight", last)]


def _effect(one: Effect, measures: Sequence[Measure]) -> tuple[Cell, ...]:
    values = [cell for of in measures for cell in (one.means[of.title], one.changes.get(of.title))]
    about = (one.run.control, one.run.place, f"{one.run.weight:g}", one.level, one.n_questions)
    return (*about, *values, one.mcnemar_p)


def _contrast(one: Contrast, levels: Sequence[str]) -> tuple[Cell, ...]:
    minus = one.minus.control if one.minus.weight else "not steered"
    about = (one.run.control, one.run.place, f"{one.run.weight:g}", minus)
    return (*about, *(one.changes[level] for level in levels), one.difference)
