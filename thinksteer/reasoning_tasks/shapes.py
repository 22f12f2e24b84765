"""Puzzles of space and of patterns, with parameters."""

from collections import Counter
from collections.abc import Callable, Iterable
from random import Random

from thinksteer.reasoning_tasks.logic import Task

# A die as (top, north, east); what a roll over an edge makes of it.
ROLLS = {
    "north": lambda top, north, east: (7 - north, top, east),
    "south": lambda top, north, east: (north, 7 - top, east),
    "east": lambda top, north, east: (7 - east, north, top),
    "west": lambda top, north, east: (east, north, 7 - top),
}


def die(rng: Random) -> Task:
    """Which face of a rolling die ends on top."""
    top, north, east = start = rng.choice([(1, 2, 3), (2, 6, 3), (6, 5, 3), (3, 1, 2), (5, 3, 6), (4, 2, 1)])
    path = [rng.choice(list(ROLLS)) for _ in range(rng.randint(4, 6))]
    state = start
    for way in path:
        state = ROLLS[way](*state)
    return (
        f"A die, whose opposite faces add up to 7, lies on a chessboard: {top} is on top, {north} faces north, {east} "
        f"faces east. It is rolled over its edges from square to square: {', '.join(path)}. Which number is on top "
        "now?"
    ), str(state[0])


def robot(rng: Random) -> Task:
    """How far a robot is from where it began, along the streets."""
    moves = [(rng.randint(2, 9), rng.choice(("left", "right"))) for _ in range(rng.randint(5, 7))]
    place, facing = 0j, 1j
    for steps, turn in moves:
        place += steps * facing
        facing *= 1j if turn == "left" else -1j
    told = ", ".join(f"{steps} blocks ahead and turns {turn}" for steps, turn in moves)
    return (
        f"A delivery robot in a city whose streets form a square grid faces north. It drives {told}. It then drives "
        "back to where it began by a shortest way along the streets. How many blocks is that?"
    ), str(round(abs(place.real) + abs(place.imag)))


def block(rng: Random) -> Task:
    """How many small cubes of a painted block have so many painted faces."""
    sides = sorted(rng.choices(range(3, 8), k=3))
    faces = rng.choice((1, 2, 0))
    a, b, c = (side - 2 for side in sides)
    count = {0: a * b * c, 1: 2 * (a * b + b * c + a * c), 2: 4 * (a + b + c)}[faces]
    painted = {0: "no painted face", 1: "exactly one painted face", 2: "exactly two painted faces"}[faces]
    return (
        f"A block of {sides[0]} by {sides[1]} by {sides[2]} small cubes is painted on all its outside, then taken "
        f"apart. How many of the small cubes have {painted}?"
    ), str(count)


def towers(rng: Random) -> Task:
    """The fewest cubes with a given front and side view."""
    while True:
        front, side = ([rng.randint(1, 4) for _ in range(3)] for _ in range(2))
        if max(front) == max(side):
            break
    # One tower can show a height to both sides.
    columns, rows = Counter(front), Counter(side)
    fewest = sum(height * max(columns[height], rows[height]) for height in columns | rows)
    return (
        "Towers of cubes stand on the fields of a board of 3 by 3 fields; some fields may be empty. Seen from the "
        f"front, the tallest towers of the three columns are, from left to right, {_heights(front)} cubes high. Seen "
        f"from the left, the tallest of the three rows are, from left to right, {_heights(side)} cubes high. What is "
        "the smallest number of cubes with which this is possible?"
    ), str(fewest)


def _heights(heights: list[int]) -> str:
    return f"{heights[0]}, {heights[1]} and {heights[2]}"


def interleaved(rng: Random) -> Task:
    """Two sequences in turns; the next number."""
    first, step, second, factor = rng.randint(2, 20), rng.randint(3, 9), rng.randint(1, 5), rng.choice((2, 3, -2))
    shown = rng.choice((8, 9))
    terms = [first + step * (k // 2) if k % 2 == 0 else second * factor ** (k // 2) for k in range(shown + 1)]
    return f"Which number comes next: {', '.join(map(str, terms[:-1]))}, …?", str(terms[-1])


RULES = (
    lambda a, b: a * b - a,
    lambda a, b: a * b - b,
    lambda a, b: 2 * (a + b),
    lambda a, b: a * a - b,
    lambda a, b: a * b + a + b,
    lambda a, b: (a - b) * (a + b),
    lambda a, b: 3 * a - b,
    lambda a, b: a * a + b * b,
)


def rows(rng: Random) -> Task:
    """The number that a rule, seen in three rows, gives in a fourth; no other of the rules fits the three."""
    while True:
        rule = rng.choice(RULES)
        pairs = [(rng.randint(4, 12), rng.randint(2, 9)) for _ in range(4)]
        fitting = [other for other in RULES if all(other(*pair) == rule(*pair) for pair in pairs[:3])]
        if fitting == [rule] and len(set(pairs)) == 4:
            break
    table = "\n".join(f"{a}, {b} → {rule(a, b)}" for a, b in pairs[:3])
    a, b = pairs[3]
    return f"One rule makes a number of two others:\n{table}\n{a}, {b} → ?\nWhich number belongs in the last row?", str(
        rule(a, b)
    )


def growing(rng: Random) -> Task:
    """Each number is the one before plus its digits' sum, or plus the largest of them."""
    while True:
        start = rng.randint(12, 60)
        made, other = (_grown(start, grow) for grow in rng.sample((sum, max), 2))
        if made[:4] != other[:4] and made[1] - made[0] != made[2] - made[1]:
            break
    return (
        f"In the sequence {', '.join(map(str, made[:-1]))}, … what is added to a number depends on its digits alone. "
        "Which number comes next?"
    ), str(made[-1])


def _grown(term: int, grow: Callable[[Iterable[int]], int]) -> list[int]:
    terms = [term]
    while len(terms) < 7:
        terms.append(terms[-1] + grow(map(int, str(terms[-1]))))
    return terms


WORDS = (
    "RIVER",
    "CLOUD",
    "STONE",
    "MAPLE",
    "TIGER",
    "LEMON",
    "PIANO",
    "OCEAN",
    "BRICK",
    "FROST",
    "WHEAT",
    "CANDLE",
    "GARDEN",
)


def cipher(rng: Random) -> Task:
    """A word in a code that two other words show: each letter is moved by a number that grows along the word."""
    first, second, asked = rng.sample(WORDS, 3)
    start, step = rng.randint(1, 5), rng.choice((-2, -1, 1, 2, 3))
    coded = {
        word: "".join(chr((ord(letter) - 65 + start + step * k) % 26 + 65) for k, letter in enumerate(word))
        for word in (first, second, asked)
    }
    return (
        f"In a code {first} is written {coded[first]} and {second} is written {coded[second]}. How is {asked} written?",
        coded[asked],
    )
