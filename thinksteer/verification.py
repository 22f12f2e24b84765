"""Published numbers against those that records give, by upstream's definition and by ours.

Upstream's (analyze_ThinkEdit_performance.py at 0820517) takes a response that never began to think for one of length
-1, which is the shortest there is, and one that was cut or ended while thinking for one as long as the budget; each
run's share is taken by itself, and their mean is printed. Its sort leaves ties in any order: where they could matter,
all that they could give is told as a range.

From upstream's own records a number agrees if it is what upstream's definition gives, rounded as printed. Records of
one's own are other draws: there it agrees if it lies in the 95 % interval that is ours.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from statistics import fmean, stdev
from typing import Literal

from thinksteer.analysis import accuracy, mean_tokens, shortest
from thinksteer.intervals import Estimate
from thinksteer.published import SPREAD, Published, Stated, share_of
from thinksteer.records import Record
from thinksteer.tables import Cell, Column, Table

Origin = Literal["upstream", "own"]
Verdict = Literal["agree", "differ", "no records"]
Range = tuple[float, float]

NOTE = (
    "Published: as printed. Upstream's definition: what it gives for these records, as a range where ties in length"
    " leave it open. Ours: with a 95 % interval over questions; responses without thinking are not among the shortest."
    " Upstream's records agree if upstream's definition gives what is printed, one's own if our interval holds it."
    " Attainable: whether any number of right answers gives the printed accuracy. Spread: the standard deviation of"
    " runs, compared for upstream's records only."
)
REGRADED = " Ours is with our grader, upstream's definition with the verdicts in the records."
STATED = (
    "What a paper says of its tables and lists, and what follows from these. Gains are means over models and data sets;"
    " the abstract does not say how short its short outputs are; the shortest 5 % gain more than 10 or 20 %."
)


@dataclass(frozen=True)
class Check:
    """A published number beside what records give; `theirs` is the least and the most by upstream's definition."""

    published: Published
    origin: Origin | None = None
    theirs: Range | None = None
    ours: Estimate | None = None
    n_questions: int | None = None

    @property
    def verdict(self) -> Verdict:
        held = self.theirs
        if self.origin == "own" and self.ours is not None:
            low, high = self.ours.low, self.ours.high
            held = None if low is None or high is None else (low, high)
        if held is None:
            return "no records"
        value, half = self.published.value, self.published.half
        return "agree" if held[0] - half <= value <= held[1] + half else "differ"


def check(one: Published, records: Sequence[Record], origin: Origin, regraded: Sequence[Record] | None = None) -> Check:
    """A number against records of its model and data set; `regraded`, the same ones with other verdicts, are ours."""
    theirs = by_upstream(one, records) if origin == "upstream" or one.measure != SPREAD else None
    if theirs is None:
        return Check(one)
    ours = _ours(one, records if regraded is None else regraded)
    return Check(one, origin, theirs, ours, len({record.id for record in records}))


def by_upstream(one: Published, records: Sequence[Record]) -> Range | None:
    """None where too few records are there: a single run has no spread, twenty no shortest hundredth."""
    runs: dict[int, list[Record]] = {}
    for record in records:
        runs.setdefault(record.sample, []).append(record)
    if one.measure == "tokens":
        value = fmean(record.response_tokens for record in records)
        return value, value
    if one.percent is not None:
        if not all(share_of(one.percent, len(run)) for run in runs.values()):
            return None
        ends = [among_shortest(run, one.percent) for run in runs.values()]
        return 100 * fmean(least for least, _ in ends), 100 * fmean(most for _, most in ends)
    shares = [100 * fmean(record.correct for record in run) for run in runs.values()]
    if one.measure == SPREAD:
        return (stdev(shares), stdev(shares)) if len(runs) > 1 else None
    return fmean(shares), fmean(shares)


def among_shortest(run: Sequence[Record], percent: int) -> Range:
    """The least and the largest accuracy of a run's shortest so many percent, over all orders of equal lengths."""
    lengths = [upstream_length(record) for record in run]
    taken = share_of(percent, len(run))
    cut = sorted(lengths)[taken - 1]
    pairs = list(zip(run, lengths, strict=True))
    right = sum(record.correct for record, length in pairs if length < cut)
    tied = [record.correct for record, length in pairs if length == cut]
    places, wrong = taken - sum(length < cut for length in lengths), len(tied) - sum(tied)
    return (right + max(0, places - wrong)) / taken, (right + min(places, sum(tied))) / taken


def upstream_length(record: Record) -> float:
    """As upstream orders responses: -1 without thinking, after all others where the thinking never closed."""
    if record.status == "no_think":
        return -1
    return inf if record.thinking_tokens is None else record.thinking_tokens


def _ours(one: Published, records: Sequence[Record]) -> Estimate | None:
    """In the unit of what is printed."""
    if one.measure == SPREAD:
        return None
    if one.measure == "tokens":
        return mean_tokens(records)
    share = accuracy(records if one.percent is None else shortest(records, one.percent))
    if share is None or share.low is None or share.high is None:
        return None
    return replace(share, value=100 * share.value, low=100 * share.low, high=100 * share.high)


def checks_table(name: str, checks: Sequence[Check], regraded: bool) -> Table:
    columns = (
        *(Column(title, "text") for title in ("table", "model", "data set", "measure", "unit")),
        *(Column(title, "rate") for title in ("published", "upstream's definition", "ours")),
        *(Column(title, "text") for title in ("records", "attainable", "verdict")),
        Column("questions", "count"),
    )
    note = NOTE + REGRADED * regraded
    return Table(name, "Published numbers, recomputed", columns, tuple(_row(one) for one in checks), note)


def stated_table(name: str, found: Sequence[Stated]) -> Table:
    columns = [Column(title, "text") for title in ("table", "model", "measure", "unit")]
    columns += [Column("stated", "rate"), Column("what follows", "rate"), Column("verdict", "text")]
    rows = [
        (one.table, one.model, one.measure, one.unit, one.value, one.follows, "agree" if one.agrees else "differ")
        for one in found
    ]
    return Table(name, "Stated numbers, and what the tables give", tuple(columns), tuple(rows), STATED)


def _row(check: Check) -> tuple[Cell, ...]:
    one, theirs = check.published, None
    if check.theirs is not None:
        low, high = check.theirs
        ends = (low, high) if high - low > 1e-9 else (None, None)
        theirs = Estimate((low + high) / 2, *ends, check.n_questions or 0)
    attainable = {None: None, True: "yes", False: "no"}[one.attainable]
    about = (one.table, one.model, one.dataset, one.measure, one.unit)
    return (*about, one.value, theirs, check.ours, check.origin, attainable, check.verdict, check.n_questions)
