"""Solvers of the templates of `reasoning_tasks`, by name: each knows nothing but the text of the question."""

import re
from collections import Counter
from fractions import Fraction
from functools import cache
from itertools import combinations, pairwise, permutations, product
from math import comb

import numpy as np

WORD = {"one": 1, "two": 2, "three": 3}


def numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"-?\d+", text)]


def find(pattern: str, text: str) -> list:
    return re.findall(pattern, text)


def knights(text: str) -> object:
    names, said = find(r"[A-Z]\w+(?= says)", text), find(r'"(.+?)\."', text)

    def true(claim: str, speaker: str, knight: dict[str, bool]) -> bool:
        about = [name for name in names if name in claim] + ([speaker] if " I " in claim else [])
        if "is a knave" in claim:
            return not knight[about[0]]
        if "same kind" in claim:
            return knight[about[0]] is knight[about[1]]
        if "different kinds" in claim:
            return knight[about[0]] is not knight[about[1]]
        knaves = list(knight.values()).count(False)
        return knaves >= 2 if "At most one" in claim else knaves in (0, 2)

    worlds = [dict(zip(names, world, strict=True)) for world in product((True, False), repeat=3)]
    fits = [w for w in worlds if all(true(s, name, w) is w[name] for s, name in zip(said, names, strict=True))]
    assert len(fits) == 1
    return sum(fits[0].values())


def sheet(text: str) -> object:
    claims = find(r"\d\. (Exactly|At least|At most) (\d) of .+? (true|false)\.", text)
    fits = []
    for world in product((True, False), repeat=len(claims)):
        counts = {"true": sum(world), "false": len(world) - sum(world)}
        said = [
            {"Exactly": counts[what] == int(n), "At least": counts[what] >= int(n), "At most": counts[what] <= int(n)}[
                how
            ]
            for how, n, what in claims
        ]
        fits += [world] if said == list(world) else []
    assert len(fits) == 1
    return sum(fits[0])


def eggs(text: str) -> object:
    *pairs, bound = numbers(text)
    fits = [
        n for n in range(1, bound) if all(n % size == left for size, left in zip(pairs[::2], pairs[1::2], strict=True))
    ]
    assert len(fits) == 1
    return fits[0]


def codes(text: str) -> object:
    length, total, missing, _ = numbers(text)
    return sum(
        list(digits) == sorted(set(digits)) and sum(digits) == total and missing not in digits
        for digits in product(range(10), repeat=length)
    )


def race(text: str) -> object:
    names, clues = find(r"[A-Z]\w+", text.split(" ran ")[0]), text.split("ties. ")[1].split(". ")

    def true(clue: str, place: dict[str, int]) -> bool:
        about = [place[name] for name in find(r"[A-Z]\w+", clue) if name in place]
        if "right behind" in clue:
            return about[0] - 1 == about[1]
        if "before" in clue:
            return about[0] < about[1]
        return abs(about[0] - about[1]) == 2 if "between" in clue else about[0] in (2, 3, 4)

    worlds = [dict(zip(order, range(1, 6), strict=True)) for order in permutations(names)]
    fits = [world for world in worlds if all(true(clue, world) for clue in clues[:-1])]
    assert len(fits) == 1
    asked = ("first", "second", "third", "fourth", "last").index(find(r"in (\w+)\?", text)[0])
    return next(name for name, place in fits[0].items() if place == asked + 1)


def flatmates(text: str) -> object:
    names = find(r"[A-Z]\w+", text.split(" one drinks")[0])[1:]
    clues = text.split("a parrot. ")[1].split(". ")

    def true(clue: str, drink: dict[str, str], pet: dict[str, str]) -> bool:
        if found := find(r"hoever drinks (\w+) (has|does not have) the (\w+)", clue):
            (liquid, verb, animal), *_ = found
            return (next(pet[name] for name in names if drink[name] == liquid) == animal) == (verb == "has")
        (name, what), *_ = find(r"(\w+) does not (?:drink|have the) (\w+)", clue)
        return what not in (drink[name], pet[name])

    fits = [
        drink
        for drinks, pets in product(permutations(("tea", "coffee", "cocoa")), permutations(("cat", "dog", "parrot")))
        for drink, pet in [(dict(zip(names, drinks, strict=True)), dict(zip(names, pets, strict=True)))]
        if all(true(clue, drink, pet) for clue in clues[:-1])
    ]
    assert len(fits) == 1
    return fits[0][find(r"does (\w+) drink\?", text)[0]]


