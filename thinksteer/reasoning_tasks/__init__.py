"""Reasoning tasks of ten categories, of our own making, that get a model to think, check itself and turn back.

After the tasks of Venhoff et al. (2025), which a language model wrote: ten categories, 500 tasks for training, 50 for
tests. Every test task is written by hand, and so is a fifth of the others; the rest are drawn from templates, equally
many from each of a category's, with answers that are computed. Over a quarter of all tasks has no single answer: their
`kind` is "open", and they are never graded.
"""

import json
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from random import Random

from thinksteer.reasoning_tasks import logic, open_ended, processes, shapes, shortcuts
from thinksteer.records import Problem

WRITTEN = Path(__file__).with_name("written.jsonl")
PER_CATEGORY = {"train": 50, "test": 5}
SEED = 42  # the paper's
BOXED = "\nPut the final answer in \\boxed{}."

Template = Callable[[Random], logic.Task | str]
"""Draws a question: with its answer, or, where it is open, alone."""

TEMPLATES: dict[str, tuple[Template, ...]] = {
    "mathematical logic": (logic.knights, logic.sheet, logic.eggs, logic.codes),
    "spatial reasoning": (shapes.die, shapes.robot, shapes.block, shapes.towers),
    "verbal logic": (logic.race, logic.flatmates, logic.suspects, logic.syllogism),
    "pattern recognition": (shapes.interleaved, shapes.rows, shapes.growing, shapes.cipher),
    "lateral thinking": (shortcuts.fly, shortcuts.lily, shortcuts.tournament, shortcuts.jugs, shortcuts.bridge),
    "causal reasoning": (
        processes.lamps,
        processes.treatments,
        processes.votes,
        open_ended.headline,
        open_ended.afterwards,
    ),
    "probabilistic thinking": (shortcuts.illness, shortcuts.urn, shortcuts.dice, shortcuts.points, shortcuts.doors),
    "systems thinking": (
        processes.orders,
        processes.stations,
        processes.heater,
        open_ended.backfired,
        open_ended.shock,
    ),
    "creative problem solving": (open_ended.design, open_ended.without, open_ended.combine, open_ended.trouble),
    "scientific reasoning": (processes.cross, processes.pots, processes.thermometer, processes.decay),
}
CATEGORIES = tuple(TEMPLATES)


def problems(split: str) -> list[Problem]:
    """All tasks of "train" or "test", always the same ones; any first n of them are spread over the categories evenly.

    `level` is the category.
    """
    of_category = [_tasks(category, split) for category in CATEGORIES]
    made = []
    for number, (category, (question, answer)) in enumerate(
        (category, task)
        for row in zip(*of_category, strict=True)
        for category, task in zip(CATEGORIES, row, strict=True)
    ):
        id = f"reasoning_tasks-{split}-{number}"
        made.append(
            Problem(id, question, "", "open", category)
            if answer is None
            else Problem(id, question + BOXED, answer, "math", category)
        )
    return made


def _tasks(category: str, split: str) -> list[tuple[str, str | None]]:
    """A category's questions with their answers (None: open), shuffled."""
    rng, count = Random(f"{SEED} {split} {category}"), PER_CATEGORY[split]
    found = dict(_written(category, split))
    drawn = _drawn(category, rng)
    while len(found) < count:
        question, answer = next(drawn)
        found.setdefault(question, answer)
    tasks = list(found.items())
    rng.shuffle(tasks)
    return tasks


def _written(category: str, split: str) -> Iterator[tuple[str, str | None]]:
    for line in WRITTEN.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if (row["category"], row["split"]) == (category, split):
            yield row["question"], row.get("answer")


def _drawn(category: str, rng: Random) -> Iterator[tuple[str, str | None]]:
    """Endless instances of the category's templates, in turns."""
    for template in cycle(TEMPLATES[category]):
        task = template(rng)
        yield (task, None) if isinstance(task, str) else task
