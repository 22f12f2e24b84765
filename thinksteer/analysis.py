"""What a set of records shows: accuracy, thinking length, the shortest responses, paired changes, how responses end.

Estimates come with 95 % intervals (see `intervals`); no figure depends on the order of the records.
"""

import zlib
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from thinksteer.intervals import Estimate, estimates, mean
from thinksteer.records import InputError, Record
from thinksteer.significance import swap_p

SHORTEST_PERCENTS = (5, 10, 20)
TAIL_CHARACTERS = 4000
COMPRESSED_SHARE = 0.1
DISTINCT_SHARE = 0.2

Pair = tuple[str, int]
"""A record's identity across models: (question id, sample)."""


def graded(records: Sequence[Record]) -> list[Record]:
    """The records of questions that are not open: the only ones that an accuracy counts."""
    return [record for record in records if record.verdict is not None]


def accuracy(records: Sequence[Record]) -> Estimate | None:
    """The share of correct responses (None: none is graded). A response without an answer is wrong."""
    counted = graded(records)
    return mean([record.id for record in counted], [float(record.correct) for record in counted], (0, 1))


def mean_length(records: Sequence[Record]) -> Estimate | None:
    """Mean thinking length in tokens of the responses that think (None: none); capped ones count as far as they got."""
    with_length = [record for record in records if record.length is not None]
    return mean([record.id for record in with_length], [record.length or 0 for record in with_length], None)


def mean_tokens(records: Sequence[Record]) -> Estimate | None:
    """Mean tokens of whole responses: thinking, answer and, where one was forced, that too (None: no records)."""
    return mean([record.id for record in records], [record.response_tokens for record in records], None)


