"""What a set of records shows: accuracy, thinking length, the shortest responses, paired changes, how responses end.

Estimates come with 95 % intervals (see `intervals`); no figure depends on the order of the records.
"""

import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any, get_args

import numpy as np

from thinksteer.intervals import Estimate, estimates, mean
from thinksteer.outcomes import Outcomes, shared
from thinksteer.records import InputError, Record, Status
from thinksteer.significance import swap_p
from thinksteer.thinking import FORCED_QUESTION, NAME_THE_MARKS

NOTHING_SHARED = "the two runs share no (question, sample): evaluate both on the same questions"
SHORTEST_PERCENTS = (5, 10, 20)
TAIL_CHARACTERS = 4000
COMPRESSED_SHARE = 0.1
MOST, DEGENERATE = 0.5, 0.05  # shares of the responses from which on something is odd
DISTINCT_SHARE = 0.2
BREAKS = b"\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f " + bytes(range(128, 256))  # white space, and all of what is not ASCII
CODE_BYTES = 64  # about what a code of zlib's takes, at most

Pair = tuple[str, int]
"""A record's identity across models: (question id, sample)."""

Responses = Sequence[Record] | Outcomes


def outcomes(records: Responses, loops: bool = False, think_open: str = "") -> Outcomes:
    """What the records show, as columns. `loops`: look for those that end in one too, and for those that open their
    thinking again (by `think_open`, if there is such a delimiter). Each is looked at once."""
    if isinstance(records, Outcomes):
        return records
    columns: tuple[list[Any], ...] = tuple([] for _ in range(11))
    for one in records:
        row = (
            *(one.id, one.sample, one.verdict, one.length, one.response_tokens, one.prediction is not None),
            *(one.finish_reason == "length", one.status),
            None if one.forced_at is None else one.response_tokens - one.forced_at,
            *(loops and degenerate(one.response), loops and _reopened(one, think_open)),
        )
        for column, value in zip(columns, row, strict=True):
            column.append(value)
    id, sample, verdict, length, tokens, answered, cut, status, forced, looped, reopened = columns
    ids, question = np.unique(np.asarray(id, dtype=str), return_inverse=True)
    return Outcomes(
        ids=ids,
        question=question,
        sample=np.asarray(sample, dtype=np.int64),
        verdict=np.asarray(verdict, dtype=np.float64),  # None becomes NaN
        length=np.asarray(length, dtype=np.float64),
        response_tokens=np.asarray(tokens, dtype=np.float64),
        answered=np.asarray(answered, dtype=bool),
        cut=np.asarray(cut, dtype=bool),
        status=np.asarray(status, dtype=str),
        forced=np.asarray(forced, dtype=np.float64),
        looped=np.asarray(looped, dtype=bool) if loops else None,
        reopened=np.asarray(reopened, dtype=bool) if loops else None,
    )


def _reopened(record: Record, think_open: str) -> bool:
    """Whether the thinking is opened again behind the answer that was forced."""
    return (
        record.forced_at is not None
        and bool(think_open)
        and think_open in record.response.partition(FORCED_QUESTION)[2]
    )


def graded(records: Sequence[Record]) -> list[Record]:
    """The records of questions that are not open: the only ones that an accuracy counts."""
    return [record for record in records if record.verdict is not None]


def accuracy(records: Responses) -> Estimate | None:
    """The share of correct responses (None: none is graded). A response without an answer is wrong."""
    of = outcomes(records)
    return of.mean(of.verdict, (0, 1))


def mean_length(records: Responses) -> Estimate | None:
    """Mean thinking length in tokens of the responses that think (None: none); capped ones count as far as they got."""
    of = outcomes(records)
    return of.mean(of.length, None)


def mean_tokens(records: Responses) -> Estimate | None:
    """Mean tokens of whole responses: thinking, answer and, where one was forced, that too (None: no records)."""
    of = outcomes(records)
    return of.mean(of.response_tokens, None)


def shortest(records: Sequence[Record], percent: int) -> list[Record]:
    """The shortest of each run, see `Outcomes.shortest`."""
    return [records[row] for row in outcomes(records).shortest(percent)]


def identities(records: Sequence[Record]) -> frozenset[Pair]:
    """The (question, sample) pairs of the records."""
    return frozenset((record.id, record.sample) for record in records)


def matching(records: Sequence[Record], pairs: Collection[Pair]) -> list[Record]:
    """The records of these (question, sample) pairs."""
    return [record for record in records if (record.id, record.sample) in pairs]


