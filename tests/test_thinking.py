"""Thinking length and status: every edge case spelt out by hand."""

import json
import re
from copy import copy
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from real_models import DATA, r1_tokenizer
from synthetic import character_marks, marks_of
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from thinksteer.models import TINY_REASONER
from thinksteer.records import InputError
from thinksteer.thinking import (
    FORCED_QUESTION,
    TEMPLATES,
    Finder,
    Follower,
    Marks,
    Prompting,
    Thinking,
    TokenBytes,
    decode,
    prompt_ids,
    read,
)

EOS = 2
TEXTS = {
    7: "<think>",
    8: "</think>",
    9: "\n",
    10: "<th",
    11: "ink>\n",
    12: ".</",
    13: "think>\n\n",
    14: "><",
    15: "<think",
    16: "/think>",
}
PROMPT = (1, 20, 21)  # BOS and a question
MARKS = marks_of([TEXTS.get(token, "?") for token in range(60)], "<think>", "</think>")


def tokenizer(add_bos: bool) -> PreTrainedTokenizerFast:
    words = ["[UNK]", "<s>", "</s>", "<think>", "</think>", "<|im_start|>", "think", "answer", "q", "."]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    if add_bos:
        core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    made = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="[UNK]")
    made.add_tokens(["<think>", "</think>", "<|im_start|>"])
    return made


def think(token_ids, finish="stop", max_tokens=100, prompt=PROMPT, marks=MARKS):
    """Status, length, start and end."""
    found = read(prompt, token_ids, marks, max_tokens, finish)
    return found.status, found.tokens, found.start, found.end


