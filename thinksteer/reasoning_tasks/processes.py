"""Puzzles of causes, of systems that change in steps, and of experiments, with parameters."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import product
from random import Random

from thinksteer.reasoning_tasks.logic import Task

GATES: dict[str, Callable[[bool, bool], bool]] = {
    "both {} and {} are on": lambda one, other: one and other,
    "{} or {} or both are on": lambda one, other: one or other,
    "just one of {} and {} is on": lambda one, other: one != other,
    "{} is on and {} is off": lambda one, other: one and not other,
}


def lamps(rng: Random) -> Task:
    """How many lamps are on when one is put out by hand, against its rule."""
    names = "ABCDEFG"
    while True:
        switched = (rng.random() < 0.5, rng.random() < 0.5)
        rules = [(rng.choice(list(GATES)), *rng.sample(range(lamp), 2)) for lamp in range(2, 7)]
        before = _lit(switched, rules, None)
        chosen = [lamp for lamp in range(2, 5) if before[lamp]]
        if chosen and sum(after := _lit(switched, rules, chosen[0])) != sum(before) - 1:
            break
    told = "; ".join(
        f"{names[lamp]} is on exactly if {gate.format(names[x], names[y])}"
        for lamp, (gate, x, y) in enumerate(rules, start=2)
    )
    state = " and ".join(f"{name} is {'on' if on else 'off'}" for name, on in zip(names, switched, strict=False))
    return (
        f"Lamps A and B have switches of their own: {state}. Lamps C to G are wired: {told}. Now somebody takes out "
        f"the bulb of {names[chosen[0]]}, so that it is off whatever its rule says, and nothing else is touched. How "
        "many of the seven lamps are on then?"
    ), str(sum(after))


def _lit(switched: Sequence[bool], rules: Sequence[tuple[str, int, int]], removed: int | None) -> list[bool]:
    state = list(switched)
    for gate, x, y in rules:
        state.append(len(state) != removed and GATES[gate](state[x], state[y]))
    return state


def treatments(rng: Random) -> Task:
    """Which of two treatments is better, when the one given to the severe cases looks worse (Simpson's paradox)."""
    better, worse = rng.sample(("Ardex", "Belmo", "Corvin", "Dulax", "Exipan"), 2)
    while True:
        table = {
            (name, group): (size := rng.randint(*sizes) * 10, size * rng.randint(3, 19) // 20)
            for name, group, sizes in (
                (better, "mild", (2, 5)),
                (better, "severe", (15, 30)),
                (worse, "mild", (15, 30)),
                (worse, "severe", (2, 5)),
            )
        }
        rates = {key: Fraction(cured, size) for key, (size, cured) in table.items()}
        overall = [
            Fraction(
                *map(
                    sum,
                    zip(*((table[name, group][1], table[name, group][0]) for group in ("mild", "severe")), strict=True),
                )
            )
            for name in (better, worse)
        ]
        gains = [rates[better, group] - rates[worse, group] for group in ("mild", "severe")]
        if min(gains) >= Fraction(1, 20) and overall[1] - overall[0] >= Fraction(1, 20):
            break
    lines = "\n".join(
        f"{name}: {table[name, 'mild'][1]} of {table[name, 'mild'][0]} mild cases cured, {table[name, 'severe'][1]} of "
        f"{table[name, 'severe'][0]} severe cases cured"
        for name in sorted((better, worse))
    )
    return (
        f"In a hospital's records of two treatments stands:\n{lines}\nWhich treatment a patient got depended on "
        "nothing but how severe the case was. A new patient comes, and it is not known yet how severe the case is. "
        "Which treatment gives the better chance?"
    ), better


def votes(rng: Random) -> Task:
    """How many votes a decision hung on."""
    while True:
        shares = sorted(rng.choices(range(1, 10), k=6), reverse=True)
        ayes = [rng.random() < 0.7 for _ in shares]
        total = sum(share for share, aye in zip(shares, ayes, strict=True) if aye)
        quota = sum(shares) // 2 + 1
        deciding = sum(aye and total - share < quota for share, aye in zip(shares, ayes, strict=True))
        if total >= quota and 0 < deciding < sum(ayes):
            break
    told = ", ".join(
        f"{name} ({share}, {'for' if aye else 'against'})"
        for name, share, aye in zip("PQRSTU", shares, ayes, strict=True)
    )
    return (
        f"Six partners own {sum(shares)} shares of a firm and vote on a sale; it takes at least {quota} shares. Their "
        f"shares and votes were: {told}. The sale was decided. For how many of those who voted for it is it true that "
        "there would have been no sale, had this partner alone voted against it?"
    ), str(deciding)


def orders(rng: Random) -> Task:
    """What a shop has that orders without thinking of what is on its way."""
    stock = target = 10 * rng.randint(6, 12)
    calm, busy, weeks = 10 * rng.randint(2, 3), 10 * rng.randint(4, 5), rng.randint(5, 8)
    ordered: list[int] = []
    for week in range(weeks):
        stock += ordered[week - 2] if week >= 2 else 0
        stock -= min(stock, calm if week < 2 else busy)
        ordered.append(target - min(stock, target))
    return (
        f"A shop begins week 1 with {target} crates of lemonade and nothing on order. Customers want {calm} crates in "
        f"each of the first two weeks and {busy} in every later week; what is not there is not sold. At each week's "
        f"end the owner counts the crates in the shop and orders what they fall short of {target}, forgetting what is "
        "already on its way. An order made at the end of a week is delivered at the start of the week after the next "
        f"one. How many crates are in the shop at the end of week {weeks}, before anything more is delivered?"
    ), str(stock)


def stations(rng: Random) -> Task:
    """What comes out of three stations in a row, one of which stands still for a while."""
    speeds = [rng.randint(6, 14) for _ in range(3)]
    broken, hours = rng.choice((1, 2)), rng.randint(7, 10)
    stopped = range(from_hour := rng.randint(3, 4), from_hour + rng.randint(1, 2))
    waiting, done = [0, 0], 0
    for hour in range(1, hours + 1):
        moved = [speeds[0], *(min(speed, there) for speed, there in zip(speeds[1:], waiting, strict=True))]
        if hour in stopped:
            moved[broken] = 0
        waiting = [waiting[0] + moved[0] - moved[1], waiting[1] + moved[1] - moved[2]]
        done += moved[2]
    still = " and ".join(f"hour {hour}" for hour in stopped)
    return (
        f"In a workshop every chair is cut, then glued, then painted. In an hour {speeds[0]} can be cut (there is "
        f"always wood), {speeds[1]} glued and {speeds[2]} painted, but only what lay ready when the hour began. At "
        f"first nothing lies ready. In {still} the {('gluing', 'painting')[broken - 1]} stands still; all else goes "
        f"on. How many chairs are painted after {hours} hours?"
    ), str(done)


def heater(rng: Random) -> Task:
    """How far a room overshoots when its thermostat reads late."""
    low, up, down, delay = rng.randint(18, 20), rng.choice((2, 3)), rng.choice((1, 2)), rng.choice((1, 2, 3))
    start, high, minutes = low - rng.randint(2, 4), low + 2, 20
    temperatures, on = [start], True
    for minute in range(minutes):
        reading = temperatures[max(0, minute - delay)]
        on = reading < low or (on and reading <= high)
        temperatures.append(temperatures[-1] + (up if on else -down))
    late = "one minute" if delay == 1 else f"{delay} minutes"
    return (
        f"A room is at {start} degrees and its heater is on. At the start of every minute the thermostat gets a "
        f"reading, which is {late} old (in the beginning: {start}). Below {low} it turns the heater on, above {high} "
        f"off; otherwise it leaves it as it is. In a minute the room becomes {up} degrees warmer with the heater on "
        f"and {down} colder with it off. What is the highest temperature it reaches in the first {minutes} minutes?"
    ), str(max(temperatures))


def cross(rng: Random) -> Task:
    """The share of a kind of offspring, by Mendel's rules."""
    while True:
        parents = [(rng.choice(("TT", "Tt", "tt")), rng.choice(("RR", "Rr", "rr"))) for _ in range(2)]
        tall, red = rng.random() < 0.5, rng.random() < 0.5
        young = list(product(parents[0][0], parents[1][0], parents[0][1], parents[1][1]))
        wanted = [("T" in (a, b)) == tall and ("R" in (c, d)) == red for a, b, c, d in young]
        share = Fraction(sum(wanted), len(young))
        if share.denominator > 2:
            break
    plants = " with ".join(f"{height}{colour}" for height, colour in parents)
    return (
        "In a plant the gene T for tall is dominant over t for short, and R for red flowers over r for white; the "
        f"two genes are inherited independently. A gardener crosses {plants}. Which fraction of the offspring is "
        f"expected to be {'tall' if tall else 'short'} with {'red' if red else 'white'} flowers?"
    ), str(share)


FACTORS = {
    "light": ("sun", "shade"),
    "water": ("watered daily", "watered weekly"),
    "soil": ("sand", "loam"),
    "food": ("fed", "not fed"),
}


def pots(rng: Random) -> Task:
    """Which pot differs from a given one in a single factor."""
    while True:
        chosen = rng.sample(list(product((0, 1), repeat=4)), 7)
        pot, factor = rng.randrange(7), rng.randrange(4)
        partner = tuple(value ^ (place == factor) for place, value in enumerate(chosen[pot]))
        if partner in chosen:
            break
    lines = "\n".join(
        f"Pot {number}: {', '.join(values[value] for values, value in zip(FACTORS.values(), one, strict=True))}"
        for number, one in enumerate(chosen, start=1)
    )
    return (
        f"Seven pots with seeds of the same kind were kept like this:\n{lines}\nWith which pot must pot {pot + 1} be "
        f"compared to see what the {list(FACTORS)[factor]} alone does? Give its number."
    ), str(chosen.index(partner) + 1)


def thermometer(rng: Random) -> Task:
    """The true temperature behind the reading of a wrongly marked thermometer."""
    while True:
        ice, steam, true = rng.randint(-8, 8), rng.randint(90, 112), rng.randint(11, 89)
        reading = ice + Fraction(true * (steam - ice), 100)
        if reading.denominator == 1 and reading != true:
            break
    return (
        f"An old thermometer whose marks are evenly spaced reads {ice} degrees in melting ice (truly 0 °C) and "
        f"{steam} degrees in boiling water (truly 100 °C). In a bath it reads {reading}. How many degrees Celsius is "
        "the bath really?"
    ), str(true)


def decay(rng: Random) -> Task:
    """When two decaying samples are equal."""
    while True:
        short, long, ahead = rng.randint(2, 12), rng.randint(3, 24), rng.randint(1, 4)
        days = Fraction(ahead * short * long, long - short) if long > short else Fraction(1, 2)
        if days.denominator == 1:
            break
    often = "twice" if ahead == 1 else f"{2**ahead} times"
    return (
        f"Isotope X has a half-life of {short} days, isotope Y one of {long} days. A sample holds {often} as many "
        "atoms of X as of Y. After how many days are there equally many of both?"
    ), str(days)
