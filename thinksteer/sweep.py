"""What a sweep of steering settings shows: each beside no steering, on the same questions."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from thinksteer import analysis
from thinksteer.analysis import paired_change
from thinksteer.intervals import Estimate
from thinksteer.records import Record

Runs = Mapping[tuple[int | None, float], tuple[Sequence[Record], int]]
"""(layer, weight) -> its records and the token budget they had; layer None: all layers at once, or nothing added."""

Point = Mapping[str, Any]
"""One setting of a summary: "weight", "layer", "change" and the keys of `analysis.metrics`, with the summary's
"control" and "adds_to": what the weight is added to, "layers" or "logits"; with "layers", those that share it."""

Kind = Literal["all layers", "one layer", "logits"]
"""What a weight is of; weights of different kinds do not compare."""

RANDOM = re.compile(r"(.+)\.random\d+")


@dataclass(frozen=True)
class Change:
    """One set of responses minus another, on the (question, sample) pairs of both; see `change`."""

    accuracy: Estimate | None
    mcnemar_p: float | None
    tokens: Estimate
    length: Estimate | None
    degenerate: Estimate
    accuracy_if_capped: Estimate | None
    accuracy_if_finished: Estimate | None


def change(reference: Sequence[Record], records: Sequence[Record]) -> Change:
    """`records` minus `reference`: accuracy, tokens of responses and of thinking, responses that end in a loop.

    Accuracy also among the responses whose reference reached the token limit, and among those whose reference finished
    by itself (None: no such, or their questions are open). What shortens responses gains among the first by letting
    them finish; only the second tell whether it does anything else.
    """
    capped = analysis.identities([one for one in reference if one.finish_reason == "length"])
    finished = analysis.identities(reference) - capped
    tokens = paired_change(reference, records, lambda one: one.response_tokens)
    degenerate = paired_change(reference, records, lambda one: float(analysis.degenerate(one.response)), (-1, 1))
    assert tokens is not None and degenerate is not None  # every pair has both
    parts = [analysis.matching(records, pairs) for pairs in (capped, finished)]
    if_capped, if_finished = (analysis.paired_difference(reference, part) if part else None for part in parts)
    return Change(
        accuracy=analysis.paired_difference(reference, records),
        mcnemar_p=analysis.mcnemar_p(reference, records),
        tokens=tokens,
        length=analysis.paired_length_difference(reference, records),
        degenerate=degenerate,
        accuracy_if_capped=if_capped,
        accuracy_if_finished=if_finished,
    )


def points_of(runs: Runs, think_open: str = "") -> list[dict[str, Any]]:
    """A summary's points: weight, layer, the figures of `analysis.metrics`, and the change against weight 0.

    Only runs of one token budget are compared: a larger one finishes more, whatever is steered. `accuracy_change` is
    [value, low, high]; `change` has all the fields of `Change`, estimates with their interval and number of pairs.
    """
    unsteered = runs.get((None, 0.0))
    points = []
    for (layer, weight), (records, max_length) in sorted(runs.items(), key=lambda run: (run[0][0] is not None, run[0])):
        compared = unsteered is not None and records is not unsteered[0] and max_length == unsteered[1]
        found = change(unsteered[0], records) if compared else None
        right = found and found.accuracy
        setting = {
            "weight": weight,
            "layer": layer,
            "accuracy_change": right and [right.value, right.low, right.high],
            "change": found and asdict(found),
        }
        points.append(setting | analysis.metrics(records, max_length, think_open))
    return points


def unequal(points: Sequence[Point]) -> bool:
    """Whether the points of one control are not all of the same (question, sample) pairs."""
    pairs = {point["change"]["tokens"]["n"] for point in points if point["change"] is not None}
    return len(pairs | {point["n_responses"] for point in points}) > 1


def change_of(point: Point) -> Change | None:
    """The change that a point of a summary states (None: it was not compared)."""
    if point["change"] is None:
        return None
    return Change(**{key: Estimate(**one) if isinstance(one, dict) else one for key, one in point["change"].items()})


def steered_beside(control: str) -> str | None:
    """The control that a random one, `<control>.random<seed>`, is the control of; None for any other."""
    match = RANDOM.fullmatch(control)
    return match and match[1]


def kind_of(point: Point) -> Kind:
    if point["adds_to"] == "logits":
        return "logits"
    return "all layers" if point["layer"] is None else "one layer"


def place(point: Point) -> str:
    """Where the weight is added, in words."""
    if not point["weight"]:
        return "–"
    if shared := point.get("layers"):
        return f"layers {', '.join(map(str, shared))}, 1/{len(shared)} each"
    return kind_of(point) if point["layer"] is None else f"layer {point['layer']}"


@dataclass(frozen=True)
class Curve:
    """Settings of a control that differ in the weight alone, in its order; not steered (weight 0) belongs to each."""

    control: str
    layer: int | None
    kind: Kind
    points: tuple[Point, ...]

    @property
    def label(self) -> str:
        return self.control if self.layer is None else f"{self.control}, layer {self.layer}"


def curves(points: Sequence[Point]) -> list[Curve]:
    """The curves against the weight, of each control all layers first, then layer by layer.

    More layers than weights that they were all swept with make curves against the layer, and are left out here.
    """
    found = []
    for control in dict.fromkeys(point["control"] for point in points):
        own = [point for point in points if point["control"] == control]
        zero = [point for point in own if not point["weight"] and point["layer"] is None]
        lines: dict[int | None, list[Point]] = {}
        for point in sorted(own, key=lambda point: (point["layer"] is not None, point["layer"], point["weight"])):
            if point["weight"]:
                lines.setdefault(point["layer"], []).append(point)
        alike = Counter(tuple(point["weight"] for point in line) for layer, line in lines.items() if layer is not None)
        for layer, line in lines.items():
            if layer is None or alike[tuple(point["weight"] for point in line)] <= len(line):
                in_order = sorted([*zero, *line], key=lambda point: point["weight"])
                found.append(Curve(control, layer, kind_of(line[0]), tuple(in_order)))
    return found


def with_accuracy(drawn: Sequence[Curve]) -> list[Curve]:
    """The curves without the points whose questions are all open; a curve of such points alone is left out."""
    kept = [tuple(point for point in curve.points if point["accuracy"] is not None) for curve in drawn]
    return [replace(curve, points=points) for curve, points in zip(drawn, kept, strict=True) if points]


def by_layer(points: Sequence[Point]) -> list[Point]:
    """The points of a control with weights that several layers were steered with, and the unsteered; else none."""
    uses = Counter(point["weight"] for point in points if point["layer"] is not None)
    shared = [point for point in points if point["layer"] is not None and uses[point["weight"]] > 1]
    return [point for point in points if point in shared or not point["weight"]] if shared else []
