"""How much of their thinking models spend on each behaviour, and what steering, or another model, changes in that.

The figures are means over annotated responses. A share is of what a response has of labelled tokens or sections;
upstream's (Venhoff et al., 2025; cvenhoff/steering-thinking-llms at 93259bc) is of the tokens of four labels alone. A
response without any has no share: upstream counts 0 for every label there, which draws all of them towards 0; here it
is left out and the number left out is told. That can pick responses by what steering did to them, so sections per
response, which every response has, are counted too.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from thinksteer.analysis import Pair
from thinksteer.annotation import LABELS, Annotation
from thinksteer.intervals import Estimate, mean, mean_of_means
from thinksteer.records import InputError
from thinksteer.steered import Setting, beside_random

TARGETS = ("backtracking", "uncertainty-estimation", "example-testing", "adding-knowledge")
"""The labels that upstream steers, in its order."""

ALL = "all labels"

Verdict = Literal["raised", "lowered", "not told apart", "without random control"]


@dataclass(frozen=True)
class Usage:
    """What each label has of one response: tokens that begin in its sections, and sections."""

    tokens: Counter[str]
    sections: Counter[str]


Labelled = Mapping[Pair, Usage]
"""The responses of a file by (id, sample)."""


@dataclass(frozen=True)
class Measure:
    """What is averaged over responses: the `unit`s of a label, as a share of those of all labels `among` (None: of
    every label; empty: no share, their number)."""

    name: str
    title: str
    unit: Literal["tokens", "sections"]
    among: tuple[str, ...] | None = None

    @property
    def is_share(self) -> bool:
        return self.among != ()

    def has(self, label: str) -> bool:
        return label in self.among if self.among else label != ALL or not self.is_share

    def value(self, usage: Usage, label: str) -> float | None:
        """None where the response has nothing to take a share of."""
        counts: Counter[str] = getattr(usage, self.unit)
        if not self.is_share:
            return counts.total() if label == ALL else counts[label]
        whole = counts.total() if self.among is None else sum(counts[one] for one in self.among)
        return counts[label] / whole if whole else None


TOKENS = Measure("tokens", "share of labelled tokens", "tokens")
SECTIONS = Measure("sections", "share of sections", "sections")
TARGET_TOKENS = Measure("targets", "share of the four targets' tokens", "tokens", TARGETS)
PER_RESPONSE = Measure("counts", "sections per response", "sections", ())
MEASURES = (TOKENS, SECTIONS, TARGET_TOKENS, PER_RESPONSE)


@dataclass(frozen=True, eq=False)
class Run(Setting):
    """The responses of one setting; `degenerate` is the share that ends in a loop, `tokens` the mean per response."""

    labelled: Labelled
    degenerate: float
    tokens: float

    @property
    def label(self) -> str:
        """The control's own: what stands before the first dot of its name."""
        return self.of.partition(".")[0]


@dataclass(frozen=True)
class Effect:
    """One label in the responses of one setting: mean, and paired change from no steering (None: nothing to average).

    `without`: the responses that have no share.
    """

    run: Run
    label: str
    level: Estimate | None
    change: Estimate | None
    without: int


@dataclass(frozen=True)
class Contrast:
    """A control's setting minus a random control's of the same weight and layer, in the control's own label, by the
    names of the measures."""

    run: Run
    minus: str
    differences: Mapping[str, Estimate | None]


def count(annotations: Mapping[Pair, Annotation]) -> Labelled:
    """Tokens and sections of each label in each annotated response."""
    counted = {}
    for pair, annotation in annotations.items():
        tokens: Counter[str] = Counter()
        for section in annotation.sections:
            tokens[section.label] += section.last - section.first
        counted[pair] = Usage(tokens, Counter(section.label for section in annotation.sections))
    return counted


def labels_in(labelled: Sequence[Labelled]) -> list[str]:
    """The six labels, then those that an annotator made up."""
    found = {label for one in labelled for usage in one.values() for label in usage.sections}
    return [*LABELS, *sorted(found - set(LABELS))]


def level(labelled: Sequence[Labelled], label: str, measure: Measure) -> Estimate | None:
    """The mean over the responses of all these files that have a value; questions are resampled."""
    return _mean([(id, value) for one in labelled for (id, _), value in _values(one, label, measure)], measure, (0, 1))


def difference(base: Labelled, other: Labelled, label: str, measure: Measure) -> Estimate | None:
    """`other` minus `base`, over the (question, sample) pairs that have a value in both. InputError: none in common."""
    if not base.keys() & other.keys():
        raise InputError("the two runs share no (question, sample): answer the same questions with both")
    before = dict(_values(base, label, measure))
    changes = [(pair[0], value - before[pair]) for pair, value in _values(other, label, measure) if pair in before]
    return _mean(changes, measure, (-1, 1))


def effects(runs: Sequence[Run], measure: Measure) -> list[Effect]:
    """Every label that the measure has in every run, each beside weight 0 of the control that it is a run of."""
    unsteered = {run.control: run for run in runs if not run.weight}
    labels = [label for label in labels_in([run.labelled for run in runs]) if measure.has(label)]
    found = []
    for run in runs:
        base = unsteered[run.of]
        for label in labels:
            change = difference(base.labelled, run.labelled, label, measure) if run.weight else None
            without = sum(measure.value(usage, label) is None for usage in run.labelled.values())
            found.append(Effect(run, label, level([run.labelled], label, measure), change, without))
    return found


def contrasts(runs: Sequence[Run]) -> list[Contrast]:
    """Each setting minus each of its random controls."""
    return [
        Contrast(
            run,
            other.control,
            {
                one.name: difference(other.labelled, run.labelled, run.label, one)
                for one in MEASURES
                if one.has(run.label)
            },
        )
        for run in runs
        if run.weight
        for other in beside_random(run, runs)
    ]


def verdict(run: Run, random: Sequence[Run]) -> Verdict:
    """What a setting did to its own label's share of tokens beyond every one of its random controls."""
    found = [difference(other.labelled, run.labelled, run.label, TOKENS) for other in random]
    apart = {one.value > 0 if one is not None and one.apart_from_zero else None for one in found}
    if not found:
        return "without random control"
    return {(True,): "raised", (False,): "lowered"}.get(tuple(apart), "not told apart")


def _values(labelled: Labelled, label: str, measure: Measure) -> Iterator[tuple[Pair, float]]:
    for pair, usage in labelled.items():
        value = measure.value(usage, label)
        if value is not None:
            yield pair, value


def _mean(entries: Sequence[tuple[str, float]], measure: Measure, bounds: tuple[float, float]) -> Estimate | None:
    """Never with Wilson's interval, which is for shares of yes and no."""
    ids, values = [id for id, _ in entries], [value for _, value in entries]
    if not measure.is_share:
        return mean(ids, values, None)
    return mean_of_means(ids, np.asarray(values), np.ones((len(ids), 1), dtype=bool), bounds) if ids else None
