"""The numbers and heads that papers published, as data: what each is of, how it was rounded, where it stands."""

import json
from dataclasses import dataclass
from functools import cache
from math import ceil, floor
from pathlib import Path
from typing import Any, Literal

Unit = Literal["%", "tokens", "points"]
EDITED = "ThinkEdit-"
SHORTEST = "shortest "  # "shortest 5 %"
SPREAD = "spread of runs"


@dataclass(frozen=True)
class Place:
    """How the records of a number were steered; of an evaluation there is none."""

    control: str
    weight: float
    layer: int | None


@dataclass(frozen=True)
class Published:
    """A printed number: shares in percent, rounded to so many `decimals`; `runs` is the samples of each question."""

    table: str
    source: str
    model: str
    dataset: str
    measure: str
    value: float
    decimals: int
    runs: int
    questions: int
    steering: Place | None

    @property
    def unit(self) -> Unit:
        return "tokens" if self.measure == "tokens" else "%"

    @property
    def percent(self) -> int | None:
        """Of which shortest share of each run the accuracy is."""
        return int(self.measure.split()[1]) if self.measure.startswith(SHORTEST) else None

    @property
    def half(self) -> float:
        """As far as rounding can move a number; upstream's Python rounds what lies between to either side."""
        return 0.5 * 10**-self.decimals + 1e-9

    @property
    def attainable(self) -> bool | None:
        """Whether any count of right answers gives this accuracy (None: it is none)."""
        if self.measure != "accuracy" and self.percent is None:
            return None
        n = self.runs * (self.questions if self.percent is None else share_of(self.percent, self.questions))
        first, last = ((self.value + side * self.half) / 100 * n for side in (-1, 1))
        return ceil(first) <= floor(last)


@dataclass(frozen=True)
class Stated:
    """A number that a paper states, and what its own table, or its own list, gives for it."""

    table: str
    source: str
    model: str
    measure: str
    value: float
    decimals: int
    unit: Unit
    follows: float

    @property
    def agrees(self) -> bool:
        return abs(self.value - self.follows) <= 0.5 * 10**-self.decimals + 1e-9


@cache
def _tables() -> dict[str, Any]:
    return json.loads(Path(__file__).with_name("published_tables.json").read_text(encoding="utf-8"))


def share_of(percent: int, n: int) -> int:
    """How many of n are the shortest so many percent, as upstream rounds."""
    return floor(percent / 100 * n)


def published() -> list[Published]:
    """Every number of every table, in its order."""
    return [
        Published(
            table=table["name"],
            source=table["source"],
            model=model,
            dataset=dataset,
            measure=measure,
            value=value,
            decimals=decimals,
            runs=table["runs"],
            questions=_tables()["questions"][dataset],
            steering=Place(**table["steering"]) if "steering" in table else None,
        )
        for table in _tables()["tables"]
        for model, on in table["values"].items()
        for dataset, values in on.items()
        for measure, value, decimals in zip(table["measures"], values, table["decimals"], strict=True)
    ]


def stated() -> list[Stated]:
    """What ThinkEdit's abstract says of its tables, and of the heads that it edits."""
    gains, heads = _tables()["gains"], _tables()["heads"]
    cells = {(one.model, one.dataset, one.measure): one.value for one in published() if one.steering is None}
    found = []
    for measure, value in gains["values"].items():
        changes = [
            cells[EDITED + model, dataset, measure] - before
            for (model, dataset, of), before in cells.items()
            if of == measure and not model.startswith(EDITED)
        ]
        mean = sum(changes) / len(changes)
        name = f"gain, {measure}"
        found.append(
            Stated("thinkedit.abstract", gains["source"], "all", name, value, gains["decimals"], "points", mean)
        )
    for model, total in heads["all"].items():
        share = 100 * len(published_heads(model)) / total
        found.append(
            Stated("thinkedit.heads", heads["source"], model, "share of heads edited", heads["share"], 0, "%", share)
        )
    return found


def published_heads(key: str) -> list[tuple[int, int]]:
    """The (layer, head) that upstream ThinkEdit edits in a model, in rank order; empty where it published none.

    From the lists in its get_ThinkEdit_models.py (second version of the paper): 20, 40, 80 and 160 heads.
    """
    lists = json.loads(Path(__file__).with_name("published_heads.json").read_text(encoding="utf-8"))
    return [(layer, head) for layer, head in lists.get(key, [])]
