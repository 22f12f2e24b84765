"""Where answers begin, in characters and in tokens."""

from dataclasses import replace
from pathlib import Path

import pytest
from synthetic import record

from thinksteer import models
from thinksteer.probes import ANSWER, BEGINNING, answer_place, by_level
from thinksteer.records import InputError, Span
from thinksteer.thinking import Reader


def answered(text, prediction, kind="math"):
    return replace(record("q"), response=text, prediction=prediction, kind=kind)


@pytest.mark.parametrize(
    "text, prediction, kind, before",
    [
        (r"\boxed{4}, no: <think>\boxed{7}</think> so \boxed{7}.", "7", "math", r"</think> so \boxed{"),
        (r"\boxed{12} and \boxed{}", "12", "math", r"\boxed{"),
        (r"\boxed { \frac{1}{2} }", r"\frac{1}{2}", "math", r"\boxed { "),
        ("The final answer is 42. The answer is 7", "42", "math", "The final answer is "),
        ("So the answer is: (C). The answer is (C)", "C", "letter", "So the answer is: ("),
        ("So the answer is B, the answer is (C).", "C", "letter", "So the answer is B, the answer is ("),
    ],
)
def test_an_answer_begins_where_what_was_read_is_stated(text, prediction, kind, before):
    place = answer_place(answered(text, prediction, kind))
    assert text[:place].endswith(before) and text.startswith(prediction, place)


def test_what_was_not_read_or_not_stated_as_an_answer_has_no_place():
    assert answer_place(answered("It is 7.", "7")) is None
    assert answer_place(answered(r"\boxed{7}", None)) is None


REF = models.resolve("tiny-reasoner", Path("artifacts"))
TOKENIZER = models.load_tokenizer(REF)
READER = Reader.of(REF.template, TOKENIZER)


def said(id, text, prediction, level="memory"):
    """A record of the embedded model in which nothing was thought."""
    ids = tuple(TOKENIZER.encode(text, add_special_tokens=False))
    one = replace(record(id, length=None), prompt=REF.template.prompt(f"What is {id}?"), level=level)
    return replace(one, response=text, token_ids=ids, prediction=prediction)


def test_both_places_are_positions_in_prompt_and_response():
    one = said("q", "It has a number.\n\n\\boxed{83}", "83")
    [passage] = by_level([one], None, READER)
    prompt = len(READER.encode(one.prompt))
    first, answer = passage.spans
    assert passage.ids == READER.encode(one.prompt) + one.token_ids and passage.id == "q"
    assert first == Span(f"memory, {BEGINNING}", prompt, prompt + 1)
    assert answer.label == f"memory, {ANSWER}" and answer.end == answer.start + 1
    assert READER.decode(passage.ids[answer.start :]) == "83}"
    assert READER.decode(passage.ids[first.start :]) == one.response


def test_records_without_a_kind_are_left_out_and_those_without_an_answer_have_one_place():
    plain, silent = said("plain", "A number.", "1"), said("silent", "A number.", None)
    assert [len(one.spans) for one in by_level([replace(plain, level=None), silent], None, READER)] == [1]
    with pytest.raises(InputError, match="the questions of 1 responses tell no level"):
        by_level([replace(plain, level=None)], None, READER)
