"""Puzzles of logic: a task is drawn at random and kept if just one of all possible worlds fits what it says."""

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations, permutations, product
from random import Random
from typing import Any

Task = tuple[str, str]
"""The question and its answer."""

World = Sequence[Any]
Clue = tuple[str, Callable[[World], bool]]
"""What is said, and whether it is so in a world."""

PEOPLE = ("Anna", "Bruno", "Chen", "Dilek", "Emil", "Farah", "Goran", "Hana")
PLACES = ("first", "second", "third", "fourth", "last")


def knights(rng: Random) -> Task:
    """Three people who always lie or never do; how many are knights."""
    while True:
        names = rng.sample(PEOPLE, 3)
        claims = [_claim(rng, names, speaker) for speaker in range(3)]
        worlds = [
            world
            for world in product((True, False), repeat=3)
            if all(knight == fits(world) for knight, (_, fits) in zip(world, claims, strict=True))
        ]
        if len(worlds) == 1:
            break
    said = " ".join(f'{name} says: "{text}."' for name, (text, _) in zip(names, claims, strict=True))
    island = (
        "On an island everyone is either a knight, who only says what is true, or a knave, who only says what is not."
    )
    return f"{island} You meet {_listed(names)}. {said} How many of the three are knights?", str(sum(worlds[0]))


def _claim(rng: Random, names: Sequence[str], speaker: int) -> Clue:
    x, y = rng.sample([place for place in range(3) if place != speaker], 2)
    claims: list[Clue] = [
        (f"{names[x]} is a knave", lambda world: not world[x]),
        (f"{names[x]} and {names[y]} are of the same kind", lambda world: world[x] == world[y]),
        (f"{names[x]} and I are of different kinds", lambda world: world[x] != world[speaker]),
        ("At most one of us three is a knight", lambda world: sum(world) <= 1),
        ("The number of knaves among us is even", lambda world: sum(world) % 2 == 1),
    ]
    return rng.choice(claims)


COUNTED: dict[str, Callable[[int, int], bool]] = {
    "Exactly": lambda count, bound: count == bound,
    "At least": lambda count, bound: count >= bound,
    "At most": lambda count, bound: count <= bound,
}


def sheet(rng: Random) -> Task:
    """Statements about how many of themselves are true; how many are."""
    while True:
        size = rng.choice((4, 5, 6))
        claims = [(rng.choice(list(COUNTED)), rng.randint(1, size - 1), rng.random() < 0.5) for _ in range(size)]
        worlds = [
            world
            for world in product((True, False), repeat=size)
            if all(
                true == COUNTED[how](world.count(value), bound)
                for true, (how, bound, value) in zip(world, claims, strict=True)
            )
        ]
        if len(worlds) == 1 and len(set(claims)) == size:
            break
    lines = [
        f"{number}. {how} {bound} of the statements on this sheet {'is' if bound == 1 else 'are'} {str(value).lower()}."
        for number, (how, bound, value) in enumerate(claims, start=1)
    ]
    text = "\n".join(["A sheet of paper says only this:", *lines])
    return f"{text}\nThere is just one way in which this can be. How many of the statements are true?", str(
        sum(worlds[0])
    )