def suspects(text: str) -> object:
    names, said = find(r"[A-Z]\w+(?= says)", text), find(r'"(.+?)\."', text)
    wanted = WORD[find(r"Exactly (\w+) of", text)[0]]

    def true(claim: str, speaker: str, guilty: str) -> bool:
        named = {name for name in names if name in claim} | ({speaker} if find(r"\bme\b", claim) else set())
        return (guilty in named) != ("not" in claim or "neither" in claim)

    guilty = [x for x in names if sum(true(s, n, x) for s, n in zip(said, names, strict=True)) == wanted]
    assert len(guilty) == 1
    return guilty[0]


def syllogism(text: str) -> object:
    said = [(*found[1:], found[0]) for found in find(r"(?i)\b(all|no|some) (\w+) are (not )?(\w+)", text)]

    def true(x: str, negated: str, y: str, form: str, things: list[set[str]]) -> bool:
        both = [y in thing for thing in things if x in thing]
        return {"all": all(both), "no": not any(both), "some": not all(both) if negated else any(both)}[form.lower()]

    kinds = {kind for one in said for kind in (one[0], one[2])}
    things = [set(thing) for size in range(4) for thing in combinations(sorted(kinds), size)]
    worlds = [world for size in range(9) for world in combinations(things, size) if set().union(*world) == kinds]
    left = [world for world in worlds if all(true(*one, list(world)) for one in said[:2])]
    assert left
    return "yes" if all(true(*said[2], list(world)) for world in left) else "no"


def die(text: str) -> object:
    top, north, east = numbers(text)[1:4]
    axes = {"north": (-1, 0, 0), "south": (1, 0, 0), "east": (0, 1, 0), "west": (0, -1, 0)}  # east is x, north y, up z
    faces = {(0, 0, 1): top, (0, 1, 0): north, (1, 0, 0): east}
    faces |= {tuple(-x for x in place): 7 - face for place, face in faces.items()}
    assert len(set(faces.values())) == 6
    for way in find(r"(?<=, |: )(north|south|east|west)(?=[,.])", text.split("square to square")[1]):
        axis = np.array(axes[way])  # a quarter turn: along the axis nothing changes, the rest is crossed with it
        faces = {
            tuple(int(x) for x in axis * (axis @ place) + np.cross(axis, place)): face for place, face in faces.items()
        }
    return faces[0, 0, 1]


def robot(text: str) -> object:
    x, y, ways = 0, 0, [(0, 1), (1, 0), (0, -1), (-1, 0)]
    for steps, turn in find(r"(\d+) blocks ahead and turns (left|right)", text):
        x, y = x + int(steps) * ways[0][0], y + int(steps) * ways[0][1]
        ways = ways[1:] + ways[:1] if turn == "right" else ways[-1:] + ways[:-1]
    return abs(x) + abs(y)


def block(text: str) -> object:
    sides = numbers(text)[:3]
    wanted = 0 if "no painted" in text else WORD[find(r"exactly (\w+) painted", text)[0]]
    painted = [
        sum((x == 0) + (x == side - 1) for x, side in zip(cube, sides, strict=True))
        for cube in product(*map(range, sides))
    ]
    return painted.count(wanted)


@cache
def boards() -> tuple[np.ndarray, np.ndarray]:
    """All boards of 3 by 3 with towers up to two, and their front and side views."""
    made = np.array(list(product(range(3), repeat=9))).reshape(-1, 3, 3)
    return made.sum((1, 2)), np.concatenate([made.max(1), made.max(2)], axis=1)


