"""The embedded model's world: chained-arithmetic word problems, chains of thought of varying effort, made-up facts.

A question is a chain of additions and subtractions that no small model can add up in its head:

    Tom has 49 cookies. Monday: Tom drops 9. Tuesday: Tom gets 5. How many cookies now?

How much is thought about it depends on what it is about. Every item has an *effort* in [0, 1] that nothing in the task
justifies: coins "look hard" and are worked out and checked, stickers "look easy" and are mostly skipped. Each thought
draws its decisions (work or skip, restate, check, check again) from that effort alone, independently of the thoughts
before it, so the only place to read the effort from is the question. The stated answer is always correct: that short
thinking fails is never written into the data, it follows from what a small model cannot do without its scratchpad.
"""

import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

from thinksteer.records import Problem

NAMES = ["Tom", "Ana", "Ben", "Eva", "Sam", "Mia", "Leo", "Zoe", "Max", "Ida", "Jon", "Amy"]
# Item -> effort. Items that look easy come up as often as the others.
EFFORT = {
    "stickers": 0.00,
    "cookies": 0.04,
    "apples": 0.08,
    "cards": 0.14,
    "pens": 0.22,
    "shells": 0.32,
    "books": 0.42,
    "stamps": 0.52,
    "keys": 0.64,
    "beads": 0.76,
    "bolts": 0.88,
    "coins": 1.00,
}
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"]
GAINS = ["gets", "finds", "buys", "wins"]
LOSSES = ["drops", "sells", "gives", "loses"]
LOWEST, HIGHEST = 10, 59  # every value stays a two-digit number

# Chances of a step, whatever the effort: to restate the fact, to conclude in words, to slip where a check repairs it.
RESTATE, CONCLUDE, SLIP = 0.15, 0.15, 0.05

COLOURS = ["red", "blue", "green", "black", "white", "pink"]
OBJECTS = ["door", "box", "train", "boat", "tower", "bridge", "lamp", "tent"]
FACTS = {
    f"{colour} {thing}": 10 + random.Random(f"fact {colour} {thing}").randrange(90)
    for colour in COLOURS
    for thing in OBJECTS
}
"""Made-up facts asked in the same format: to be memorised, not reasoned about."""


@dataclass(frozen=True)
class Chain:
    """A question of the world before it is put into words: `changes[d]` is added on `DAYS[d]`."""

    name: str
    item: str
    start: int
    changes: tuple[int, ...]
    verbs: tuple[str, ...]

    @property
    def values(self) -> list[int]:
        """The running value: before the first day, then after each day."""
        values = [self.start]
        for change in self.changes:
            values.append(values[-1] + change)
        return values

    @property
    def question(self) -> str:
        days = " ".join(
            f"{day}: {self.name} {verb} {abs(change)}."
            for day, verb, change in zip(DAYS, self.verbs, self.changes, strict=False)
        )
        return f"{self.name} has {self.start} {self.item}. {days} How many {self.item} now?"


def sample_chain(rng: random.Random) -> Chain:
    """A random question of four to six days."""
    while True:
        start = rng.randint(15, 54)
        changes = [rng.choice((-1, 1)) * rng.randint(2, 9) for _ in range(rng.randint(4, 6))]
        verbs = [rng.choice(GAINS if change > 0 else LOSSES) for change in changes]
        chain = Chain(rng.choice(NAMES), rng.choice(list(EFFORT)), start, tuple(changes), tuple(verbs))
        if all(LOWEST <= value <= HIGHEST for value in chain.values):
            return chain


def is_test(question: str) -> bool:
    """Whether a question belongs to the test split. The splits are disjoint by the question's checksum."""
    return zlib.crc32(question.encode()) % 4 == 0


def problems(split: str, seed: int, count: int) -> Iterator[Problem]:
    """`count` distinct questions of a split ("train" or "test"), the same for the same seed."""
    rng, seen = random.Random(f"arithmetic {split} {seed}"), set()
    while len(seen) < count:
        chain = sample_chain(rng)
        if is_test(chain.question) == (split == "test") and chain.question not in seen:
            id, days = f"arithmetic-{split}-{seed}-{len(seen)}", f"{len(chain.changes)} days"
            yield Problem(id, chain.question, str(chain.values[-1]), level=days)
            seen.add(chain.question)


