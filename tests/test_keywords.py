"""What sentences are labelled by what they say, in English and in the embedded model's world."""

import random
from itertools import pairwise

import pytest

from thinksteer.annotation import solid
from thinksteer.arithmetic import sample_chain, think
from thinksteer.keywords import annotate_text, repeats, sentences
from thinksteer.methods.seal import ThoughtRule, classify

QUESTION = "Tom has 40 cookies. Monday: Tom drops 9. Tuesday: Tom finds 5. How many cookies now?"


def labelled(text, question=QUESTION):
    return [(label, text[start:end]) for label, start, end in annotate_text(text, question)]


def test_the_embedded_models_thoughts_have_the_labels_that_its_world_gives_them():
    text = (
        "\nMonday: Tom drops 9. 40-9=31. So Tom has 31.\n\nWait, let me check. 31+9=40. Yes.\n\n"
        "Alternatively, 31+9=40. Good.\n\nTuesday: 31+5=36.\n"
    )
    assert labelled(text) == [
        ("initializing", "Monday: Tom drops 9."),
        ("deduction", "40-9=31. So Tom has 31."),
        ("uncertainty-estimation", "Wait, let me check. 31+9=40. Yes."),
        ("backtracking", "Alternatively, 31+9=40. Good."),
        ("deduction", "Tuesday: 31+5=36."),
    ]
    for fact in ("The red door has 47.", "The red door has a number."):
        assert labelled(fact, "What number is on the red door?") == [("adding-knowledge", fact)]


def test_every_checking_thought_is_uncertain_and_every_other_way_backtracks():
    """As SEAL's keywords have it, on 300 chains as the embedded model was trained to write them."""
    rng, counts = random.Random(0), {}
    wanted = {"reflection": ["uncertainty-estimation"], "transition": ["backtracking"]}
    for _ in range(300):
        chain = sample_chain(rng)
        thoughts = think(chain, rng)
        text = "\n" + "\n\n".join(thoughts) + "\n"
        sections = annotate_text(text, chain.question)
        place = 0
        for thought in thoughts:
            place = text.index(thought, place)
            own = [label for label, start, end in sections if place <= start and end <= place + len(thought)]
            kind = classify(thought, ThoughtRule())
            counts[kind] = counts.get(kind, 0) + 1
            if kind in wanted:
                assert own == wanted[kind], thought
            else:
                assert own in (["deduction"], ["initializing", "deduction"]), thought
            place += len(thought)
    assert min(counts.values()) > 20


@pytest.mark.parametrize(
    "label, sentence",
    [
        ("initializing", "Okay, I need to find the speed of the train."),
        ("initializing", "The problem says that x is positive."),
        ("deduction", "So x must be even."),
        ("deduction", "Then 3x + 2 = 11."),
        ("adding-knowledge", "I remember that the sum of angles in a triangle is 180 degrees."),
        ("adding-knowledge", "The quadratic formula is x = (-b ± sqrt(b^2 - 4ac)) / 2a."),
        ("adding-knowledge", "- **Recall** Fermat's little theorem."),
        ("example-testing", "For example, with n = 3 it would be 6."),
        ("example-testing", "Let's try n = 4."),
        ("uncertainty-estimation", "Hmm, I'm not sure about that."),
        ("uncertainty-estimation", "So wait, is that right?"),
        ("uncertainty-estimation", "That’s correct."),
        ("uncertainty-estimation", "2. **Maybe** it is 4."),
        ("uncertainty-estimation", "Let me double-check the sum."),
        ("backtracking", "Let me try another approach."),
        ("backtracking", "Wait, maybe there's a better way."),  # turning away says more than hesitating
        ("backtracking", "That doesn't work."),
    ],
)
def test_a_sentence_is_labelled_by_its_cues(label, sentence):
    assert labelled(sentence, "?") == [(label, sentence)]