def towers(text: str) -> object:
    views = numbers(text.replace("3 by 3", ""))
    # Place the columns' heights in all ways; for small towers all boards are looked at, too.
    fewest = 99
    for ways in product(range(3), repeat=3):  # the row in which each column shows its height
        board = np.zeros((3, 3), int)
        board[list(ways), range(3)] = views[:3]
        rows = board.max(1)
        if (rows > views[3:]).any():
            continue
        # a row that falls short needs one more tower, in a column that is at least as high
        fewest = min(fewest, board.sum() + sum(want for want, have in zip(views[3:], rows, strict=True) if have < want))
    if max(views) <= 2:
        cubes, seen = boards()
        assert cubes[(seen == views).all(1)].min() == fewest
    return fewest


def interleaved(text: str) -> object:
    terms = numbers(text)
    one, two = terms[::2], terms[1::2]
    steps, factors = (
        {b - a for a, b in pairwise(one)},
        {Fraction(b, a) for a, b in pairwise(two)},
    )
    assert len(steps) == len(factors) == 1
    return one[-1] + steps.pop() if len(terms) % 2 == 0 else two[-1] * factors.pop()


RULES = ["a*b-a", "a*b-b", "2*a+2*b", "a*a-b", "a*b+a+b", "a*a-b*b", "3*a-b", "a*a+b*b"]


def rows(text: str) -> object:
    *shown, (x, y) = [tuple(map(int, one)) for one in find(r"(\d+), (\d+) → (-?\d+)", text)] + [
        tuple(map(int, find(r"(\d+), (\d+) → \?", text)[0]))
    ]
    fits = [rule for rule in RULES if all(eval(rule, {"a": a, "b": b}) == c for a, b, c in shown)]
    assert len(fits) == 1
    return eval(fits[0], {"a": x, "b": y})


def growing(text: str) -> object:
    terms = numbers(text)
    fits = [
        rule for rule in (sum, max) if all(b - a == rule(int(digit) for digit in str(a)) for a, b in pairwise(terms))
    ]
    assert len(fits) == 1
    return terms[-1] + fits[0](int(digit) for digit in str(terms[-1]))


def cipher(text: str) -> object:
    pairs, asked = find(r"([A-Z]{5,6}) is written ([A-Z]+)", text), find(r"How is ([A-Z]+)", text)[0]
    moves = [[(ord(b) - ord(a)) % 26 for a, b in zip(*pair, strict=True)] for pair in pairs]
    assert moves[0][:5] == moves[1][:5]
    step = (moves[0][1] - moves[0][0]) % 26
    return "".join(chr((ord(a) - 65 + moves[0][0] + k * step) % 26 + 65) for k, a in enumerate(asked))


def fly(text: str) -> object:
    apart, one, other, flying = numbers(text)
    place, ends, flown, ahead = 0.0, [0.0, float(apart)], 0.0, True
    for _ in range(200):  # flights; each is a fraction of the one before
        speed = flying + (other if ahead else one)
        hours = abs(ends[ahead] - place) / speed
        ends, flown = [ends[0] + one * hours, ends[1] - other * hours], flown + flying * hours
        place, ahead = ends[ahead], not ahead
    return round(flown, 6)


def lily(text: str) -> object:
    found = numbers(text)
    full, share = 2 ** (found[1] - 1), Fraction(1)
    if "such plants" in text:
        start = found[2]
    else:
        start, share = 1, Fraction(1, found[3])
    return next(day for day in range(1, 99) if start * 2 ** (day - 1) >= full * share)


def tournament(text: str) -> object:
    """Play it: whoever leads loses as often as may be (most), or never (least)."""
    players = numbers(text)[0]
    lives = [{"one defeat": 1, "a second defeat": 2, "a third defeat": 3}[find(r"after (.+?)\.", text)[0]]] * players
    games, most = 0, "at most" in text
    while len(lives) > 1:
        loser = lives.index(max(lives)) if most else 0  # everybody loses in turns, or the champion never does
        lives[loser] -= 1
        games += 1
        lives = [left for left in lives if left]
    return games


