"""Answers by letter: MMLU-Pro's own reading of real responses, and the stricter one sentence by sentence."""

import json
import re

import pytest
from test_data import shared

from thinksteer.grading import Grader, equal, extract
from thinksteer.letters import published_letter, strict_letter
from thinksteer.records import Graded


def test_the_published_predictions_of_300_real_responses_are_read() -> None:
    rows = [json.loads(line) for line in shared("mmlu_pro_mistral7b_outputs_300.jsonl").open(encoding="utf-8")]
    assert len(rows) == 300 and sum(row["pred"] is None for row in rows) == 80
    assert [published_letter(row["generated_text"]) for row in rows] == [row["pred"] for row in rows]
    with Grader() as grader:
        graded = grader.grade_all([(row["generated_text"], row["answer"], "letter") for row in rows])
    assert graded == [Graded(row["pred"], row["pred"] == row["answer"]) for row in rows]
    strict = [strict_letter(row["generated_text"]) for row in rows]
    differing = [(row["pred"], one) for row, one in zip(rows, strict, strict=True) if row["pred"] != one]
    assert len(differing) == 10 and ("E", "A") in differing and sum(one is None for _, one in differing) == 9


BOTH = [  # text, as published, strictly
    ("The answer is (C).", "C", "C"),
    ("so the answer is J", "J", "J"),
    ("The answer is C. It is not (D).", "C", "C"),
    ("The answer is (C), as (D) is too small.", "C", "C"),
    ("The answer is (C)\n", "C", "C"),
    ("The correct answer is B) four", "B", None),
    ("The answer is (A). Wait. The answer is (B).", "A", "B"),
    ("The answer is (A) or (B).", "A", None),
    ("The answer is A and B.", "A", None),
    ("The answer is (A), (B) and (C).", "A", None),
    ("The answer is (A), but no, the answer is (B).", "A", None),
    ("The answer is (B). So the answer is (A) or (B).", "B", "B"),
    ("The answer is (A), I believe.", "A", "A"),
    ("The answer is (A) and (A).", "A", "A"),
    ("The answer is (III).", "I", None),
    ("The answer is Increasing.", "I", None),
    ("The answer is A's.", "A", None),
    ("The answer is A body at rest.", "A", None),
    ("The answer is (I don't know).", "I", None),
    ("The answer is (K).", None, None),
    ("The answer is c.", None, None),
    ("The answer is 4.", None, None),
    ("Answer: (C)", None, None),
    ("", None, None),
    ("The answer is (C).\n\nQ: What else?\nA: Let's think. The answer is (D).", "C", "C"),
    ("I wonder.\nQuestion: What else?\nThe answer is (D).", "D", None),
    ("<think>The answer is (A).</think>The answer is (B).", "B", "B"),
    ("<think>The answer is (A).</think>I am lost.", "A", None),
    ("<think>The answer is (A).", "A", None),
]


@pytest.mark.parametrize("text, published, strict", BOTH)
def test_a_letter_is_read(text: str, published: str | None, strict: str | None) -> None:
    assert (extract(text, "letter"), strict_letter(text)) == (published, strict)


def test_letters_are_equal_or_not() -> None:
    assert equal("C", "C", "letter") and not equal("C", "D", "letter")


def test_many_open_parentheses_are_read_in_time() -> None:
    text = "answer is " + "(A), " * 50_000 + "("
    assert published_letter(text) == strict_letter(text) == "A"
    assert strict_letter(re.sub("A", "B", text, count=1)) is None