NEVER = ("no_think", None, None, None)
CASES = {
    "both delimiters count": ((7, 30, 31, 8, 40, EOS), {}, ("closed", 4, 3, 7)),
    "text before the opening does not count": ((50, 7, 30, 8, EOS), {}, ("closed", 3, 4, 7)),
    "nothing between the delimiters": ((7, 8, EOS), {}, ("empty", None, 3, 5)),
    "white space between the delimiters": ((7, 9, 9, 8, EOS), {}, ("empty", None, 3, 7)),
    "the answer was cut, the thinking was not": ((7, 30, 8, 40), {"finish": "length"}, ("closed", 3, 3, 6)),
    "a close without an open is no thinking": ((30, 8, 40, EOS), {}, NEVER),
    "no delimiter, cut": ((30, 31), {"finish": "length"}, NEVER),
    "nothing generated": ((), {"finish": "length"}, NEVER),
    "a close before the open closes nothing": ((8, 7, 30, EOS), {}, ("eos_open", None, 4, None)),
    "cut inside": ((7, 30, 31), {"finish": "length"}, ("capped", None, 3, None)),
    "EOS while open": ((7, 30, EOS), {}, ("eos_open", None, 3, None)),
    "the first of two opens counts": ((7, 30, 7, 31, 8, EOS), {}, ("closed", 5, 3, 8)),
    "a second thinking after the close is answer": ((7, 8, 7, 30, 8, EOS), {}, ("empty", None, 3, 5)),
    "the close is the last token of the budget": (
        (7, 30, 8),
        {"finish": "length", "max_tokens": 3},
        ("closed", 3, 3, 6),
    ),
    "a close that was forced after the budget": (
        (7, 30, 31, 8, 40),
        {"finish": "length", "max_tokens": 3},
        ("capped", None, 3, None),
    ),
    "an open quoted in the question": ((30, 8, EOS), {"prompt": (1, 7, 20)}, NEVER),
    "opened in the prompt": ((30, 8, EOS), {"prompt": (1, 20, 7, 9)}, ("closed", 4, 2, 6)),
    "opened in the prompt, and quoted in the question": (
        (30, 8, EOS),
        {"prompt": (1, 7, 8, 20, 7)},
        ("closed", 3, 4, 7),
    ),
    "opened in the prompt, and nothing thought": ((9, 8, 30, EOS), {"prompt": (1, 7, 9)}, ("empty", None, 1, 5)),
    "closed in the prompt": ((30, EOS), {"prompt": (1, 20, 7, 9, 9, 8, 9)}, ("empty", None, 2, 6)),
    "a close at the prompt's end that nothing opened": ((30, EOS), {"prompt": (1, 20, 8)}, NEVER),
    "split and merged with what is beside them": ((10, 11, 30, 12, 13, 40, EOS), {}, ("closed", 5, 3, 8)),
    "a token of both delimiters": ((15, 14, 16, EOS), {}, ("empty", None, 3, 6)),
    "the prompt's end and the response's beginning make none": ((11, 30, 8, EOS), {"prompt": (1, 10)}, NEVER),
    "opened in the prompt by a merged token": ((30, 8, EOS), {"prompt": (1, 10, 11)}, ("closed", 4, 1, 5)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_thinking_of_one_token_delimiters_is(name):
    token_ids, settings, expected = CASES[name]
    assert think(token_ids, **settings) == expected


def test_overlapping_delimiters_do_not_share_their_text():
    marks = marks_of([*"012345"], "55", "55")
    assert think((5, 5, 5), marks=marks)[0] == "eos_open"
    assert think((5, 5, 5, 5), marks=marks) == ("empty", None, 3, 7)
    assert think((5, 5, 0, 5, 5), marks=marks) == ("closed", 5, 3, 8)


def test_prompts_are_the_families_own():
    assert TEMPLATES["deepseek"].prompt("1+1?", " Be brief.") == "<｜User｜>1+1? Be brief.<｜Assistant｜>"
    chatml = "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n"
    assert TEMPLATES["qwen3"].prompt("q") == chatml
    assert TEMPLATES["qwq"].prompt("q") == chatml + "<think>\n"
    assert TEMPLATES["s1"].prompt("q").startswith("<|im_start|>system\n")
    assert TEMPLATES["s1"].prompt("q").endswith(chatml)


def test_an_instruction_stands_behind_the_question_or_around_it():
    template = TEMPLATES["deepseek"]
    assert template.prompt("2+2?", " Box it.") == "<｜User｜>2+2? Box it.<｜Assistant｜>"
    assert template.prompt("{x}", "Think.\nQuestion: {question}!") == "<｜User｜>Think.\nQuestion: {x}!<｜Assistant｜>"


def test_whether_the_thinking_is_opened_is_told_from_the_prompt():
    opened = {name for name, one in TEMPLATES.items() if one.opened_in(one.prompt("q"))}
    assert opened == {"qwq", "deepseek-think"}
    assert not TEMPLATES["qwen3"].opened_in("<|im_start|>assistant\n<think>\n\n</think>\n\n")


def test_a_forced_answer_closes_the_thinking_first():
    for template in TEMPLATES.values():
        assert template.forced_answer.startswith(f"\n{template.close}\n\nYeah, I think that's right.")


def test_a_prompt_has_one_bos_where_its_template_wants_one():
    """Whether or not the tokenizer adds it by itself, or the text has it already."""
    for add_bos in (True, False):
        assert prompt_ids(TEMPLATES["deepseek"], tokenizer(add_bos), "q .") == (1, 8, 9)
        assert prompt_ids(TEMPLATES["deepseek"], tokenizer(add_bos), "<s> q .") == (1, 8, 9)
        assert prompt_ids(TEMPLATES["qwen3"], tokenizer(add_bos), "q .") == (8, 9)


def test_a_plain_prompt_is_the_question_and_the_bos_of_a_tokenizer_that_has_one():
    plain = TEMPLATES["plain"]
    assert plain.prompt(" q.\n") == " q.\n" and plain.prompt("q", "Q: {question}\nA: ") == "Q: q\nA: "
    for add_bos in (True, False):
        assert (
            prompt_ids(plain, tokenizer(add_bos), "q .")
            == prompt_ids(plain, tokenizer(add_bos), "<s> q .")
            == (1, 8, 9)
        )
    without = tokenizer(add_bos=False)
    without.bos_token = None
    assert prompt_ids(plain, without, "q .") == (8, 9)


def test_a_template_that_wants_a_bos_refuses_a_tokenizer_without_one():
    without = tokenizer(add_bos=False)
    without.bos_token = None
    with pytest.raises(InputError, match="has no such token"):
        prompt_ids(TEMPLATES["deepseek"], without, "q .")


def test_a_follower_knows_at_each_position_what_the_tokens_up_to_it_say():
    def inside(ids, prompt_length, marks=MARKS):
        follower = Follower(prompt_length, marks)
        found = [follower.inside(ids[: max(place + 1, prompt_length)], place + 1) for place in range(len(ids))]
        # Asked for once at the end, it says the same as asked for token by token.
        whole = Follower(prompt_length, marks).inside(ids, len(ids))
        assert [place for place in range(len(ids)) if place in found[place]] == list(whole)
        return list(whole)

    assert inside([30, 7, 30, 7, 31, 31, 8, 31], 3) == [4, 5]  # the prompt's own delimiter opens nothing
    assert inside([30, 30, 31, 8, 31], 2) == []  # closed before it was opened
    assert inside([30, 7, 31, 31], 1) == [2, 3]  # still open
    assert inside([30, 7, 31, 8, 31, 7, 31], 1) == [2]  # a second opening is text
    assert inside([7, 30, 7, 9, 31, 8, 31], 4) == [3, 4]  # the prompt's last opening counts
    assert inside([30, 10, 11, 31, 12, 31, 12, 13, 31], 1) == [3, 4, 5, 6]  # two-token delimiters, merged
    assert inside([7, 9, 8, 9, 31, 31], 4) == []  # closed in the prompt
    assert inside([5, 5, 5, 5, 5, 0], 1, marks_of([*"012345"], "55", "55")) == [3]  # no text is in two delimiters


def test_a_copy_of_a_follower_goes_its_own_way():
    follower = Follower(1, MARKS)
    assert list(follower.inside([30, 7, 31, 12], 4)) == [2, 3]
    other = copy(follower)
    assert list(other.inside([30, 7, 31, 12, 13, 31], 6)) == [2, 3]
    assert list(follower.inside([30, 7, 31, 12, 31, 31], 6)) == [2, 3, 4, 5]


def test_a_finder_finds_a_text_at_the_token_that_completes_it():
    marks = marks_of(["x", "\n", "\n\n", ".\n", "\n\n\n"], "<think>", "</think>")

    def places(*ids):
        whole = Finder("\n\n", marks.token_bytes).upto(ids, len(ids))
        finder = Finder("\n\n", marks.token_bytes)
        assert [finder.upto(ids, n) for n in range(len(ids) + 1)][-1] == whole
        return sorted(whole)

    assert places(0, 2, 0) == [1]
    assert places(0, 1, 1, 0) == [2]  # SmolLM2's blank line
    assert places(3, 1, 0, 1, 0) == [1]
    assert places(1, 1, 1, 1) == [1, 3]
    assert places(4, 1, 0, 1, 0, 1) == [0, 1]  # three and one
    other = copy(finder := Finder("\n\n", marks.token_bytes))
    assert finder.upto([1, 1], 2) == {1} and other.upto([1, 0], 2) == set()


ANSWERS = {  # where the thinking ends: at the bar
    "She has 3 + 4 = 7 keys.\n\n|The answer is 7.": "closed",
    "3 + 4 = 7. |So the answer is \\boxed{7}. Done": "closed",
    "3 + 4 = 7\n|#### 7": "closed",
    "#### Step 2\n3 + 4\n\n#### 1. Add\nIt is 7.|": "closed",  # headings
    "First, the answer is 6? No. |The final answer is: $\\boxed{7}$.": "closed",  # the last one counts
    "It is 7.\n|So the result is:\n\n\\[\n\\boxed{7}\n\\]": "closed",  # a formula ends the sentence before it
    "Seven.\n\n|**Answer:** 7": "closed",
    "Add them up. |The answer to the question is 7.": "closed",
    "Just seven.|": "closed",
    "|\\boxed{7}": "empty",
    "|": "empty",
}


@pytest.mark.parametrize("text", ANSWERS)
def test_thinking_without_marks_is_the_response_up_to_its_answer(text):
    expected = text.index("|")
    ids = [*map(ord, text.replace("|", "")), 0]
    marks = replace(character_marks("", "never"))
    found = read((65, 66), ids, marks, 1000, "stop")
    assert (found.status, found.start, found.opened) == (ANSWERS[text], 2, 2)
    assert found.closed == found.end == 2 + expected and found.tokens == (expected if expected else None)


def test_thinking_without_marks_that_was_cut_before_an_answer_is_capped():
    ids, marks = [*map(ord, "3 + 4 is")], character_marks("", "never")
    assert read((65,), ids, marks, 100, "length") == Thinking("capped", 1, 1)
    stated = [*map(ord, "Hm. The answer is 7. Now")]
    assert read((65,), stated, marks, 100, "length").status == "closed"
    assert read((65,), stated, marks, 5, "length").status == "capped"  # what comes after the budget was forced


def test_positions_of_thinking_without_marks_are_the_responses_until_an_answer_is_forced():
    template = Prompting(thinking="response").apply("qwen3", None)
    assert template.forced_answer == FORCED_QUESTION and template.open == ""
    text = "Hm. 7" + template.forced_answer + "7"
    ids = [*map(ord, "Q" + text)]
    follower = Follower(1, character_marks(template.open, template.close))
    assert list(follower.inside(ids, 6)) == [1, 2, 3, 4, 5]
    assert list(follower.inside(ids, len(ids)))[-1] == len(ids) - 3


@pytest.fixture(scope="module", params=["r1", "qwen2.5", "smollm2", "toy"])
def real(request):
    """Tokenizers of real models: in R1's the delimiters are tokens, in Qwen2.5's they are three and merge with what
    follows, in SmolLM2's a blank line is two tokens."""
    if request.param == "smollm2":
        return PreTrainedTokenizerFast.from_pretrained(request.getfixturevalue("smollm2"))
    if request.param == "toy":
        return PreTrainedTokenizerFast.from_pretrained(TINY_REASONER)
    return r1_tokenizer(thinking_tokens=request.param == "r1")


PARTS = [
    "<think>",
    "</think>",
    "<",
    "think",
    ">",
    "\n",
    "\n\n",
    " ",
    ".",
    "Wait",
    "7",
    "é",
    "日本",
    "🎉",
    "/",
    "</",
    ">\n",
]


@settings(derandomize=True, deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_thinking_is_found_in_any_split_of_a_text_into_real_tokens(real, data):
    """Against the text alone: a token holds the characters that decoding up to it adds to decoding up to the one
    before."""
    parts = data.draw(st.lists(st.sampled_from(PARTS), min_size=1, max_size=14), "text")
    cuts = data.draw(st.lists(st.booleans(), min_size=len(parts), max_size=len(parts)), "cuts")
    pieces = [""]
    for part, cut in zip(parts, cuts, strict=True):  # what is tokenised together may merge
        pieces = [*pieces, part] if cut else [*pieces[:-1], pieces[-1] + part]
    ids = [token for piece in pieces if piece for token in real(piece, add_special_tokens=False).input_ids]
    text = decode(real, ids)
    assume(text == "".join(parts))
    ends = [len(decode(real, ids[: count + 1]).rstrip("\ufffd")) for count in range(len(ids))]

    def holder(character):
        return next(place for place, end in enumerate(ends) if end > character)

    found = read((), ids, Marks.of(TEMPLATES["deepseek"], real), len(ids), "length")
    begin = text.find("<think>")
    if begin < 0:
        assert found == Thinking("no_think")
    else:
        after = begin + len("<think>")
        end = text.find("</think>", after)
        assert (found.start, found.opened) == (holder(begin), holder(after - 1) + 1)
        if end < 0:
            assert found.status == "capped" and found.end is None
        else:
            status = "closed" if text[after:end].strip() else "empty"
            expected = (status, holder(end), holder(end + len("</think>") - 1) + 1)
            assert (found.status, found.closed, found.end) == expected
    blank = {holder(match.end() - 1) for match in re.finditer("\n\n", text)}
    assert Finder("\n\n", TokenBytes(real)).upto(ids, len(ids)) == blank


def test_the_bytes_of_tokens_are_those_of_the_decoded_text(real):
    text = " Wait, é日本🎉\n\n<think>x</think>\u2028 end"
    ids = real(text, add_special_tokens=False).input_ids
    found = TokenBytes(real)
    assert b"".join(found[token] for token in ids).decode() == decode(real, ids) == text
    assert found[len(real) + 5] == b"" and len(found.table()) == len(real)


def gsm8k_questions():
    lines = (DATA / "gsm8k_test.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["question"] for line in lines[:200]]


def test_the_papers_prompt_is_upstreams_string_token_by_token_with_one_bos():
    tokenizer = r1_tokenizer()
    bos, user, assistant = tokenizer.convert_tokens_to_ids(["<｜begin▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"])
    template, questions = TEMPLATES["deepseek"], gsm8k_questions()
    for question in questions:
        prompt = template.prompt(question)
        assert prompt == f"<｜User｜>{question}<｜Assistant｜>"
        ids = prompt_ids(template, tokenizer, prompt)
        assert ids == (bos, user, *tokenizer(question, add_special_tokens=False).input_ids, assistant)
        opened = prompt_ids(TEMPLATES["deepseek-think"], tokenizer, TEMPLATES["deepseek-think"].prompt(question))
        assert opened == (*ids, *tokenizer("<think>\n", add_special_tokens=False).input_ids)
        assert opened.count(bos) == 1
    assert len(questions) == 200


def test_thinking_that_the_prompt_opened_is_found_at_its_tokens():
    """200 responses with thinking of known length, before the closing delimiter as a token."""
    tokenizer, template = r1_tokenizer(), TEMPLATES["deepseek-think"]
    marks, (close,) = Marks.of(template, tokenizer), tokenizer("</think>", add_special_tokens=False).input_ids
    questions = gsm8k_questions()
    for number in range(200):
        prompt = prompt_ids(template, tokenizer, template.prompt(questions[number]))
        text = " Wait," * (number % 17) + questions[number // 2].split(".")[0] + "\n" * (number % 3)
        ids = (*tokenizer(text, add_special_tokens=False).input_ids, close, *tokenizer("\n\n7").input_ids[1:], 0)
        found = read(prompt, ids, marks, len(ids), "stop")
        assert found.status == "closed" and ids[found.closed - len(prompt)] == close
        assert (found.start, found.end) == (len(prompt) - 2, len(prompt) + ids.index(close) + 1)
        follower = Follower(len(prompt), marks)
        inside = follower.inside([*prompt, *ids], len(prompt) + len(ids))
        assert list(inside) == list(range(found.opened, found.closed)) and found.opened == len(prompt) - 1