def paired_change(
    base: Sequence[Record],
    other: Sequence[Record],
    value: Callable[[Record], float | None],
    bounds: tuple[float, float] | None = None,
) -> Estimate | None:
    """`value` in `other` minus that in `base`, over the (question, sample) pairs that have it in both (None: no such).

    `bounds` are the least and largest possible change (None: unbounded).
    """
    of_base = {(record.id, record.sample): record for record in base}
    pairs = [(of_base[record.id, record.sample], record) for record in other if (record.id, record.sample) in of_base]
    if not pairs:
        raise InputError(NOTHING_SHARED)
    changes = []
    for before, after in pairs:
        first, second = value(before), value(after)
        if first is not None and second is not None:
            changes.append((before.id, second - first))
    return mean([id for id, _ in changes], [change for _, change in changes], bounds)


def paired(base: Responses, other: Responses) -> tuple[Outcomes, Outcomes]:
    """The (question, sample) pairs that both have, in the same order. InputError if there are none."""
    before, after = outcomes(base), outcomes(other)
    first, second = shared(before, after)
    if not len(first):
        raise InputError(NOTHING_SHARED)
    return before[first], after[second]


def paired_difference(base: Responses, other: Responses) -> Estimate | None:
    """Accuracy of `other` minus that of `base` on the (question, sample) pairs that both have (None: none is graded)"""
    before, after = paired(base, other)
    return before.mean(after.verdict - before.verdict, (-1, 1))


def paired_length_difference(base: Responses, other: Responses) -> Estimate | None:
    """Thinking length of `other` minus that of `base`, in tokens, over pairs in which both think (None: no pair)."""
    before, after = paired(base, other)
    return before.mean(after.length - before.length, None)


def mcnemar_p(base: Responses, other: Responses) -> float | None:
    """McNemar's exact two-sided p of a change in accuracy, the samples of a question taken together (see `swap_p`);
    None where none is graded."""
    before, after = paired(base, other)
    graded = ~np.isnan(before.verdict)
    changes = (np.nan_to_num(after.verdict) - before.verdict)[graded]
    return swap_p(np.bincount(before.question[graded], changes).astype(int).tolist()) if graded.any() else None


def accuracy_below(records: Responses, thresholds: Sequence[float]) -> list[Estimate | None]:
    """Accuracy of responses with thinking shorter than each threshold (the paper's plot); None where none is."""
    thinking = _thinking(records)
    members = thinking.length[:, None] < np.asarray(thresholds, dtype=np.float64)[None]  # [N, K]
    return estimates(thinking.question, thinking.verdict, members, (0, 1))


def accuracy_by_length(records: Responses, groups: int = 10) -> list[tuple[float, Estimate]]:
    """(mean length, accuracy) of equally many responses each, from the shortest to the longest thinking."""
    thinking = _thinking(records)
    thinking = thinking[np.lexsort((thinking.sample, thinking.question, thinking.length))]
    groups = min(groups, len(thinking))
    if not groups:
        return []
    group_of = np.arange(len(thinking)) * groups // len(thinking)
    members = group_of[:, None] == np.arange(groups)[None]  # [N, K]
    found = estimates(thinking.question, thinking.verdict, members, (0, 1))
    means = [float(thinking.length[group_of == group].mean()) for group in range(groups)]
    return [(length, estimate) for length, estimate in zip(means, found, strict=True) if estimate is not None]


def _thinking(records: Responses) -> Outcomes:
    """The responses that think, of questions that are not open."""
    of = outcomes(records)
    return of[~np.isnan(of.verdict) & ~np.isnan(of.length)]


def degenerate(text: str) -> bool:
    """Whether a response ends in a loop: its last 4000 characters compress to under a tenth, or of their word triples
    less than a fifth are distinct. Ordinary chains of thought compress to about a third. Short texts never count.
    """
    tail = text[-TAIL_CHARACTERS:]
    raw = tail.encode("utf-8", "backslashreplace")
    if len(raw) < TAIL_CHARACTERS // 10:
        return False
    return _repeats(tail, raw) or _compresses(raw)


