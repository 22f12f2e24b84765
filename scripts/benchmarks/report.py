"""What a report costs: half a million records, against reading and decoding them once, and against plain loops."""

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import process_time

import numpy as np
from matplotlib.figure import Figure

from scripts.benchmarks import evaluations
from scripts.benchmarks.measuring import Cost, Measured, Panel, child, growth
from thinksteer.intervals import RESAMPLES
from thinksteer.models import ModelRef
from thinksteer.tables import Column, Table

WHOLE, GOAL_SECONDS, GOAL_MB = 527_600, 60, 2048  # records, and what they may cost
PARTS = (10, 3, 1)  # of the questions: how it grows
FILES = len(evaluations.MODELS) * len(evaluations.DATASETS)
# Means over all responses in a plain report of one data set: accuracy, length and tokens of 8 models, changes of
# accuracy and length in 19 comparisons. Those of the shortest responses come on top.
PLAIN_MEANS = (3 * 8 + 2 * (7 + 4 * 3)) * len(evaluations.DATASETS)


@dataclass
class Size:
    """What was measured at one size: all costs of the report; CPU seconds of reading, and of the plain way."""

    questions: int
    megabytes: float
    costs: list[Cost] = field(default_factory=list)
    reading: list[float] = field(default_factory=list)
    plain: float = 0.0

    @property
    def records(self) -> int:
        return self.questions * evaluations.N_SAMPLES * FILES

    @property
    def best(self) -> Cost:
        return min(self.costs, key=lambda cost: cost.cpu)


def measure(args: argparse.Namespace, ref: ModelRef) -> Measured:
    """Small sets --repeats times, in turn with reading them; the whole once."""
    found = []
    for part in PARTS:
        with tempfile.TemporaryDirectory() as scratch:
            questions = max(1, args.report_questions // part)
            size = Size(questions, evaluations.write(Path(scratch), questions) / 1e6)
            files = sorted(Path(scratch).glob("evaluations/*/*/*.jsonl"))
            for _ in range(args.repeats if part > 1 else 1):
                size.reading.append(reading(files))
                size.costs.append(child("analyze_results:main", "--artifacts", scratch, "--overwrite"))
            size.plain = plain(files[0], files[len(evaluations.DATASETS)])
        found.append(size)
    repeats = {f"{one.records} records": [cost.cpu for cost in one.costs] for one in found}
    return Measured([report_table(found)], drawn(found), repeats)


def reading(files: Sequence[Path]) -> float:
    """CPU seconds of decoding every line once, which is the least that a report of them can cost without more."""
    begin = process_time()
    for file in files:
        with open(file, "rb") as lines:
            for line in lines:
                json.loads(line)
    return process_time() - begin


def plain(base: Path, other: Path) -> float:
    """CPU seconds of the plain way, from one file and three means: a dictionary a line, loops, and a bootstrap that
    gathers the drawn questions' values again in every resample."""
    begin = process_time()
    records = [json.loads(line) for line in base.read_text(encoding="utf-8").splitlines()]
    read = process_time() - begin
    after = {(one["id"], one["sample"]): one for one in map(json.loads, other.read_text(encoding="utf-8").splitlines())}
    begin = process_time()
    thinking = [(one["id"], one["thinking_tokens"]) for one in records if one["thinking_tokens"] is not None]
    changes = [(one["id"], after[one["id"], one["sample"]]["correct"] - one["correct"]) for one in records]
    for pairs in ([(one["id"], one["correct"]) for one in records], thinking, changes):
        plain_interval(pairs)
    return read * FILES + (process_time() - begin) / 3 * PLAIN_MEANS


def plain_interval(pairs: Sequence[tuple[str, float]]) -> tuple[float, float]:
    of_question: dict[str, list[float]] = {}
    for id, value in pairs:
        of_question.setdefault(id, []).append(value)
    rng, ids, means = np.random.default_rng(0), list(of_question), []
    for _ in range(RESAMPLES):
        drawn = rng.choice(ids, len(ids))
        means.append(np.mean([value for id in drawn for value in of_question[id]]))
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def report_table(found: Sequence[Size]) -> Table:
    columns = (
        Column("records", "count"),
        Column("MB", "count"),
        Column("CPU seconds", "rate"),
        Column("of reading alone", "rate"),
        Column("as against it, %", "share"),
        Column("of the plain way", "count"),
        Column("goal", "count"),
        Column("wall seconds", "rate"),
        Column("peak MB", "count"),
        Column("goal, MB", "count"),
    )
    rows = []
    for one in found:
        read, whole = min(one.reading), one.records >= WHOLE
        goals = (GOAL_SECONDS if whole else None, one.best.wall, one.best.peak, GOAL_MB)
        rows.append((one.records, one.megabytes, one.best.cpu, read, one.best.cpu / read, one.plain, *goals))
    note = (
        "CPU seconds of one core, of the whole process with its imports. Reading alone: each line decoded once by json."
        " The plain way: dictionaries, loops and a bootstrap that gathers values again in every resample;"
        f" extrapolated from one of {FILES} files and three of {PLAIN_MEANS} means, without those of the shortest"
        " responses, without figures and without looking for loops."
    )
    return Table("report", "What a report costs", columns, tuple(rows), note)


def drawn(found: Sequence[Size]) -> Figure:
    x = "records, thousands"
    seconds = {
        "analyze_results.py": {one.records / 1000: one.best.cpu for one in found},
        "reading every line alone": {one.records / 1000: min(one.reading) for one in found},
    }
    memory = {"analyze_results.py": {one.records / 1000: one.best.peak for one in found}}
    goal = GOAL_SECONDS if found[-1].records >= WHOLE else None
    panels = [Panel(x, "CPU seconds", seconds, goal), Panel(x, "peak memory, MB", memory, GOAL_MB)]
    return growth(panels, f"A report of {len(evaluations.MODELS)} models on {len(evaluations.DATASETS)} data sets")
