"""Puzzles that a change of view makes short, and puzzles of chance, with parameters."""

from fractions import Fraction
from itertools import combinations, product
from math import comb
from random import Random

from thinksteer.reasoning_tasks.logic import PEOPLE, Task

EXACT = "Give an exact fraction in lowest terms."


def fly(rng: Random) -> Task:
    """How far something flies back and forth between two that meet: its speed times the time."""
    one, other, hours = rng.randint(3, 9), rng.randint(3, 9), rng.choice((2, 3, 4))
    flying = max(one, other) + rng.randint(5, 20)
    return (
        f"Two hikers {(one + other) * hours} km apart walk towards each other, one at {one} km/h, the other at "
        f"{other} km/h. A swallow starts with the first, flies at {flying} km/h to the second, turns at once, flies "
        "back to the first, and so on until the hikers meet. How many kilometres does it fly?"
    ), str(flying * hours)


def lily(rng: Random) -> Task:
    """When something that doubles every day has filled its place, from other beginnings or to a part of it."""
    days, halvings, many = rng.randint(20, 48), rng.randint(2, 4), rng.random() < 0.5
    share = f"{2**halvings} such plants" if many else f"1/{2**halvings} of the pond"
    asked = f"On which day is the pond covered if there are {share} on day 1?"
    if not many:
        asked = f"On which day is {share} covered?"
    return (
        "A water plant doubles the area it covers every day. One plant, put into a pond on day 1, covers the whole "
        f"pond on day {days}. {asked}"
    ), str(days - halvings)


def tournament(rng: Random) -> Task:
    """How many games a tournament has: count who loses, not who plays."""
    players, losses, most = rng.randint(11, 130), rng.choice((1, 2, 3)), rng.random() < 0.5
    out = {1: "after one defeat", 2: "after a second defeat", 3: "after a third defeat"}[losses]
    games = losses * (players - 1) + (losses - 1 if most else 0)
    wanted = (
        "How many games are played" if losses == 1 else f"How many games are played at {'most' if most else 'least'}"
    )
    return (
        f"{players} players enter a table tennis tournament. A game has one winner and one loser; whoever loses is "
        f"out {out}. It goes on until one player is left, the winner. {wanted}?"
    ), str(games)


def jugs(rng: Random) -> Task:
    """The fewest steps to measure an amount with two jugs; none, if it cannot be."""
    while True:
        sizes = tuple(sorted(rng.sample(range(3, 12), 2)))
        amount = rng.randint(1, sizes[1] - 1)
        steps = _pourings(sizes, amount)
        if steps is not None and 4 <= steps <= 10:
            break
    return (
        f"You have a jug that holds {sizes[0]} litres, one that holds {sizes[1]} litres, no marks on either, a tap "
        "and a drain. Filling a jug to the brim, emptying one, and pouring one into the other until that one is full "
        "or the first is empty are one step each. What is the smallest number of steps after which one jug holds "
        f"exactly {amount} litres?"
    ), str(steps)


def _pourings(sizes: tuple[int, ...], amount: int) -> int | None:
    """The least number of steps from two empty jugs to `amount` in one of them (None: it cannot be)."""
    seen, edge, steps = {(0, 0)}, {(0, 0)}, 0
    while edge:
        if any(amount in state for state in edge):
            return steps
        after = set()
        for a, b in edge:
            right, left = min(a, sizes[1] - b), min(b, sizes[0] - a)
            after |= {(sizes[0], b), (a, sizes[1]), (0, b), (a, 0), (a - right, b + right), (a + left, b - left)}
        edge = after - seen
        seen |= edge
        steps += 1
    return None


def bridge(rng: Random) -> Task:
    """The shortest time in which people with one lamp cross a bridge for two."""
    names, times = rng.sample(PEOPLE, 4), sorted(rng.sample(range(1, 13), 4))
    told = ", ".join(f"{name} needs {minutes}" for name, minutes in zip(names, times, strict=True))
    return (
        "Four people have to cross a narrow bridge at night. It carries two at a time, and nobody can walk without "
        f"the one lamp they have. Two together are as slow as the slower one. In minutes, {told}. How many minutes "
        "pass at least until all are across?"
    ), str(_crossing(times))


def _crossing(times: list[int]) -> int:
    """Either the fastest fetches each of the others, or the two slowest go together."""
    a, b, c, d = times
    return min(2 * a + b + c + d, a + 3 * b + d)


def illness(rng: Random) -> Task:
    """What a positive test says."""
    ill, found, false = (Fraction(rng.choice(values), 100) for values in ((1, 2, 4, 5), (80, 90, 95), (2, 5, 8, 10)))
    share = ill * found / (ill * found + (1 - ill) * false)
    return (
        f"{ill * 100} % of the people in a town carry an infection without noticing it. A test is positive in "
        f"{found * 100} % of those who carry it and in {false * 100} % of those who do not. Someone picked at random "
        f"tests positive. What is the probability that this person carries the infection? {EXACT}"
    ), str(share)


def urn(rng: Random) -> Task:
    """Draws without putting back, with something known of them."""
    red, blue = rng.randint(3, 6), rng.randint(3, 7)
    drawn = list(combinations([True] * red + [False] * blue, 3))
    wanted, known = rng.choice((2, 3)), [draw for draw in drawn if any(draw)]
    share = Fraction(sum(sum(draw) == wanted for draw in known), len(known))
    which = "all three are" if wanted == 3 else "exactly two are"
    return (
        f"Three marbles are taken at once from a bag with {red} red and {blue} blue ones. You see that at least one "
        f"of the three is red. What is the probability that {which} red? {EXACT}"
    ), str(share)


def dice(rng: Random) -> Task:
    """The chance of a sum when something is known of one of two dice."""
    shown, total = rng.randint(3, 6), rng.randint(7, 10)
    known = [roll for roll in product(range(1, 7), repeat=2) if shown in roll]
    share = Fraction(sum(sum(roll) >= total for roll in known), len(known))
    return (
        "Two dice are rolled behind a screen. Someone who sees both says, truthfully: at least one of them shows a "
        f"{shown}. What is the probability that they add up to at least {total}? {EXACT}"
    ), str(share)


def points(rng: Random) -> Task:
    """Fair shares of the stake of a game that is broken off (the problem of points)."""
    names, goal = rng.sample(PEOPLE, 2), rng.randint(4, 7)
    have = rng.sample(range(goal - 3, goal), 2)
    need, other = (goal - won for won in have)
    left = need + other - 1  # as many rounds settle it
    share = Fraction(sum(comb(left, wins) for wins in range(need, left + 1)), 2**left)
    return (
        f"{names[0]} and {names[1]} toss a fair coin; heads is a point for {names[0]}, tails for {names[1]}, and "
        f"whoever first has {goal} points gets the stake. They must stop at {have[0]} to {have[1]}. They divide the "
        f"stake by their chances of winning. Which share does {names[0]} get? {EXACT}"
    ), str(share)


def doors(rng: Random) -> Task:
    """Monty Hall's doors, more of them."""
    total = rng.randint(4, 10)
    opened = rng.randint(1, total - 2)
    share = Fraction(total - 1, total) / (total - 1 - opened)
    which = "one door" if opened == 1 else f"{opened} doors"
    return (
        f"A prize is behind one of {total} doors. You pick a door. The host, who knows where the prize is, opens "
        f"{which} of the others, always without the prize, and offers you to change to one of those still closed, "
        f"which you pick at random. With which probability do you win if you change? {EXACT}"
    ), str(share)
