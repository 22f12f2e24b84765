"""What a method's labels cover in responses: how many spans and tokens each has, by verdict and by difficulty.

SEAL's counts of execution, reflection and transition thoughts in correct and incorrect responses (its section 3), with
intervals over questions. Responses without any span count as zeros.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from thinksteer.intervals import Estimate, mean, mean_of_means
from thinksteer.methods.method import Method, Rule
from thinksteer.records import InputError, Record, Span
from thinksteer.tables import Column, Table
from thinksteer.thinking import Reader

COLUMNS = (
    Column("by", "text"),
    Column("group", "text"),
    Column("responses", "count"),
    Column("label", "text"),
    Column("spans per response", "rate"),
    Column("tokens per response", "tokens"),
    Column("tokens per span", "tokens"),
    Column("share of tokens, %", "share"),
)
NOTE = (
    "Means with 95 % intervals (bootstrap over questions). Responses without any span count as zeros, except in the "
    "share, which is the mean over responses of a label's share of all labelled tokens. Only tokens inside spans are "
    "counted."
)


@dataclass(frozen=True)
class Labelled:
    """A response, the ids of its prompt and itself, and its labelled spans; ids and spans empty: it has none."""

    record: Record
    ids: tuple[int, ...]
    spans: tuple[Span, ...]

    def of(self, label: str) -> list[Span]:
        return [span for span in self.spans if span.label == label]


@dataclass(frozen=True)
class Usage:
    """What one label covers in one group of responses: means, None where nothing is there to average."""

    by: str
    group: str
    label: str
    responses: int
    spans: Estimate
    tokens: Estimate
    span_tokens: Estimate | None
    share: Estimate | None


def label_all(method: Method, records: Sequence[Record], rule: Rule, reader: Reader) -> list[Labelled]:
    """Every response with its spans, in the order of questions and samples.

    InputError if no response has a span, or if the rule takes only some of those that have.
    """
    records = sorted(records, key=lambda record: (record.id, record.sample))
    found = {(passage.id, passage.sample): passage for passage in method.passages(records, rule, reader)}
    if not found:
        raise InputError(f"{method.name} finds no span {rule}: there are {len(records)} responses")
    without = [record for record in records if (record.id, record.sample) not in found]
    # A rule for directions may stop at so many responses; those it never looked at are no zeros.
    if passed_over := method.passages(without, rule, reader):
        raise InputError(
            f"{method.name}, {rule}, passes over responses that have spans, such as {passed_over[0].id} sample "
            f"{passed_over[0].sample}, but all are counted here: raise its numbers by the flags of the same names"
        )
    labelled = []
    for record in records:
        passage = found.get((record.id, record.sample))
        labelled.append(Labelled(record, passage.ids, passage.spans) if passage else Labelled(record, (), ()))
    return labelled


def groups(responses: Sequence[Labelled]) -> list[tuple[str, str, list[Labelled]]]:
    """(by what, which, its responses): all together, by verdict, by level from the easiest; empty ones left out."""
    levels = sorted({one.record.level for one in responses if one.record.level is not None}, key=_natural)
    made = [
        ("all", "all", list(responses)),
        ("verdict", "correct", [one for one in responses if one.record.verdict is True]),
        ("verdict", "incorrect", [one for one in responses if one.record.verdict is False]),
        *(("level", level, [one for one in responses if one.record.level == level]) for level in levels),
    ]
    return [group for group in made if group[2]]


def usages(responses: Sequence[Labelled], labels: Sequence[str]) -> list[Usage]:
    """What each label covers in each group of responses."""
    return [_usage(*group, label) for group in groups(responses) for label in labels]


def labels_of(method: Method, responses: Sequence[Labelled]) -> list[str]:
    """The method's own labels first, in its order, then what else was found."""
    return list(dict.fromkeys([*method.labels, *sorted({span.label for one in responses for span in one.spans})]))


def table(name: str, title: str, found: Sequence[Usage]) -> Table:
    rows = [
        (one.by, one.group, one.responses, one.label, one.spans, one.tokens, one.span_tokens, one.share)
        for one in found
    ]
    return Table(name, title, COLUMNS, tuple(rows), NOTE)


def span_rows(responses: Sequence[Labelled], reader: Reader) -> Iterator[dict[str, Any]]:
    """Each span by itself; `start` and `end` are positions in prompt and response together."""
    for one in responses:
        for index, span in enumerate(one.spans):
            yield {
                "id": one.record.id,
                "sample": one.record.sample,
                "index": index,
                "label": span.label,
                "start": span.start,
                "end": span.end,
                "tokens": span.end - span.start,
                "correct": one.record.correct,
                "level": one.record.level,
                "text": reader.decode(one.ids[span.start : span.end]),
            }


def _usage(by: str, group: str, responses: Sequence[Labelled], label: str) -> Usage:
    ids = [one.record.id for one in responses]
    tokens = [_tokens(one.of(label)) for one in responses]
    spans = mean(ids, [len(one.of(label)) for one in responses], None)
    per_response = mean(ids, tokens, None)
    assert spans is not None and per_response is not None  # no group is empty
    each = [(one.record.id, span.end - span.start) for one in responses for span in one.of(label)]
    shares = [
        (one.record.id, own / _tokens(one.spans)) for one, own in zip(responses, tokens, strict=True) if one.spans
    ]
    span_tokens = mean([id for id, _ in each], [length for _, length in each], None)
    share = _mean_share([id for id, _ in shares], [value for _, value in shares])
    return Usage(by, group, label, len(responses), spans, per_response, span_tokens, share)


def _mean_share(ids: Sequence[str], shares: Sequence[float]) -> Estimate | None:
    """As `mean`, but never with Wilson's interval, which is for shares of yes and no."""
    return mean_of_means(ids, np.asarray(shares), np.ones((len(ids), 1), dtype=bool), (0, 1)) if ids else None


def _tokens(spans: Sequence[Span]) -> int:
    return sum(span.end - span.start for span in spans)


def _natural(level: str) -> list[str | int]:
    """Levels in the order of their numbers: "9 days" before "10 days"."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", level)]