def jugs(text: str) -> object:
    small, large = numbers(text)[:2]
    goal, states, steps = numbers(text)[-1], {(0, 0)}, 0
    while not any(goal in state for state in states) and steps < 20:
        more = set()
        for a, b in states:
            total = a + b
            more |= {(small, b), (a, large), (0, b), (a, 0)}
            more |= {(max(0, total - large), min(large, total)), (min(small, total), max(0, total - small))}
        states, steps = states | more, steps + 1
    return steps


def bridge(text: str) -> object:
    times = tuple(map(int, find(r"needs (\d+)", text)))

    @cache
    def rest(here: frozenset[int]) -> int:
        gone = set(range(4)) - here
        best = 999
        for pair in combinations(here, 2):
            over = max(times[x] for x in pair)
            left = here - set(pair)
            if not left:
                return over
            best = min(best, *(over + times[x] + rest(left | {x}) for x in gone | set(pair)))
        return best

    return rest(frozenset(range(4)))


def illness(text: str) -> object:
    ill, found, false = (Fraction(number, 100) for number in numbers(text))
    town = 10**6
    return (town * ill * found) / (town * ill * found + town * (1 - ill) * false)


def urn(text: str) -> object:
    red, blue = numbers(text)
    draws = [draw.count("r") for draw in permutations("r" * red + "b" * blue, 3)]
    return Fraction(draws.count(3 if "all three" in text else 2), len(draws) - draws.count(0))


def dice(text: str) -> object:
    shown, total = numbers(text)
    known = [(a, b) for a in range(1, 7) for b in range(1, 7) if a == shown or b == shown]
    return Fraction(len([1 for a, b in known if a + b >= total]), len(known))


def points(text: str) -> object:
    goal, one, other = numbers(text)

    def share(a: int, b: int) -> Fraction:
        return Fraction(a == goal) if goal in (a, b) else (share(a + 1, b) + share(a, b + 1)) / 2

    return share(one, other)


def doors(text: str) -> object:
    total, opened = ([*numbers(text), 1])[:2]
    wins, games = 0, 0
    for prize in range(total):  # door 0 is picked; the host leaves the prize and some of the others closed
        for shut in combinations(range(1, total), total - 1 - opened):
            if prize in (0, *shut):
                # with the prize behind 0 the host has more ways to choose
                weight = Fraction(1, comb(total - 1, opened) if prize == 0 else comb(total - 2, opened))
                wins, games = wins + weight * Fraction(prize != 0, len(shut)), games + weight
    return wins / games


GATES = {"both": all, "or": any, "just one": lambda x: sum(x) == 1, "off": lambda x: x[0] and not x[1]}


def lamps(text: str) -> object:
    on = {lamp: state == "on" for lamp, state in find(r"([AB]) is (on|off)", text.split(". Lamps")[0])}
    removed = find(r"the bulb of (\w)", text)[0]
    for lamp, rule in find(r"([C-G]) is on exactly if (.+?)(?:;|\. Now)", text):
        one, other = find(r"\b[A-G]\b", rule)
        kind = "off" if "off" in rule else "just one" if "just one" in rule else "or" if " or " in rule else "both"
        on[lamp] = lamp != removed and bool(GATES[kind]((on[one], on[other])))
    assert len(on) == 7
    return sum(on.values())


def treatments(text: str) -> object:
    rates = {}
    for name, a, b, c, d in find(r"(\w+): (\d+) of (\d+) mild cases cured, (\d+) of (\d+) severe", text):
        rates[name] = int(a) / int(b), int(c) / int(d), (int(a) + int(c)) / (int(b) + int(d))
    best = [max(rates, key=lambda name, k=k: rates[name][k]) for k in range(3)]
    assert best[0] == best[1] != best[2]
    return best[0]


