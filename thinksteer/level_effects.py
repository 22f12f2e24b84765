"""What steering does to questions of different kinds (`Record.level`): does it change one kind more than another?

Changes are from weight 0 of the same control, on the same (question, sample). Two kinds have different questions, so
the error of one kind's change says nothing of the other's, and the interval of their difference follows from the two
(MOVER: Zou and Donner 2008; of shares Newcombe 1998). A kind in which nothing changed so keeps the width that
`intervals` gives it, where resampling the difference itself would take it for certain.

Each interval and p is by itself: nothing is corrected for looking at many settings.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import hypot

from thinksteer.analysis import mcnemar_p, paired_change
from thinksteer.intervals import Estimate, mean
from thinksteer.letters import strict_letter
from thinksteer.records import Record
from thinksteer.steered import Setting, beside_random


@dataclass(frozen=True, eq=False)
class Run(Setting):
    """The responses of one setting."""

    records: Sequence[Record]

    def of_level(self, level: str) -> list[Record]:
        return [record for record in self.records if record.level == level]


@dataclass(frozen=True)
class Measure:
    """What is averaged over responses: a `value` (None: it has none), a share or (`is_share` False) a number."""

    title: str
    value: Callable[[Record], float | None]
    is_share: bool = True

    def mean(self, records: Sequence[Record]) -> Estimate | None:
        values = [(record.id, value) for record in records if (value := self.value(record)) is not None]
        return mean([id for id, _ in values], [value for _, value in values], (0, 1) if self.is_share else None)

    def change(self, base: Sequence[Record], other: Sequence[Record]) -> Estimate | None:
        """`other` minus `base` over the (question, sample) pairs of both. InputError: they share none."""
        return paired_change(base, other, self.value, (-1, 1) if self.is_share else None)


def _strict(record: Record) -> float | None:
    """Accuracy by the stricter reading of an answer that is a letter."""
    return strict_letter(record.response) == record.reference if record.kind == "letter" else None


ACCURACY = Measure("accuracy", lambda record: record.verdict)
NO_ANSWER = Measure("no answer", lambda record: None if record.verdict is None else record.prediction is None)
STRICT = Measure("strict", _strict)
TOKENS = Measure("tokens", lambda record: record.response_tokens, is_share=False)
MEASURES = (ACCURACY, STRICT, NO_ANSWER, TOKENS)


@dataclass(frozen=True)
class Effect:
    """One kind of questions in one setting, by the measures' titles: means, and changes from no steering."""

    run: Run
    level: str
    n_questions: int
    means: Mapping[str, Estimate | None]
    changes: Mapping[str, Estimate | None]
    mcnemar_p: float | None


@dataclass(frozen=True)
class Contrast:
    """The accuracy of a setting minus that of `minus` (no steering, or a random control), by kind; `difference`: the
    first kind's minus the second's (the interaction), None unless there are two."""

    run: Run
    minus: Run
    changes: Mapping[str, Estimate | None]
    difference: Estimate | None


def levels_in(runs: Sequence[Run]) -> list[str]:
    """The kinds of the runs' questions from a to z, numbers in them by size."""
    found = {record.level for run in runs for record in run.records if record.level is not None}
    return sorted(found, key=lambda level: [int(p) if p.isdecimal() else p for p in re.split(r"([0-9]+)", level)])


def effects(runs: Sequence[Run], levels: Sequence[str]) -> list[Effect]:
    """Every kind in every run, each beside weight 0 of the control that it is a run of."""
    unsteered = _unsteered(runs)
    return [_effect(run, unsteered[run.of], level) for run in runs for level in levels]


def contrasts(runs: Sequence[Run], levels: Sequence[str]) -> list[Contrast]:
    """Each control's setting minus no steering, and minus each of its random controls."""
    unsteered = _unsteered(runs)
    return [
        contrast(run, other, levels)
        for run in runs
        if run.weight and not run.random
        for other in (unsteered[run.control], *beside_random(run, runs))
    ]


def contrast(run: Run, minus: Run, levels: Sequence[str]) -> Contrast:
    """A setting beside another one; a kind that one of them lacks has no change."""
    pairs = {level: (minus.of_level(level), run.of_level(level)) for level in levels}
    changes = {level: ACCURACY.change(*pair) if all(pair) else None for level, pair in pairs.items()}
    return Contrast(run, minus, changes, difference(*changes.values()) if len(levels) == 2 else None)


def difference(first: Estimate | None, second: Estimate | None) -> Estimate | None:
    """`first` minus `second`, of estimates that are independent of each other; see the module's text."""
    if first is None or second is None:
        return None
    value, n = first.value - second.value, first.n + second.n
    if first.low is None or first.high is None or second.low is None or second.high is None:
        return Estimate(value, None, None, n)
    below = hypot(first.value - first.low, second.high - second.value)
    above = hypot(first.high - first.value, second.value - second.low)
    return Estimate(value, value - below, value + above, n)


def verdict(found: Sequence[Contrast]) -> bool | None:
    """Whether a setting's difference lies on one side of all its random controls', intervals and all; None: of none."""
    against = [one.difference for one in found if one.minus.random and one.difference is not None]
    if not against:
        return None
    return all(one.apart_from_zero for one in against) and len({one.value > 0 for one in against}) == 1


def _unsteered(runs: Sequence[Run]) -> dict[str, Run]:
    return {run.control: run for run in runs if not run.weight}


def _effect(run: Run, base: Run, level: str) -> Effect:
    before, records = base.of_level(level), run.of_level(level)
    means = {one.title: one.mean(records) for one in MEASURES}
    questions = len({record.id for record in records})
    if not run.weight or not records or not before:
        return Effect(run, level, questions, means, {}, None)
    changes = {one.title: one.change(before, records) for one in MEASURES}
    return Effect(run, level, questions, means, changes, mcnemar_p(before, records))
