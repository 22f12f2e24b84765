"""Microseconds of grading an answer: by exact rules or by math-verify, and of reading it out of a response."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from itertools import count, cycle, islice
from statistics import median
from time import perf_counter, process_time

from scripts.benchmarks.measuring import Measured, Panel, growth, timed
from thinksteer.grading import Grader, Kind, decide, extract
from thinksteer.models import ModelRef
from thinksteer.tables import Column, Table
from thinksteer.verifier import verify

Item = tuple[str, str, Kind]
"""A prediction or a response, the reference answer, and how they are compared."""

EXACT: tuple[Item, ...] = (  # {n} and {m} are other numbers each time
    ("{n}", "{n}", "math"),
    ("{n},000", "{n}000", "math"),
    (r"\${n}.00", "{n}", "math"),
    ("{n}", "{m}", "math"),
    (r"\frac{{{n}}}{{{m}}}", r"\dfrac{{{n}}}{{{m}}}", "math"),
    (r"{n}\text{{ apples}}", "{n}", "math"),
    (r"{n}\%", "{n}", "math"),
    (r"\text{{Evelyn}}", "Evelyn", "math"),
    ("C", "3", "choice"),
    (r"\text{{(B) }} {n}", "3", "choice"),
)
ALGEBRA: tuple[Item, ...] = (
    (r"{n}\sqrt{{2}}", r"\sqrt{{2}} \cdot {n}", "math"),
    (r"(x+{n})^2", r"x^2+2\cdot{n}x+{n}^2", "math"),
    (r"\left({n}, \frac{{\pi}}{{2}}\right)", r"({n}, \pi/2)", "math"),
    (r"x \in [{n}, \infty)", r"[{n}, \infty)", "math"),
    (r"\frac{{{n}\pi}}{{6}}", r"{n}\pi/6", "math"),
    (r"\{{{n}, {m}\}}", r"\{{{m}, {n}\}}", "math"),
    (r"e^{{{n}}}", r"\exp({n})", "math"),
    (r"{n}+{m}i", r"{m}i+{n}", "math"),
)
THOUGHT = "So {n} is left. Wait, let me check: \\frac{{{n}}}{{{m}}} of {{{m}}} makes {n}, or was it \\boxed{{{m}}}?\n"
RESPONSE = 2400  # characters, about what a response to GSM8K has
CHARACTERS = (1000, 4000, 16000, 64000)
READ, RULES, BOTH = "answer read out of a response", "answers decided by exact rules", "both, by the grader"
ALONE, VERIFIED = "math-verify, called in this process", "both, by the grader: math-verify in a process with limits"


def measure(args: argparse.Namespace, ref: ModelRef) -> Measured:
    easy, n_hard = items(EXACT, args.n_answers, count()), max(1, args.n_answers // 20)
    read, numbers = responses(easy, RESPONSE), count()  # others in every repeat: graders remember what they compared
    with Grader() as grader:
        begin = perf_counter()
        grader.grade_all(responses(items(ALGEBRA, 1, numbers), RESPONSE))
        start = perf_counter() - begin
        by_rules = {
            READ: lambda: [extract(text, kind) for text, _, kind in read],
            RULES: lambda: [decide(*one) for one in easy],
            BOTH: lambda: grader.grade_all(read),
        }
        by_algebra = {
            ALONE: lambda: [verify(*one[:2]) for one in items(ALGEBRA, n_hard, numbers)],
            VERIFIED: lambda: grader.grade_all(responses(items(ALGEBRA, n_hard, numbers), RESPONSE)),
        }
        found = per_answer(timed(by_rules, args.repeats, clock=process_time), args.n_answers)
        found |= per_answer(timed(by_algebra, args.repeats), n_hard)
    grown: dict[str, dict[float, float]] = {}
    for said, last in (("in a box", "\\boxed{{{0}}}"), ("not in a box", "{0}")):
        for size in CHARACTERS:
            texts = [text for text, _, _ in responses(easy[: len(EXACT)] * 4, size, last)]
            measured = timed({said: lambda texts=texts: list(map(extract, texts))}, args.repeats, clock=process_time)
            grown.setdefault(said, {})[size / 1000] = min(per_answer(measured, len(texts))[said])
    panel = Panel("characters of a response, thousands", "µs to read its answer", grown)
    tables = [table(found, args.n_answers, n_hard, start), length_table(grown)]
    return Measured(tables, growth([panel], "Reading the answer out of a response"), found)


def items(forms: Sequence[Item], total: int, numbers: Iterator[int]) -> list[Item]:
    """The forms in turn, each time with other numbers."""
    found = []
    for (prediction, reference, kind), number in zip(islice(cycle(forms), total), numbers, strict=False):
        values = {"n": number + 2, "m": 3 * number + 7}
        found.append((prediction.format(**values), reference.format(**values), kind))
    return found


def responses(of: Sequence[Item], characters: int, last: str = "\\boxed{{{0}}}") -> list[Item]:
    """About that many characters of thinking before each prediction."""
    thinking = "".join(THOUGHT.format(n=n, m=n + 3) for n in range(1000, 1000 + characters // 100))
    return [(f"<think>\n{thinking}</think>\n\nThe answer is {last.format(said)}.", *rest) for said, *rest in of]


def per_answer(measured: Mapping[str, Sequence[tuple[float, object]]], answers: int) -> dict[str, list[float]]:
    """Microseconds of every repeat."""
    return {way: [1e6 * seconds / answers for seconds, _ in repeats] for way, repeats in measured.items()}


def table(found: Mapping[str, Sequence[float]], easy: int, hard: int, start: float) -> Table:
    columns = (Column("what", "text"), *(Column(one, "count") for one in ("answers", "best µs each", "median µs each")))
    rows = [(way, hard if way in (ALONE, VERIFIED) else easy, min(one), median(one)) for way, one in found.items()]
    note = f"Responses of {RESPONSE} characters. The process of math-verify took {start:.1f} s to start, once for all."
    return Table("grading", "Microseconds of an answer", columns, tuple(rows), note)


def length_table(grown: Mapping[str, Mapping[float, float]]) -> Table:
    columns = (Column("characters", "count"), *(Column(f"µs, {said}", "count") for said in grown))
    rows = [(1000 * size, *(curve[size] for curve in grown.values())) for size in next(iter(grown.values()))]
    note = "Best of the repeats. Without a box after the thinking the whole text is searched for the last one."
    return Table("grading_lengths", "Reading the answer out of a response", columns, tuple(rows), note)