def _repeats(tail: str, raw: bytes) -> bool:
    # Each distinct pair of words but the last begins a triple of its own: those of the first third are mostly enough,
    # and quickly counted. There is at most one word more than there are bytes that could part words.
    most = len(raw) - len(raw.translate(None, BREAKS))
    first = tail.split(None, most // 3)[:-1]
    if len(set(pairwise(first))) - 1 >= DISTINCT_SHARE * most:
        return False
    words = tail.split()
    n = len(words) - 2  # triples
    return n >= 30 and len(set(zip(words, words[1:], words[2:], strict=False))) < DISTINCT_SHARE * n


def _compresses(raw: bytes) -> bool:
    # What the first part takes, the whole takes too, but for a code of other lengths: a quarter is mostly enough.
    least = len(zlib.compress(raw[: len(raw) // 4 + 150])) - CODE_BYTES
    return least < COMPRESSED_SHARE * len(raw) and len(zlib.compress(raw)) < COMPRESSED_SHARE * len(raw)


def metrics(records: Responses, max_length: int | None, think_open: str = "") -> dict[str, Any]:
    """The figures of `metrics.json` and of steering points: shares in [0, 1], lengths in tokens, intervals [low, high].

    `max_length` is the token budget (None: not known) that `cap_rate`, the share of responses reaching it, refers to.
    `forced_rate`: an answer was forced; of those, `reopened_rate` opened their thinking again (by `think_open`), and
    `forced_tokens` is the mean of what was appended and of what followed. Accuracy and `no_answer_rate` are of the
    `n_graded` responses whose question is not open, None if there are none.
    """
    of = outcomes(records, loops=True, think_open=think_open)
    right, length, tokens = accuracy(of), mean_length(of), mean_tokens(of)
    if tokens is None or of.looped is None or of.reopened is None:
        raise InputError("no records to analyse: generate or evaluate some first")
    n, counted, forced = len(of), of[~np.isnan(of.verdict)], of[~np.isnan(of.forced)]
    return {
        "n_responses": n,
        "n_graded": len(counted),
        "n_questions": len(np.unique(of.question)),
        "n_samples": len(np.unique(of.sample)),
        "max_length": max_length,
        "accuracy": None if right is None else right.value,
        "accuracy_interval": None if right is None else [right.low, right.high],
        "mean_length": None if length is None else length.value,
        "mean_length_interval": None if length is None else [length.low, length.high],
        "mean_tokens": tokens.value,
        "mean_tokens_interval": [tokens.low, tokens.high],
        "cap_rate": int(of.cut.sum()) / n,
        "no_answer_rate": int((~counted.answered).sum()) / len(counted) if len(counted) else None,
        "degenerate_rate": int(of.looped.sum()) / n,
        "forced_rate": len(forced) / n,
        "forced_tokens": float(forced.forced.mean()) if len(forced) else None,
        "reopened_rate": int(forced.reopened.sum()) / len(forced) if len(forced) else None,
        "status": {name: int((of.status == name).sum()) / n for name in get_args(Status)},
    }


def oddities(found: Mapping[str, Any], max_length: int) -> list[str]:
    """What is odd about the responses that these `metrics` are of, and the likely reason: a line for each."""
    status, lines = found["status"], []
    idle = status["empty"] + status["no_think"]
    if idle == 1:
        lines.append(f"no response thinks: {NAME_THE_MARKS}")
    elif idle > MOST:
        lines.append(f"{idle:.0%} of the responses do not think ({status['empty']:.0%} empty)")
    if found["cap_rate"] > MOST:
        lines.append(f"{found['cap_rate']:.0%} reached the limit of {max_length} tokens: raise --max_length")
    if found["reopened_rate"]:
        lines.append(f"{found['reopened_rate']:.0%} of the forced answers open the thinking again instead of answering")
    if found["no_answer_rate"] == 1:
        lines.append(
            "no response states an answer: see whether --instruction asks for one, and the prompt's --template"
        )
    if found["degenerate_rate"] > DEGENERATE:
        lines.append(f"{found['degenerate_rate']:.1%} end in a loop: see the sampling settings, or lower the weight")
    return lines


def describe(records: Responses) -> str:
    """One line for a person at the terminal."""
    of = outcomes(records, loops=True)
    found, right = metrics(of, None), accuracy(of)
    missing = found["no_answer_rate"]
    length = "no thinking" if found["mean_length"] is None else f"{found['mean_length']:.1f} thinking tokens"
    share = "–" if right is None else f"{right.value:.1%}"
    interval = "" if right is None or right.low is None else f" [{right.low:.1%}, {right.high:.1%}]"
    return (
        f"{len(records)} responses, accuracy {share}{interval}, {length}, {found['cap_rate']:.1%} reached the limit, "
        + ("not graded: the questions are open" if missing is None else f"{missing:.1%} without an answer")
    )
