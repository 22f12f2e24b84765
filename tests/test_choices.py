"""How choices are written as tokens, and what their ways of writing add up to."""

from dataclasses import replace

import numpy as np
import pytest
from synthetic import record

from thinksteer.choices import Choices, named, written
from thinksteer.records import InputError

WORDS = ["Yes", "No", " Yes", " No", "Yes.", " No\n", "1", "0", "}", " ", ".", ",", "\n", "\nYes", " Na"]


def encode(text):
    """The longest word of WORDS first, character by character otherwise."""
    ids = []
    while text:
        word = max((word for word in WORDS if text.startswith(word)), key=len, default=text[0])
        ids.append(WORDS.index(word) if word in WORDS else 100 + ord(word))
        text = text[len(word) :]
    return ids


def test_affixes_are_ways_of_writing_where_they_take_no_token_of_their_own():
    yes, no = (set(written(word, " is", encode)) for word in ("Yes", "No"))
    assert yes == {(WORDS.index(way),) for way in ("Yes", " Yes", "Yes.", "\nYes")}
    assert no == {(WORDS.index(way),) for way in ("No", " No", " No\n")}


def test_a_space_before_may_be_a_token_of_its_own():
    assert written("10", " is", encode) == [(6, 7), (9, 6, 7)]


def test_no_way_of_writing_begins_another_so_nothing_counts_twice():
    assert written("Na", " is", encode) == [(14,), (178, 197)]  # not " Na" and a full stop, in as many tokens as "Na"
    ways = [way for word in ("Yes", "No", "10") for way in written(word, " is", encode)]
    assert not [(a, b) for a in ways for b in ways if a != b and b[: len(a)] == a]


def test_an_open_brace_is_closed_behind_the_answer_and_tells_1_from_10():
    choices = Choices.of(["1", "10"], r"\boxed{", encode)
    assert choices.answers == ((6, 8), (6, 7, 8))
    assert written("1", r"\text{so} ", encode)[0] == (6,)
    for order in (["1", "10"], ["10", "1"]):
        with pytest.raises(InputError, match="'1' begins '10' or is the same"):
            Choices.of(order, " is", encode)


def test_choices_that_are_written_alike_are_refused():
    with pytest.raises(InputError, match="begins 'b' or is the same"):
        Choices.of(["a", "b"], "", lambda text: [3])


def test_the_probability_of_a_choice_is_that_of_all_its_ways():
    choices = Choices(("a", "b"), ((1,), (2,), (3,)), (0, 1, 0))
    pooled = choices.pooled(np.log([[0.1, 0.5, 0.3], [0.2, 0.7, 0.01]]))
    np.testing.assert_allclose(np.exp(pooled), [[0.4, 0.5], [0.21, 0.7]])
    assert [choices.index(text) for text in ("B ", "a", "c", "")] == [1, 0, None, None]


def test_choices_are_words_ranges_or_all_references():
    records = [replace(record(str(n)), reference=answer) for n, answer in enumerate(["10", "9", "10", "100"])]
    records.append(replace(record("open"), kind="open", reference=""))
    assert named(["reference"], records) == ["9", "10", "100"]
    assert named(["10-12"], []) == ["10", "11", "12"] and named(["B-D"], []) == ["B", "C", "D"]
    assert named(["Yes", "No"], []) == ["Yes", "No"]


@pytest.mark.parametrize("values", [["Yes"], ["12-10"], ["yes", "Yes"], ["reference"]])
def test_fewer_than_two_different_choices_are_refused(values):
    with pytest.raises(InputError, match="two or more different ones are needed"):
        named(values, [record("q")])