def shortest(records: Sequence[Record], percent: int) -> list[Record]:
    """Of each run's n thinking responses the `floor(percent % of n)` shortest; all of one sample number are a run.

    As upstream (methods A7), but responses that never think are left out (upstream sorts them first, as length -1) and
    ties are broken by question id, so that the choice does not depend on the order of the file.
    """
    runs: dict[int, list[tuple[int, str, Record]]] = {}
    for record in records:
        if record.length is not None:
            runs.setdefault(record.sample, []).append((record.length, record.id, record))
    chosen: list[Record] = []
    for sample in sorted(runs):
        ordered = sorted(runs[sample], key=lambda entry: entry[:2])
        chosen += [record for _, _, record in ordered[: len(ordered) * percent // 100]]
    return chosen


def identities(records: Sequence[Record]) -> frozenset[Pair]:
    """The (question, sample) pairs of the records."""
    return frozenset((record.id, record.sample) for record in records)


def next_samples(records: Sequence[Record], pairs: Collection[Pair]) -> list[Record]:
    """For each pair, the next sample of the same question (the first after the last) under the pair's own number.

    Picking a model's shortest responses picks their luck too; the next samples of the same questions were not picked.
    Questions with a single sample are left out.
    """
    samples: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda record: record.sample):
        samples.setdefault(record.id, []).append(record)
    return [
        replace(ordered[(place + 1) % len(ordered)], sample=record.sample)
        for ordered in samples.values()
        for place, record in enumerate(ordered)
        if len(ordered) > 1 and (record.id, record.sample) in pairs
    ]


def matching(records: Sequence[Record], pairs: Collection[Pair]) -> list[Record]:
    """The records of these (question, sample) pairs."""
    return [record for record in records if (record.id, record.sample) in pairs]


def _paired(base: Sequence[Record], other: Sequence[Record]) -> list[tuple[Record, Record]]:
    of_base = {(record.id, record.sample): record for record in base}
    pairs = [(of_base[record.id, record.sample], record) for record in other if (record.id, record.sample) in of_base]
    if not pairs:
        raise InputError("the two runs share no (question, sample): evaluate both on the same questions")
    return pairs


def paired_change(
    base: Sequence[Record],
    other: Sequence[Record],
    value: Callable[[Record], float | None],
    bounds: tuple[float, float] | None = None,
) -> Estimate | None:
    """`value` in `other` minus that in `base`, over the (question, sample) pairs that have it in both (None: no such).

    `bounds` are the least and largest possible change (None: unbounded).
    """
    changes = []
    for before, after in _paired(base, other):
        first, second = value(before), value(after)
        if first is not None and second is not None:
            changes.append((before.id, second - first))
    return mean([id for id, _ in changes], [change for _, change in changes], bounds)


def paired_difference(base: Sequence[Record], other: Sequence[Record]) -> Estimate | None:
    """Accuracy of `other` minus that of `base` on the (question, sample) pairs that both have (None: none is graded)"""
    return paired_change(base, other, lambda record: record.verdict, (-1, 1))


def paired_length_difference(base: Sequence[Record], other: Sequence[Record]) -> Estimate | None:
    """Thinking length of `other` minus that of `base`, in tokens, over pairs in which both think (None: no pair)."""
    return paired_change(base, other, lambda record: record.length)


def mcnemar_p(base: Sequence[Record], other: Sequence[Record]) -> float | None:
    """McNemar's exact two-sided p of a change in accuracy, the samples of a question taken together (see `swap_p`);
    None where none is graded."""
    changes: Counter[str] = Counter()
    for before, after in _paired(base, other):
        if before.verdict is not None:
            changes[before.id] += after.correct - before.correct
    return swap_p(list(changes.values())) if changes else None


def accuracy_below(records: Sequence[Record], thresholds: Sequence[float]) -> list[Estimate | None]:
    """Accuracy of responses with thinking shorter than each threshold (the paper's plot); None where none is."""
    thinking = [record for record in graded(records) if record.length is not None]
    lengths = np.asarray([record.length for record in thinking], dtype=np.float64)
    members = lengths[:, None] < np.asarray(thresholds, dtype=np.float64)[None]  # [N, K]
    correct = np.asarray([record.correct for record in thinking], dtype=np.float64)
    return estimates([record.id for record in thinking], correct, members, (0, 1))


def accuracy_by_length(records: Sequence[Record], groups: int = 10) -> list[tuple[float, Estimate]]:
    """(mean length, accuracy) of equally many responses each, from the shortest to the longest thinking."""
    thinking = sorted(
        ((record.length, record.id, record.sample, record) for record in graded(records) if record.length is not None),
        key=lambda entry: entry[:3],
    )
    groups = min(groups, len(thinking))
    if not groups:
        return []
    group_of = np.arange(len(thinking)) * groups // len(thinking)
    members = group_of[:, None] == np.arange(groups)[None]  # [N, K]
    correct = np.asarray([entry[3].correct for entry in thinking], dtype=np.float64)
    found = estimates([entry[1] for entry in thinking], correct, members, (0, 1))
    lengths = np.asarray([entry[0] for entry in thinking], dtype=np.float64)
    means = [float(lengths[group_of == group].mean()) for group in range(groups)]
    return [(length, estimate) for length, estimate in zip(means, found, strict=True) if estimate is not None]


def degenerate(text: str) -> bool:
    """Whether a response ends in a loop: its last 4000 characters compress to under a tenth, or of their word triples
    less than a fifth are distinct. Ordinary chains of thought compress to about a third. Short texts never count.
    """
    tail = text[-TAIL_CHARACTERS:]
    raw = tail.encode()
    if len(raw) < TAIL_CHARACTERS // 10:
        return False
    words = tail.split()
    triples = list(zip(words, words[1:], words[2:], strict=False))
    repeats = len(triples) >= 30 and len(set(triples)) < DISTINCT_SHARE * len(triples)
    return repeats or len(zlib.compress(raw)) < COMPRESSED_SHARE * len(raw)


def metrics(records: Sequence[Record], max_length: int | None) -> dict[str, Any]:
    """The figures of `metrics.json` and of steering points: shares in [0, 1], lengths in tokens, intervals [low, high].

    `max_length` is the token budget (None: not known) that `cap_rate`, the share of responses reaching it, refers to.
    Accuracy and `no_answer_rate` are of the `n_graded` responses whose question is not open, None if there are none.
    """
    right, length, tokens = accuracy(records), mean_length(records), mean_tokens(records)
    if tokens is None:
        raise InputError("no records to analyse: generate or evaluate some first")
    n, counted = len(records), graded(records)
    status = Counter(record.status for record in records)
    return {
        "n_responses": n,
        "n_graded": len(counted),
        "n_questions": len({record.id for record in records}),
        "n_samples": len({record.sample for record in records}),
        "max_length": max_length,
        "accuracy": None if right is None else right.value,
        "accuracy_interval": None if right is None else [right.low, right.high],
        "mean_length": None if length is None else length.value,
        "mean_length_interval": None if length is None else [length.low, length.high],
        "mean_tokens": tokens.value,
        "mean_tokens_interval": [tokens.low, tokens.high],
        "cap_rate": sum(record.finish_reason == "length" for record in records) / n,
        "no_answer_rate": sum(record.prediction is None for record in counted) / len(counted) if counted else None,
        "degenerate_rate": sum(degenerate(record.response) for record in records) / n,
        "status": {name: status[name] / n for name in ("closed", "capped", "eos_open", "no_think")},
    }


def describe(records: Sequence[Record]) -> str:
    """One line for a person at the terminal."""
    found = metrics(records, None)
    right, missing = accuracy(records), found["no_answer_rate"]
    length = "no thinking" if found["mean_length"] is None else f"{found['mean_length']:.1f} thinking tokens"
    share = "–" if right is None else f"{right.value:.1%}"
    interval = "" if right is None or right.low is None else f" [{right.low:.1%}, {right.high:.1%}]"
    return (
        f"{len(records)} responses, accuracy {share}{interval}, {length}, {found['cap_rate']:.1%} reached the limit, "
        + ("not graded: the questions are open" if missing is None else f"{missing:.1%} without an answer")
    )
