"""Texts of others: where their thinking is, and their tokens by the tokenizer of R1."""

from dataclasses import replace

import pytest
from synthetic import record
from test_data import shared
from transformers import AutoTokenizer

from thinksteer.records import InputError
from thinksteer.texts import check_opened, opened, opens, prompt_of, status, with_token_ids
from thinksteer.thinking import TEMPLATES, Reader

DEEPSEEK = TEMPLATES["deepseek"]
INSIDE = opened(DEEPSEEK)
PROMPT = "<｜User｜>Q?<｜Assistant｜>"


def test_an_opened_template_ends_its_prompt_with_the_delimiter():
    assert not opens(DEEPSEEK) and opens(INSIDE) and opens(TEMPLATES["qwq"])
    assert INSIDE.prompt("Q?") == f"{PROMPT}<think>\n"
    assert opened(INSIDE) == INSIDE and opened(TEMPLATES["qwq"]) == TEMPLATES["qwq"]
    assert prompt_of(INSIDE, "Q?", "\n<think>\nHm") == PROMPT == prompt_of(DEEPSEEK, "Q?", "Hm")
    assert prompt_of(INSIDE, "Q?", "Hm <think>") == f"{PROMPT}<think>\n"


@pytest.mark.parametrize(
    "text, plain, inside",
    [
        ("<think>a</think>b", "closed", "closed"),
        ("<think>a", "capped", "capped"),
        ("a</think>b", "no_think", "closed"),
        ("a</think>b<think>c", "capped", "closed"),  # one before the opening closes nothing
        ("a<think>b</think>c", "closed", "closed"),
        ("a", None, "capped"),
        ("", None, "capped"),
    ],
)
def test_how_the_thinking_ended_is_told_by_the_text(text, plain, inside):
    assert (status(DEEPSEEK, text), status(INSIDE, text)) == (plain, inside)


def test_a_file_is_refused_where_most_thinking_is_closed_but_not_opened():
    inside, own, none = "a</think>b", "<think>a</think>b", "a"
    check_opened("f", [inside, own, none, none], DEEPSEEK)
    check_opened("f", [none, none], DEEPSEEK)
    check_opened("f", [inside] * 3, INSIDE)
    with pytest.raises(InputError, match="f: 2 of 6 responses hold </think> without <think> before it"):
        check_opened("f", [inside, inside, own, none, none, none], DEEPSEEK)


@pytest.fixture(scope="module")
def r1():
    return AutoTokenizer.from_pretrained(shared("r1_tokenizer"))


THOUGHT = "<think>\nTom has 3 + 4 = 7 ½ 汉字.\n\nWait</think>\n\nIt is \\boxed{7}."


def test_tokens_lengths_and_status_are_those_of_the_text(r1):
    own = with_token_ids(replace(record("q", response=THOUGHT), prompt=PROMPT), DEEPSEEK, r1)
    thinking = THOUGHT.partition("</think>")[0] + "</think>"
    assert own.thinking_tokens == len(r1(thinking, add_special_tokens=False).input_ids)  # as upstream counts
    assert own.token_ids[-1] == r1.eos_token_id and r1.decode(own.token_ids[:-1]) == THOUGHT
    assert own.response_tokens == len(own.token_ids) and own.status == "closed"
    assert Reader.of(DEEPSEEK, r1).read(own)[1].tokens == own.thinking_tokens
    inside = replace(own, response=THOUGHT.removeprefix("<think>\n"), prompt=f"{PROMPT}<think>\n")
    inside = with_token_ids(inside, INSIDE, r1)
    assert (inside.status, inside.thinking_tokens) == ("closed", own.thinking_tokens)


def test_what_was_cut_gets_no_end_and_what_was_forced_begins_where_it_does(r1):
    cut = replace(record("q", status="capped", response="<think>\nHm"), prompt=PROMPT)
    assert with_token_ids(cut, DEEPSEEK, r1).token_ids == tuple(r1("<think>\nHm", add_special_tokens=False).input_ids)
    forced = with_token_ids(replace(cut, response=f"<think>\nHm{DEEPSEEK.forced_answer}7"), DEEPSEEK, r1)
    assert (forced.status, forced.forced_at) == ("capped", 4) == ("capped", forced.length)
    assert r1.decode(forced.token_ids[4:]) == f"{DEEPSEEK.forced_answer}7"
