"""Thinking length and status: every edge case spelt out by hand."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from thinksteer.records import InputError
from thinksteer.thinking import TEMPLATES, Follower, Thinking, delimiters, prompt_ids, read

OPEN, CLOSE, EOS = (7,), (8,), 2
PROMPT = (1, 20, 21)  # BOS and a question


def tokenizer(add_bos: bool) -> PreTrainedTokenizerFast:
    words = ["[UNK]", "<s>", "</s>", "<think>", "</think>", "<|im_start|>", "think", "answer", "q", "."]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    if add_bos:
        core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    made = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="[UNK]")
    made.add_tokens(["<think>", "</think>", "<|im_start|>"])
    return made


def think(token_ids, finish="stop", max_tokens=100, prompt=PROMPT, open_ids=OPEN, close_ids=CLOSE, in_prompt=False):
    return read(prompt, token_ids, open_ids, close_ids, in_prompt, max_tokens, finish)


CASES = {
    "both delimiters count": ((7, 30, 31, 8, 40, EOS), {}, Thinking("closed", 4, 3, 7)),
    "text before the opening does not count": ((50, 7, 30, 8, EOS), {}, Thinking("closed", 3, 4, 7)),
    "empty thinking is two tokens": ((7, 8, EOS), {}, Thinking("closed", 2, 3, 5)),
    "the answer was cut, the thinking was not": ((7, 30, 8, 40), {"finish": "length"}, Thinking("closed", 3, 3, 6)),
    "a close without an open is no thinking": ((30, 8, 40, EOS), {}, Thinking("no_think", None, None, None)),
    "no delimiter, cut": ((30, 31), {"finish": "length"}, Thinking("no_think", None, None, None)),
    "nothing generated": ((), {"finish": "length"}, Thinking("no_think", None, None, None)),
    "a close before the open closes nothing": ((8, 7, 30, EOS), {}, Thinking("eos_open", None, 4, None)),
    "cut inside": ((7, 30, 31), {"finish": "length"}, Thinking("capped", None, 3, None)),
    "EOS while open": ((7, 30, EOS), {}, Thinking("eos_open", None, 3, None)),
    "the first of two opens counts": ((7, 30, 7, 31, 8, EOS), {}, Thinking("closed", 5, 3, 8)),
    "a second thinking after the close is answer": ((7, 8, 7, 30, 8, EOS), {}, Thinking("closed", 2, 3, 5)),
    "the close is the last token of the budget": (
        (7, 30, 8),
        {"finish": "length", "max_tokens": 3},
        Thinking("closed", 3, 3, 6),
    ),
    "a close that was forced after the budget": (
        (7, 30, 31, 8, 40),
        {"finish": "length", "max_tokens": 3},
        Thinking("capped", None, 3, None),
    ),
    "an open quoted in the question": ((30, 8, EOS), {"prompt": (1, 7, 20)}, Thinking("no_think", None, None, None)),
    "opened in the prompt": ((30, 8, EOS), {"prompt": (1, 20, 7, 9), "in_prompt": True}, Thinking("closed", 4, 2, 6)),
    "opened in the prompt, and quoted in the question": (
        (30, 8, EOS),
        {"prompt": (1, 7, 8, 20, 7), "in_prompt": True},
        Thinking("closed", 3, 4, 7),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_thinking_of_one_token_delimiters_is(name):
    token_ids, settings, expected = CASES[name]
    assert think(token_ids, **settings) == expected


def test_delimiters_of_several_tokens_count_whole():
    both = {"open_ids": (5, 6), "close_ids": (5, 9)}
    assert think((5, 6, 30, 5, 30, 5, 9, 40, EOS), **both) == Thinking("closed", 7, 3, 10)
    assert think((5, 6, 30, 5), finish="length", **both) == Thinking("capped", None, 3, None)
    assert think((6, 30, 5, 9, EOS), **both) == Thinking("no_think", None, None, None)
    # The last prompt token and the first generated one do not make a delimiter together.
    assert think((6, 30, EOS), prompt=(1, 5), **both).status == "no_think"


def test_overlapping_delimiters_do_not_share_tokens():
    assert think((5, 5, 5, EOS), open_ids=(5, 5), close_ids=(5, 5)).status == "eos_open"
    assert think((5, 5, 5, 5, EOS), open_ids=(5, 5), close_ids=(5, 5)) == Thinking("closed", 4, 3, 7)


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


def test_a_prompt_ends_with_its_opening_delimiter_exactly_where_the_template_says_so():
    for template in TEMPLATES.values():
        assert template.prompt("q").rstrip().endswith(template.open) == template.opened_in_prompt


def test_a_forced_answer_closes_the_thinking_first():
    for template in TEMPLATES.values():
        assert template.forced_answer.startswith(f"\n{template.close}\n\nYeah, I think that's right.")


def test_delimiters_of_s1_are_two_tokens_each():
    assert delimiters(TEMPLATES["s1"], tokenizer(add_bos=True)) == ((5, 6), (5, 7))
    assert delimiters(TEMPLATES["deepseek"], tokenizer(add_bos=True)) == ((3,), (4,))


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
    def inside(ids, prompt_length, open_ids=(3,), close_ids=(4,), opened_in_prompt=False):
        follower = Follower(prompt_length, open_ids, close_ids, opened_in_prompt)
        found = [follower.inside(ids[: max(place + 1, prompt_length)], place + 1) for place in range(len(ids))]
        # Asked for once at the end, it says the same as asked for token by token.
        whole = Follower(prompt_length, open_ids, close_ids, opened_in_prompt).inside(ids, len(ids))
        assert [place for place in range(len(ids)) if place in found[place]] == list(whole)
        return list(whole)

    assert inside([9, 3, 9, 3, 8, 8, 4, 8], 3) == [4, 5]  # the prompt's own delimiter opens nothing
    assert inside([9, 9, 8, 4, 8], 2) == []  # closed before it was opened
    assert inside([9, 3, 8, 8], 1) == [2, 3]  # still open
    assert inside([9, 3, 8, 4, 8, 3, 8], 1) == [2]  # a second opening is text
    assert inside([3, 9, 3, 9, 8, 4, 8], 4, opened_in_prompt=True) == [3, 4]  # the prompt's last opening counts
    assert inside([9, 5, 6, 8, 5, 8, 5, 7, 8], 1, (5, 6), (5, 7)) == [3, 4, 5, 6]  # two-token delimiters
    assert inside([9, 5, 5, 5, 5, 8], 1, (5, 5), (5, 5)) == [3]  # no token is in two delimiters