def test_cues_are_whole_words():
    for sentence in ("Waiting costs 3.", "Mayberry costs 3.", "Okays cost 3.", "Soap costs 3."):
        assert labelled(sentence, "?") == [("deduction", sentence)]


def test_a_cue_carries_on_until_another_or_the_end_of_its_thought():
    text = "Alternatively, take 5. 5+5=10. So it is 10. 10+1=11.\n\nNow 3. Wait, 4? 4+4=8. Recall pi. 9."
    assert labelled(text, "?") == [
        ("backtracking", "Alternatively, take 5. 5+5=10."),
        ("deduction", "So it is 10. 10+1=11."),
        ("deduction", "Now 3."),
        ("uncertainty-estimation", "Wait, 4? 4+4=8."),
        ("adding-knowledge", "Recall pi."),
        ("deduction", "9."),
    ]


def test_what_is_repeated_within_a_check_belongs_to_the_check():
    text = "Wait, let me check. Monday: Tom drops 9. Yes."
    assert labelled(text) == [("uncertainty-estimation", text)]


def test_neighbours_with_one_label_are_one_section_but_not_across_a_blank_line():
    assert [text for _, text in labelled("One is 1. Two is 2.\nThree is 3.\n\nFour is 4.", "?")] == [
        "One is 1. Two is 2.\nThree is 3.",
        "Four is 4.",
    ]


def test_opening_turns_count_in_the_first_thought_only():
    text = "Okay, I need to add. 1+1=2.\n\nOkay, I need to add."
    assert [label for label, _ in labelled(text, "?")] == ["initializing", "deduction", "deduction"]


@pytest.mark.parametrize(
    "sentence, does",
    [
        ("Tuesday: Tom finds 5.", True),
        ("On Monday, Tom drops 9 of the 40 cookies.", True),  # five content words
        ("On Monday, Tom eats 9 of the 41 cookies.", False),  # four of six
        ("Tom drops 9 and eats 2 more.", False),
        ("Tom has 4", False),  # of "40" only a part
        ("Tom drops.", False),  # two words say nothing
        ("Monday 40-9=31.", False),
    ],
)
def test_repeating_the_question_takes_enough_of_its_words(sentence, does):
    assert repeats(sentence, QUESTION) is does


@pytest.mark.parametrize(
    "text, parts",
    [
        ("It is 3.14. Good.", ["It is 3.14.", "Good."]),
        ("See e.g. Dr. Fox vs. Mr. Ox. Done.", ["See e.g. Dr. Fox vs. Mr. Ox.", "Done."]),
        ("1. Add.\n2. Halve it!", ["1. Add.", "2. Halve it!"]),
        ('He said "no." Why?', ['He said "no."', "Why?"]),
        ("Hmm... Wait", ["Hmm...", "Wait"]),
        ("  one\n\n two.", ["one", "two."]),
        ("x.y is a.b", ["x.y is a.b"]),
        ("好。是。", ["好。", "是。"]),
        (" \n ", []),
        ("", []),
    ],
)
def test_sentences_end_where_they_end(text, parts):
    assert [text[start:end] for start, end in sentences(text, 0, len(text))] == parts


@pytest.mark.parametrize("seed", range(20))
def test_sections_cover_every_letter_in_order(seed):
    rng = random.Random(seed)
    parts = [
        "Wait",
        ". ",
        "\n",
        "\n\n",
        " ",
        "1.",
        "So ",
        "e.g. ",
        "3.5",
        "?",
        "Okay, ",
        "Tom drops 9",
        "é",
        '"',
        "...",
    ]
    text = "".join(rng.choice(parts) for _ in range(40))
    sections = annotate_text(text, QUESTION)
    assert sum(solid(text[start:end]) for _, start, end in sections) == solid(text)
    assert all(one[2] <= other[1] for one, other in pairwise(sections))
    assert all(text[start:end] == text[start:end].strip() for _, start, end in sections)
