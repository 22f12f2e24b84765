"""The tables of behaviours: what steering changed, what of it a random direction does not, and models side by side."""

from collections.abc import Mapping, Sequence

from thinksteer.behaviours import (
    ALL,
    MEASURES,
    TARGET_TOKENS,
    Contrast,
    Effect,
    Labelled,
    Measure,
    difference,
    labels_in,
    level,
)
from thinksteer.tables import Column, Kind, Table

INTERVALS = "Means with 95 % intervals (bootstrap over questions)."
NO_SHARE = " `without`: responses with nothing to take a share of; they are left out of the mean."
UPSTREAM = (
    " Upstream's own figure, but it counts 0 for responses without any of the four labels and calls it a fraction of"
    " sentences."
)
PAIRED = " Changes are from weight 0 on the same (question, sample), where both have a value."
BEYOND = (
    "The control's setting minus a random direction of the same norms at the same weight and layer, in the control's"
    f" own label, on the same (question, sample). {INTERVALS} Each by itself: no correction for looking at many."
)
MODELS = (
    f"{INTERVALS} Shares leave out responses with nothing to take a share of. Published (Venhoff et al., 2025; 100"
    " tasks, labels of a large model): distilled models 24 to 30 sections per response, of which backtracking 4 to"
    " 4.7 % and uncertainty-estimation 7.6 to 9.8 %; instruction-tuned ones 11 to 18 sections, 0 to 1.7 % and 1.3 to"
    " 2.5 %, and adding-knowledge 22 to 27 %."
)


def effects_table(name: str, where: str, measure: Measure, found: Sequence[Effect]) -> Table:
    """A row for each label in each setting."""
    columns = (
        *(Column(title, "text") for title in ("control", "added to", "weight", "label")),
        Column("n", "count"),
        Column("without", "count"),
        Column(measure.title, _level_kind(measure)),
        Column("change", _change_kind(measure)),
        Column("degenerate", "share"),
        Column("tokens", "tokens"),
    )
    rows = [
        (
            *(one.run.control, one.run.place, f"{one.run.weight:g}", one.label),
            *(len(one.run.labelled), one.without, one.level, one.change, one.run.degenerate, one.run.tokens),
        )
        for one in found
    ]
    note = INTERVALS + PAIRED + NO_SHARE * measure.is_share + UPSTREAM * (measure is TARGET_TOKENS)
    return Table(name, f"Behaviours of {where}: {measure.title}", columns, tuple(rows), note)


def contrasts_table(name: str, where: str, found: Sequence[Contrast]) -> Table:
    """A row for each setting and random control of it."""
    columns = (
        *(Column(title, "text") for title in ("control", "added to", "weight", "minus", "label")),
        *(Column(measure.title, _change_kind(measure)) for measure in MEASURES),
    )
    rows = [
        (
            *(one.run.control, one.run.place, f"{one.run.weight:g}", one.minus, one.run.label),
            *(one.differences.get(measure.name) for measure in MEASURES),
        )
        for one in found
    ]
    return Table(name, f"Behaviours beyond a random direction: {where}", columns, tuple(rows), BEYOND)


def models_table(name: str, dataset: str, models: Mapping[str, Labelled]) -> Table:
    """What each label has in the responses of each model."""
    columns = (*_model_columns(), *(Column(one.title, _level_kind(one)) for one in MEASURES))
    rows = [
        (
            *(model, label, len(labelled)),
            *(level([labelled], label, one) if one.has(label) else None for one in MEASURES),
        )
        for model, labelled in models.items()
        for label in (ALL, *labels_in(list(models.values())))
    ]
    return Table(name, f"Behaviours of models on {dataset}", columns, tuple(rows), MODELS)


def differences_table(name: str, dataset: str, models: Mapping[str, Labelled]) -> Table:
    """Each model minus the first, on the questions of both."""
    columns = (*_model_columns(), *(Column(one.title, _change_kind(one)) for one in MEASURES))
    (first, base), *others = models.items()
    rows = [
        (
            *(f"{model} minus {first}", label, len(base.keys() & labelled.keys())),
            *(difference(base, labelled, label, one) if one.has(label) else None for one in MEASURES),
        )
        for model, labelled in others
        for label in (ALL, *labels_in(list(models.values())))
    ]
    note = f"Paired by (question, sample), where both have a value. {INTERVALS}"
    return Table(name, f"Behaviours of models on {dataset}: differences", columns, tuple(rows), note)


def _model_columns() -> tuple[Column, ...]:
    return Column("model", "text"), Column("label", "text"), Column("n", "count")


def _level_kind(measure: Measure) -> Kind:
    return "share" if measure.is_share else "rate"


def _change_kind(measure: Measure) -> Kind:
    return "change" if measure.is_share else "rate"