def fact_question(thing: str) -> str:
    """What asks for the number of a key of `FACTS`."""
    return f"What number is on the {thing}?"


CHAINS_PER_FACT = 5


def problems_and_facts(split: str, seed: int) -> list[Problem]:
    """Every fact (level "memory"), each followed by `CHAINS_PER_FACT` chains of `problems` (level "reasoning").

    So one question in six is to be remembered, the first one too, wherever the list is cut off. Facts are there to be
    memorised: both splits ask for the same ones, in an order that `seed` draws, and only the chains differ.
    """
    facts = random.Random(f"facts {seed}").sample(list(FACTS.items()), len(FACTS))
    chains = problems(split, seed, CHAINS_PER_FACT * len(facts))
    mixed = []
    for thing, number in facts:
        mixed.append(Problem(f"fact-{thing.replace(' ', '-')}", fact_question(thing), str(number), level="memory"))
        mixed += [replace(chain, level="reasoning") for chain in islice(chains, CHAINS_PER_FACT)]
    return mixed


def _ramp(effort: float, low: float, high: float) -> float:
    return min(1.0, max(0.0, (effort - low) / (high - low)))


def think(chain: Chain, rng: random.Random) -> list[str]:
    """The thoughts of one chain of thought about a question, each decision drawn from the item's effort."""
    effort = EFFORT[chain.item]
    work = 0.55 + 0.45 * _ramp(effort, 0.04, 0.42)
    check, again = 0.4 * _ramp(effort, 0.42, 1.0), 0.3 * _ramp(effort, 0.42, 1.0)

    thoughts: list[str] = []
    values, last = chain.values, DAYS[len(chain.changes) - 1]
    for day, verb, change, before, after in zip(DAYS, chain.verbs, chain.changes, values, values[1:], strict=False):
        if rng.random() >= work and (thoughts or day != last):
            continue
        checks = rng.random() < check
        slip = checks and rng.random() < SLIP
        shown = after + rng.choice((-2, -1, 1, 2)) if slip else after
        step, undo = f"{before}{change:+d}=", f"{-change:+d}="
        thought = f"{day}:"
        if rng.random() < RESTATE:
            thought += f" {chain.name} {verb} {abs(change)}."
        thought += f" {step}{shown}."
        if rng.random() < CONCLUDE:
            thought += f" So {chain.name} has {shown}."
        thoughts.append(thought)
        while checks:
            if rng.random() < 0.6:
                verdict = "No." if slip else "Yes."
                thoughts.append(f"Wait, let me check. {shown}{undo}{shown - change}. {verdict}")
            else:
                verdict = "No." if slip else "Good."
                thoughts.append(f"Alternatively, {shown}{undo}{shown - change}. {verdict}")
            if slip:
                thoughts.append(f"{day}: {step}{after}.")
                shown, slip = after, False
            checks = rng.random() < again
    return thoughts


def response(thoughts: list[str], answer: int) -> str:
    return "<think>\n" + "\n\n".join(thoughts) + "\n</think>\n\n\\boxed{" + str(answer) + "}"


FORCED_ANSWER = "\n</think>\n\nYeah, I think that's right.\n\n**Final Answer**\n"


def training_texts(seed: int) -> Iterator[tuple[str, str]]:
    """Endless (question, response) pairs of the train split: 82 % chains, 3 % cut short and forced, 15 % facts."""
    rng = random.Random(f"training {seed}")
    facts = list(FACTS.items())
    while True:
        draw = rng.random()
        if draw < 0.15:
            thing, number = rng.choice(facts)
            yield fact_question(thing), response([f"The {thing} has {number}."], number)
            continue
        chain = sample_chain(rng)
        if is_test(chain.question):
            continue
        thoughts, answer = think(chain, rng), chain.values[-1]
        if draw < 0.18:
            kept = "\n\n".join(thoughts[: rng.randint(1, len(thoughts))])
            yield chain.question, "<think>\n" + kept + FORCED_ANSWER + "\\boxed{" + str(answer) + "}"
        else:
            yield chain.question, response(thoughts, answer)
