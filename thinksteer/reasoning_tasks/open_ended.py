"""Tasks with parameters that have no single answer: what is wanted is that somebody thinks them through."""

from random import Random

THINGS = (
    "a bookshelf",
    "a board game",
    "a raincoat",
    "a waiting room",
    "a bicycle lock",
    "a calendar",
    "a picnic basket",
)
USERS = (
    "people who can use only one hand",
    "a family in which nobody can read yet",
    "people over ninety",
    "two neighbours who do not speak the same language",
    "the crew of a submarine",
    "somebody who loses everything",
    "a class of thirty six-year-olds",
)
LIMITS = (
    "It has to be made of what a household throws away.",
    "It must fit into a shoe box when it is not used.",
    "Nobody may need to be told how it works.",
    "It must still work after ten years without a repair.",
    "It must cost less than a ticket for the cinema.",
)


def design(rng: Random) -> str:
    thing, user, limit = rng.choice(THINGS), rng.choice(USERS), rng.choice(LIMITS)
    return (
        f"Design {thing} for {user}. {limit} Weigh at least three ideas that differ in principle before you choose "
        "one, and say what would make you give it up after all."
    )


WITHOUT = (
    ("find out the height of a church tower", "climbing it"),
    ("keep milk fresh for a week in summer", "electricity"),
    ("find north on a cloudy night", "any instrument"),
    ("get a piano up three floors", "a lift or a crane"),
    ("count the fish in a pond", "catching more than a few of them"),
    ("tell the time to within ten minutes", "a clock and without the sun"),
    ("stop the leak of a wooden boat at sea", "glue, pitch or plastic"),
    ("divide a cake fairly among five", "a knife"),
    ("boil an egg", "gas, fire or electricity"),
    ("find out how deep a well is", "a rope"),
    ("wake up at five in the morning", "an alarm and without another person"),
    ("send a parcel that nobody opens on its way", "a lock"),
)


def without(rng: Random) -> str:
    task, tool = rng.choice(WITHOUT)
    return (
        f"How can one {task} without {tool}? Find four ways that rest on different principles. Say of each how well "
        "it works and what it needs, and which you would try first."
    )


OBJECTS = (
    "an umbrella", "a bookshelf", "a teapot", "a mirror", "a suitcase", "a door", "a flower pot", "a hat", "a ladder",
    "a bench", "a letter box", "a bathtub",
)  # fmt: skip


def combine(rng: Random) -> str:
    one, other = rng.sample(OBJECTS, 2)
    return (
        f"Make one object out of {one} and {other} that is of more use than the two apart. Reject at least two ideas "
        "with a reason each, then describe the one that is left so that a joiner could build it."
    )


PLACES = (
    "a public library",
    "a railway station",
    "a swimming pool",
    "a block of flats",
    "a street market",
    "a campsite",
)
TROUBLES = (
    "it is too loud in the afternoon",
    "newcomers never find their way",
    "half of the space stands empty in the morning",
    "lost things pile up and nobody claims them",
    "far too much is thrown away",
    "everybody comes at the same hour",
)
TERMS = (
    "Nothing may be forbidden.",
    "It must not cost anything.",
    "It has to work without a written word.",
    "Children must be able to run it.",
    "It must be possible to undo it within an hour.",
)


def trouble(rng: Random) -> str:
    place, what, terms = rng.choice(PLACES), rng.choice(TROUBLES), rng.choice(TERMS)
    return (
        f"In {place} {what}. {terms} Find five remedies from different directions, think of what would go wrong with "
        "each, and improve the best one until you would put your name to it."
    )


