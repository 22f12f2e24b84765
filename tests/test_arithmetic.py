"""The embedded model's world: questions, splits, and what its chains of thought say."""

import random
import re
from dataclasses import replace
from itertools import islice
from statistics import mean

import pytest

from thinksteer import arithmetic
from thinksteer.arithmetic import EFFORT, FACTS, problems, sample_chain, think, training_texts


def chains(count: int, item: str | None = None):
    rng = random.Random(0)
    found = (sample_chain(rng) for _ in range(100 * count))
    return list(islice((chain for chain in found if item in (None, chain.item)), count))


def test_the_answer_is_what_the_question_says():
    for problem in problems("test", 3, 200):
        value = int(re.search(r"has (\d+)", problem.question)[1])
        for verb, change in re.findall(r": \w+ (\w+) (\d)\.", problem.question):
            value += int(change) if verb in arithmetic.GAINS else -int(change)
        assert problem.answer == str(value)


def test_the_same_seed_gives_the_same_questions_and_another_gives_others():
    first, again, other = (list(problems("test", seed, 50)) for seed in (1, 1, 2))
    assert first == again
    assert not {problem.question for problem in first} & {problem.question for problem in other}


def test_the_splits_share_no_question_with_each_other_or_with_training():
    test = {problem.question for problem in problems("test", 0, 2000)}
    train = {problem.question for problem in problems("train", 0, 2000)}
    trained = {question for question, _ in islice(training_texts("0 0"), 20000)}
    assert len(test) == len(train) == 2000
    assert not test & (train | trained)


def test_every_value_has_two_digits():
    for chain in chains(500):
        assert all(arithmetic.LOWEST <= value <= arithmetic.HIGHEST for value in chain.values)


@pytest.mark.parametrize("item", EFFORT)
def test_every_equation_is_right_but_for_slips_that_are_found_and_mended(item):
    rng = random.Random(1)
    for chain in chains(60, item):
        thoughts = think(chain, rng)
        for place, thought in enumerate(thoughts):
            for left, sign, right, result in re.findall(r"(\d+)([+-])(\d+)=(\d+)", thought):
                right_result = int(left) + int(right) * (1 if sign == "+" else -1)
                if int(result) != right_result:
                    assert " No." in thoughts[place + 1]
                    assert thoughts[place + 2].startswith(thought.split(":")[0])


def test_items_that_look_hard_are_thought_about_longer():
    rng = random.Random(2)
    lengths = {
        item: mean(len(think(chain, rng)) for chain in chains(100, item)) for item in ("stickers", "pens", "coins")
    }
    assert lengths["stickers"] < lengths["pens"] < lengths["coins"]


def test_long_chains_hold_checks_and_switches():
    rng = random.Random(3)
    text = "\n\n".join(thought for chain in chains(100, "coins") for thought in think(chain, rng))
    assert text.count("Wait, let me check.") > 20
    assert text.count("Alternatively,") > 20


def test_a_chain_is_never_empty():
    rng = random.Random(4)
    assert all(think(chain, rng) for chain in chains(300, "stickers"))


def test_training_asks_for_every_fact_and_answers_it_rightly():
    asked = {}
    for question, response in islice(training_texts("1 0"), 20000):
        if match := re.fullmatch(r"What number is on the (.*)\?", question):
            asked[match[1]] = int(re.search(r"boxed\{(\d+)\}", response)[1])
    assert asked == FACTS


def test_every_sixth_question_from_the_first_on_is_a_fact_whichever_the_split():
    train, test = (arithmetic.problems_and_facts(split, 3) for split in ("train", "test"))
    for split, mixed in (("train", train), ("test", test)):
        assert len(mixed) == 288 and len({problem.id for problem in mixed}) == 288
        assert [problem.level == "memory" for problem in mixed] == [place % 6 == 0 for place in range(288)]
        chains = [replace(problem, level="reasoning") for problem in problems(split, 3, 240)]
        assert [problem for problem in mixed if problem.level != "memory"] == chains
    assert train[::6] == test[::6]
    assert {problem.question: int(problem.answer) for problem in test[::6]} == {
        f"What number is on the {thing}?": number for thing, number in FACTS.items()
    }
    assert len({fact.question.split()[5] for fact in test[:36:6]}) > 2  # colours
    assert (
        test == arithmetic.problems_and_facts("test", 3) and test[::6] != arithmetic.problems_and_facts("test", 4)[::6]
    )