def eggs(rng: Random) -> Task:
    """A number told by its remainders and a bound."""
    sizes = sorted(rng.sample((4, 5, 7, 9, 11), 3))
    bound = math.prod(sizes)  # no two of them share a factor
    number = rng.choice([n for n in range(bound // 3, bound) if all(n % size for size in sizes)])
    left = [f"in boxes of {size}, {number % size} {'is' if number % size == 1 else 'are'} left over" for size in sizes]
    return (
        f"A farmer sorts her eggs. Packed {left[0]}; {left[1]}; {left[2]}. "
        f"She has fewer than {bound} eggs. How many does she have?"
    ), str(number)


def codes(rng: Random) -> Task:
    """How many sets of digits fit a description."""
    while True:
        length, total, missing = rng.choice((3, 4)), rng.randint(11, 22), rng.randint(1, 8)
        fitting = [code for code in combinations(range(10), length) if sum(code) == total and missing not in code]
        if 4 <= len(fitting) <= 12:
            break
    return (
        f"The {length} digits of a lock's code get larger from left to right, so none comes twice. They add up to "
        f"{total}, and {missing} is not among them. (The first may be 0.) How many codes are possible?"
    ), str(len(fitting))


def race(rng: Random) -> Task:
    """Who came in at some place; a world gives the place of each runner."""
    names = rng.sample(PEOPLE, 5)
    clues: list[Clue] = [(f"{name} was neither first nor last", _between(x)) for x, name in enumerate(names)]
    for (x, one), (y, other) in permutations(enumerate(names), 2):
        clues.append((f"{one} came in before {other}", lambda world, x=x, y=y: world[x] < world[y]))
        clues.append((f"{one} came in right behind {other}", lambda world, x=x, y=y: world[x] == world[y] + 1))
        apart = (
            f"exactly one runner came in between {one} and {other}",
            lambda world, x=x, y=y: abs(world[x] - world[y]) == 2,
        )
        clues += [apart] if x < y else []
    worlds = list(permutations(range(5)))
    true = rng.choice(worlds)
    said, asked = _narrow(rng, worlds, true, clues), rng.randrange(5)
    return (
        f"{_listed(names)} ran a race without ties. {_sentences(said)} Who came in {PLACES[asked]}?",
        names[true.index(asked)],
    )


def _between(x: int) -> Callable[[World], bool]:
    return lambda world: 0 < world[x] < 4


DRINKS, PETS = ("tea", "coffee", "cocoa"), ("cat", "dog", "parrot")


def flatmates(rng: Random) -> Task:
    """Who drinks what and has which pet; a world gives each person's drink, then each person's pet."""
    names = rng.sample(PEOPLE, 3)
    clues: list[Clue] = []
    for x, name in enumerate(names):
        for k, (drink, pet) in enumerate(zip(DRINKS, PETS, strict=True)):
            clues.append((f"{name} does not drink {drink}", lambda world, x=x, k=k: world[0][x] != k))
            clues.append((f"{name} does not have the {pet}", lambda world, x=x, k=k: world[1][x] != k))
    for j, drink in enumerate(DRINKS):
        for k, pet in enumerate(PETS):
            same = lambda world, j=j, k=k: world[0].index(j) == world[1].index(k)  # noqa: E731
            clues.append((f"whoever drinks {drink} has the {pet}", same))
            clues.append((f"whoever drinks {drink} does not have the {pet}", lambda world, same=same: not same(world)))
    worlds = list(product(permutations(range(3)), repeat=2))
    true, asked = rng.choice(worlds), rng.randrange(3)
    said = _sentences(_narrow(rng, worlds, true, clues))
    return (
        f"Of the flatmates {_listed(names)} one drinks only tea, one only coffee, one only cocoa; one has a cat, one "
        f"a dog, one a parrot. {said} What does {names[asked]} drink?"
    ), DRINKS[true[0][asked]]


def suspects(rng: Random) -> Task:
    """Who did it, from how many of the statements are true."""
    while True:
        names = rng.sample(PEOPLE, 4)
        claims = [_accusation(rng, names, speaker) for speaker in range(4)]
        number = rng.choice((1, 2, 3))
        guilty = [x for x in range(4) if sum(fits([x]) for _, fits in claims) == number]
        if len(guilty) == 1 and len({text for text, _ in claims}) == 4:
            break
    said = " ".join(f'{name} says: "{text}."' for name, (text, _) in zip(names, claims, strict=True))
    are = "one of these statements is" if number == 1 else f"{('two', 'three')[number - 2]} of these statements are"
    return (
        f"One of {_listed(names)} broke the vase, alone. {said} Exactly {are} true. Who broke it?",
        names[guilty[0]],
    )


def _accusation(rng: Random, names: Sequence[str], speaker: int) -> Clue:
    x, y = rng.sample([place for place in range(4) if place != speaker], 2)
    claims: list[Clue] = [
        ("It was not me", lambda world: world[0] != speaker),
        (f"It was {names[x]}", lambda world: world[0] == x),
        (f"It was {names[x]} or {names[y]}", lambda world: world[0] in (x, y)),
        (f"It was neither {names[x]} nor me", lambda world: world[0] not in (x, speaker)),
    ]
    return rng.choice(claims)


KINDS = ("wugs", "blickets", "toves", "daxes", "fendles", "zibs")
FORMS: dict[str, Callable[[int, int], Callable[[World], bool]]] = {
    "all {} are {}": lambda x, y: lambda world: all(thing[y] for thing in world if thing[x]),
    "no {} are {}": lambda x, y: lambda world: not any(thing[y] for thing in world if thing[x]),
    "some {} are {}": lambda x, y: lambda world: any(thing[y] for thing in world if thing[x]),
    "some {} are not {}": lambda x, y: lambda world: any(not thing[y] for thing in world if thing[x]),
}
# A world of three kinds of things: which of the eight combinations of kinds exist, with something of each kind.
_THINGS = list(product((True, False), repeat=3))
_WORLDS = [
    world
    for world in (
        [t for t, there in zip(_THINGS, exist, strict=True) if there] for exist in product((True, False), repeat=8)
    )
    if all(any(thing[x] for thing in world) for x in range(3))
]


def syllogism(rng: Random) -> Task:
    """Whether a conclusion follows; as often yes as no."""
    wanted = rng.random() < 0.5
    while True:
        kinds = rng.sample(KINDS, 3)
        pairs = [rng.sample(pair, 2) for pair in ((0, 1), (1, 2), (0, 2))]
        said = [
            (form.format(kinds[x], kinds[y]), FORMS[form](x, y)) for x, y in pairs for form in [rng.choice(list(FORMS))]
        ]
        (first, one), (second, other), (conclusion, third) = said
        left = [world for world in _WORLDS if one(world) and other(world)]
        open_before = all(any(not third(world) for world in _WORLDS if fits(world)) for fits in (one, other))
        if left and open_before and wanted == all(map(third, left)):
            break
    return (
        f"There are {_listed(kinds)}, at least one of each. {first.capitalize()}, and {second}. "
        f"Does it follow that {conclusion}? Answer yes or no."
    ), "yes" if wanted else "no"


def _narrow(rng: Random, worlds: Iterable[World], true: World, clues: Sequence[Clue]) -> list[str]:
    """Clues that are so in the `true` world and in no other, none of them needless."""
    known = [clue for clue in clues if clue[1](true)]
    rng.shuffle(known)
    false = [world for world in worlds if world != true]
    for clue in list(known):
        rest = [other for other in known if other is not clue]
        if not any(all(fits(world) for _, fits in rest) for world in false):
            known = rest
    return [text for text, _ in known]


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _sentences(texts: Sequence[str]) -> str:
    return " ".join(f"{text[0].upper()}{text[1:]}." for text in texts)