HEADLINES = (
    "Children who eat breakfast get better marks",
    "Dog owners see a doctor less often",
    "People who own a piano live longer",
    "Pupils with larger shoes read better",
    "Patients in single rooms recover faster",
    "Students in the front row pass more often",
    "Firms with a gym have fewer days of illness",
    "Cyclists are happier than drivers",
    "Towns with more theatres have more burglaries",
    "Those who go to bed early earn more",
    "Readers of printed books remember more",
    "Gardens with bird boxes have fewer snails",
)
DOUBTS = (
    "Find three explanations by which following the advice in it would not help anybody, and for each of them "
    "something "
    "that one could observe if it were right.",
    "Which experiment would settle whether the first brings about the second? Suppose it is not allowed: what is the "
    "next "
    "best thing, and what remains open?",
    "Make up numbers for two groups of people in such a way that the connection disappears within each group, and "
    "say what "
    "the groups could be.",
)


def headline(rng: Random) -> str:
    return f'A newspaper writes: "{rng.choice(HEADLINES)}." {rng.choice(DOUBTS)}'


CHANGES = (
    "a city made its buses free on Sundays, a fifth fewer bicycles were stolen",
    "a firm took down the walls between its offices, days of illness rose by a third",
    "a school put its first lesson an hour later, marks in mathematics improved",
    "a supermarket moved the fruit to the entrance, it sold less bread",
    "a village got a roundabout, the number of accidents rose",
    "a hospital bought a new scanner, more cases of a rare disease were found",
    "a bank replaced its passwords by fingerprints, complaints doubled",
    "a zoo lowered its prices, fewer people came",
    "a theatre began to sell popcorn, its plays were reviewed more kindly",
    "a country raised the tax on sugar, it counted more smokers",
)
QUESTIONS = (
    "Did the one bring about the other? List the rival explanations, and say how you would decide with nothing but "
    "records "
    "that exist already.",
    "Trace two chains of causes by which the one could have led to the other, and two by which both could have come "
    "from "
    "something else. Which link would you check first?",
)


def afterwards(rng: Random) -> str:
    return f"After {rng.choice(CHANGES)}. {rng.choice(QUESTIONS)}"


BACKFIRED = (
    "To have fewer rats, a city pays for every rat's tail that is brought in. A year later there are more rats",
    "To save water, a town cuts the pressure at night. A year later it uses more water",
    "To answer faster, a help line ends every call after five minutes. A year later callers wait longer",
    "To reduce theft, a shop locks up its dearest goods. A year later it earns less, and as much is stolen",
    "To empty its roads, a city lets cars drive on alternate days, by their numbers. A year later it has more cars",
    "To help young teachers, a school gives them the smallest classes. Two years later more of them leave than before",
    "To protect its forest, a park puts out every small fire. Ten years later it burns down",
    "To raise quality, a factory fines its workers for every fault. A year later more faulty goods reach the shops",
    "To get more patients treated, clinics are paid per visit. A year later the waiting rooms are fuller",
    "To make streets safer, a town puts up more signs. A year later drivers overlook more of them",
)
REMEDIES = (
    "Which loops were overlooked, and with what delays do they act? Propose a rule that works with them.",
    "Tell the story as a chain of steps, each of which seemed reasonable to somebody. Where would the smallest change "
    "have turned it round, and how could one have noticed in time?",
)


def backfired(rng: Random) -> str:
    return f"{rng.choice(BACKFIRED)}. {rng.choice(REMEDIES)}"


SYSTEMS = (
    "a village bakery with its one supplier and its regular customers",
    "a coral reef with its fish, its algae and its tourists",
    "an airline whose aeroplanes fly four routes in turn",
    "a football league whose prize money depends on the rank",
    "a bee farm among orchards that pay for pollination",
    "a newspaper that lives on readers and on advertisements",
)
SHOCKS = (
    "a tenth of what it lives on is missing for one month",
    "it suddenly has to serve twice as many as before",
    "everybody in it learns at once what they used to learn a week late",
    "its largest part is divided into two that compete",
)


def shock(rng: Random) -> str:
    return (
        f"Think of {rng.choice(SYSTEMS)}. Now {rng.choice(SHOCKS)}. What happens on the next day, after a month, "
        "after a year? Name the loops that damp the disturbance and those that make it grow, and decide whether the "
        "old state returns."
    )