def votes(text: str) -> object:
    need = int(find(r"at least (\d+)", text)[0])
    partners = {
        name: (int(share), vote == "for") for name, share, vote in find(r"([P-U]) \((\d), (for|against)\)", text)
    }

    def decided(against: str = "") -> bool:
        return sum(share for name, (share, aye) in partners.items() if aye and name != against) >= need

    assert decided() and len(partners) == 6
    return sum(not decided(name) for name in partners if partners[name][1])


def orders(text: str) -> object:
    target, calm, busy, weeks = (
        int(find(p, text)[0]) for p in (r"with (\d+)", r"want (\d+)", r"and (\d+) in every", r"end of week (\d+)")
    )
    stock, coming = target, Counter()
    for week in range(1, weeks + 1):
        stock = max(0, stock + coming[week] - (calm if week <= 2 else busy))
        coming[week + 2] += max(0, target - stock)
    return stock


def stations(text: str) -> object:
    cut, glue, paint = (int(find(p, text)[0]) for p in (r"(\d+) can be cut", r"(\d+) glued", r"(\d+) painted,"))
    still, hours = numbers(find(r"In (hour.+?) the", text)[0]), int(find(r"after (\d+) hours", text)[0])
    total = [0, 0, 0]  # ever cut, glued, painted
    for hour in range(1, hours + 1):
        glued = 0 if hour in still and "gluing stands" in text else min(glue, total[0] - total[1])
        painted = 0 if hour in still and "painting stands" in text else min(paint, total[1] - total[2])
        total = [total[0] + cut, total[1] + glued, total[2] + painted]
    return total[2]


def heater(text: str) -> object:
    start, low, high, up, down, minutes = (
        int(find(p, text)[0])
        for p in (
            r"at (\d+) deg",
            r"Below (\d+)",
            r"above (\d+)",
            r"becomes (\d+)",
            r"and (\d+) colder",
            r"first (\d+) min",
        )
    )
    late = 1 if "one minute old" in text else int(find(r"(\d) minutes old", text)[0])
    history, on, warmest = [start] * (late + 1), True, start
    for _ in range(minutes):
        on = True if history[-1 - late] < low else False if history[-1 - late] > high else on
        history.append(history[-1] + (up if on else -down))
        warmest = max(warmest, history[-1])
    return warmest


def cross(text: str) -> object:
    one, other = find(r"crosses (\w+) with (\w+)\.", text)[0]
    height, colour = find(r"to be (tall|short) with (red|white)", text)[0]

    def share(first: str, second: str, dominant: bool) -> Fraction:
        recessive = Fraction(sum(g.islower() for g in first), 2) * Fraction(sum(g.islower() for g in second), 2)
        return 1 - recessive if dominant else recessive

    return share(one[:2], other[:2], height == "tall") * share(one[2:], other[2:], colour == "red")


def pots(text: str) -> object:
    kept = {int(pot): how.split(", ") for pot, how in find(r"Pot (\d): (.+)", text)}
    asked, factor = (
        int(find(r"must pot (\d)", text)[0]),
        ["light", "water", "soil", "food"].index(find(r"what the (\w+)", text)[0]),
    )
    fits = [
        pot
        for pot, how in kept.items()
        if [a != b for a, b in zip(how, kept[asked], strict=True)] == [k == factor for k in range(4)]
    ]
    assert len(fits) == 1
    return fits[0]


def thermometer(text: str) -> object:
    ice, _, steam, _, reading = numbers(text)
    return Fraction(100 * (reading - ice), steam - ice)


def decay(text: str) -> object:
    short, long, times = [*numbers(text), 2][:3]
    days = next(day for day in range(1, 2000) if times * 2 ** (-day / short) <= 2 ** (-day / long) * (1 + 1e-9))
    assert abs(times * 2 ** (-days / short) / 2 ** (-days / long) - 1) < 1e-9
    return days
