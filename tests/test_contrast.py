"""Which tokens the two sides of a pair are, and that they differ in what is asked alone."""

import json
import math
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from conftest import FAMILIES, build_model
from synthetic import character_marks, record
from transformers import GraniteConfig, GraniteForCausalLM

from thinksteer import arithmetic, models
from thinksteer.contrast import (
    GAP,
    HELD_OUT,
    OWN_TOKENS,
    PAIRS,
    Pair,
    Suffix,
    draw,
    own_suffixes,
    passages,
    prompts,
    read_texts,
    split,
    suffix_log_probs,
    texts,
    written_suffixes,
)
from thinksteer.records import InputError, Span
from thinksteer.thinking import TEMPLATES, Reader

SETS = json.loads((Path(models.__file__).parent / "contrast_sets.json").read_text(encoding="utf-8"))
MARKS = ["<think>", "</think>", "<|im_start|>"]


def words(text):
    """A tokenizer of characters."""
    return [ord(character) for character in text]


def reader(template):
    return Reader(
        lambda prompt: tuple(words(prompt)),
        lambda ids: "".join(map(chr, ids)),
        None,
        character_marks(template.open, template.close),
    )


def text(ids):
    return "".join(map(chr, ids))


@pytest.mark.parametrize("name", PAIRS)
def test_the_two_sides_of_our_pairs_differ_in_the_filling_alone(name):
    found = texts(name)
    assert len(set(found)) == len(found) >= 9 and all(first != second for first, second in found)
    assert not any(mark in side for pair in found for side in pair for mark in [*MARKS, GAP])


def test_our_suffixes_are_many_different_and_without_marks():
    sizes = {name: len(set(found)) for name, found in SETS["suffixes"].items()}
    assert sizes == {"ordinary": 60, "reasoning": 50}
    assert not any(mark in one for found in SETS["suffixes"].values() for one in found for mark in MARKS)


def test_effort_asks_the_same_about_what_is_worked_out_and_what_is_skipped():
    found = texts("effort")
    swaps = {("coins", "stickers"), ("bolts", "cookies"), ("beads", "apples")}
    for positive, negative in found:
        (swap,) = [(high, low) for high, low in swaps if high in positive]
        assert negative == positive.replace(*swap) and not arithmetic.is_test(positive)
        assert not arithmetic.is_test(negative) and arithmetic.EFFORT[swap[0]] > 0.7 > 0.1 > arithmetic.EFFORT[swap[1]]
    assert len(found) == 300 and found == texts("effort")


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_what_a_model_reads_is_its_prompt_its_opening_and_the_beginning_of_a_suffix(template):
    """The whole text, spelled out; no template closes a thinking block before the suffix."""
    ids = prompts([("Say a", "Say b")], template, reader(template))
    for kind, opening in (
        ("ordinary", ""),
        ("reasoning", "" if template.opened_in(template.prompt("?")) else template.open + "\n"),
    ):
        first = written_suffixes(kind, template, words)[:1]
        (pair,) = draw(ids, [[Suffix(first[0].ids[: first[0].shortest + 4], first[0].shortest + 4)]], None, 0)
        for side, said in zip(passages([pair]), ("a", "b"), strict=True):
            begun = SETS["suffixes"][kind][0][:5]
            assert text(side.ids) == f"{template.before}Say {said}{template.after}{opening}{begun}"
            assert template.close not in text(side.ids)


def test_sides_come_in_turn_and_each_is_read_at_its_last_token():
    pairs = [Pair((1, 2), (1, 3, 4), (7, 8)), Pair((5,), (6,), (9,))]
    assert [(one.ids, one.spans) for one in passages(pairs)] == [
        ((1, 2, 7, 8), (Span("positive", 3, 4),)),
        ((1, 3, 4, 7, 8), (Span("negative", 4, 5),)),
        ((5, 9), (Span("positive", 1, 2),)),
        ((6, 9), (Span("negative", 1, 2),)),
    ]


FEW = [((1,), (2,)), ((3,), (4,)), ((5,), (6,))]


def test_all_beginnings_are_there_once_and_prompts_take_turns():
    found = draw(FEW, [[Suffix((7, 8, 9), 2), Suffix((7, 8, 5), 2)], [Suffix((1,), 1)]], None, 0)
    assert sorted(one.suffix for one in found) == [(1,), (7, 8), (7, 8, 5), (7, 8, 9)]
    assert {(one.positive, one.negative) for one in found} == set(FEW)


def test_kinds_of_suffixes_give_equally_many_and_the_seed_decides_which():
    kinds = [
        [Suffix(tuple(range(10 * k, 10 * k + 10)), 1) for k in range(low, high)] for low, high in ((0, 20), (20, 25))
    ]
    found = draw(FEW, kinds, 40, 0)
    assert sum(one.suffix[0] >= 200 for one in found) == 20 and len({one.suffix for one in found}) == 40
    turns = [sum(one.positive == prompt for one in found) for prompt, _ in FEW]
    assert sorted(turns) == [13, 13, 14]
    assert draw(FEW, kinds, 40, 0) == found != draw(FEW, kinds, 40, 1)


@pytest.mark.parametrize("n_prompts", [3, 10])
def test_held_out_are_suffixes_and_where_there_are_enough_prompts_that_no_vector_sees(n_prompts):
    asked = [((index,), (-index - 1,)) for index in range(n_prompts)]
    kinds = [[Suffix((100 * kind + index,), 1) for index in range(11)] for kind in range(2)]
    (seen, kept), (unseen, other) = split(asked, kinds)
    for some, rest, kind in zip(kept, other, kinds, strict=True):
        assert sorted([*some, *rest], key=str) == sorted(kind, key=str) and len(rest) == 11 // HELD_OUT
    if n_prompts < HELD_OUT:
        assert seen == unseen == asked
    else:
        assert not set(seen) & set(unseen) and len(unseen) == 2 and set(seen) | set(unseen) == set(asked)


DEEPSEEK = TEMPLATES["deepseek"]


def response(name, said, status="closed", sample=0, template=DEEPSEEK):
    """A record as a model of characters would give it; the last token ends it."""
    ids = tuple(words(said))
    found = said.find(template.close)
    counted = found + len(template.close) - said.find(template.open) if status == "closed" else None
    changes = {"prompt": "P", "token_ids": ids, "thinking_tokens": counted, "status": status}
    return replace(record(name, sample), finish_reason="length" if status == "capped" else "stop", **changes)


def test_own_suffixes_are_beginnings_of_the_thinking_as_the_model_opened_it():
    long = "x" * (2 * OWN_TOKENS)
    records = [
        response("b", f"<think>{long}</think>4$"),
        response("a", "<think>\nab</think>5$"),
        response("a", "<think>other sample</think>5$", sample=1),
        response("c", "<think>\n\n</think>6$", status="empty"),  # as Qwen3 answers without thinking
        response("d", "<think>cut", status="capped"),
        response("e", "I say.$", status="no_think"),
    ]
    found = own_suffixes(records, reader(DEEPSEEK))
    assert [text(one.ids) for one in found] == ["<think>\nab", f"<think>{'x' * OWN_TOKENS}", "<think>cut", "I say."]
    assert [one.shortest for one in found] == [8, 8, 8, 1]
    with pytest.raises(InputError, match="none of 1 responses has thinking"):
        own_suffixes(records[3:4], reader(DEEPSEEK))


def test_own_thinking_that_the_prompt_opened_is_taken_from_its_first_token():
    template = TEMPLATES["qwq"]
    one = response("a", "ab</think>5$", template=template)
    one = replace(one, prompt="P<think>\n", thinking_tokens=len("<think>\nab</think>"))
    assert own_suffixes([one], reader(template)) == [Suffix(tuple(words("ab")), 1)]


def test_a_prompt_that_closes_the_thinking_is_refused():
    """As Qwen3's chat template does without thinking."""
    done = replace(TEMPLATES["qwen3"], render=lambda asked: f"{asked}<think>\n\n</think>\n\n")
    with pytest.raises(InputError, match=r"the prompt ends with </think>.*--chat_template_kwargs"):
        prompts([("a", "b")], done, reader(done))


@pytest.mark.parametrize("text", ["<think>\n\n</think>\n\nYou are kind.", "Do not <think>", "so be it</think>"])
def test_marks_of_thinking_in_what_is_asked_are_refused(text):
    for pair in ((text, "b"), ("a", text)):
        with pytest.raises(InputError, match=r"holds </?think>: leave out thinking blocks"):
            prompts([pair], TEMPLATES["qwen3"], reader(TEMPLATES["qwen3"]))


def write(path, value):
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def test_a_file_of_pairs_is_read_with_and_without_frames(tmp_path):
    fillings = [["a", "b"], ["{c}", "d"]]
    assert read_texts(write(tmp_path / "p.json", {"fillings": fillings})) == [("a", "b"), ("{c}", "d")]
    framed = {"frames": ["You are {}.", "{}, {}!"], "fillings": fillings}
    assert read_texts(write(tmp_path / "p.json", framed)) == [
        ("You are a.", "You are b."),
        ("You are {c}.", "You are d."),
        ("a, a!", "b, b!"),
        ("{c}, {c}!", "d, d!"),
    ]


REFUSED = {
    "text": ("pairs", r"is not JSON"),
    "list": ([["a", "b"]], r'give \{"fillings"'),
    "nothing": ({}, r'give \{"fillings"'),
    "empty": ({"fillings": []}, r'give \{"fillings"'),
    "key": ({"fillings": [["a", "b"]], "suffixes": []}, r'give \{"fillings"'),
    "no list": ({"fillings": "ab"}, r"'fillings' is no list"),
    "no frames": ({"frames": [], "fillings": [["a", "b"]]}, r"'frames' is no list"),
    "no gap": (
        {"frames": ["You are {}.", "You"], "fillings": [["a", "b"]]},
        r"number 2 of 'frames' is not a text with",
    ),
    "number": ({"frames": [3], "fillings": [["a", "b"]]}, r"number 1 of 'frames'"),
    "three": ({"fillings": [["a", "b"], ["a", "b", "c"]]}, r"number 2 of 'fillings' is not two different texts"),
    "alike": ({"fillings": [["a", "a"]]}, "number 1 of 'fillings'"),
    "blank": ({"fillings": [["a", " "]]}, "number 1 of 'fillings'"),
    "no text": ({"fillings": [["a", None]]}, "number 1 of 'fillings'"),
}


@pytest.mark.parametrize("value, message", REFUSED.values(), ids=REFUSED)
def test_a_file_of_no_pairs_is_refused_with_what_is_wrong(value, message, tmp_path):
    with pytest.raises(InputError, match=rf"p\.json:? .*{message}|p\.json {message}"):
        read_texts(write(tmp_path / "p.json", value))


def test_the_probability_of_a_suffix_is_that_of_its_tokens_given_the_prompt(qwen):
    generator = torch.Generator().manual_seed(3)
    pairs = []
    for sizes in ((3, 5, 4), (9, 2, 1), (4, 4, 7), (6, 1, 2)):
        pairs.append(Pair(*(tuple(torch.randint(64, (size,), generator=generator).tolist()) for size in sizes)))
    found = suffix_log_probs(qwen, pairs, max_batch_tokens=30)
    for pair, value in zip(pairs, found, strict=True):
        total = 0.0
        for prompt, place in product((pair.positive, pair.negative), range(len(pair.suffix))):
            with torch.no_grad():
                logits = qwen(torch.tensor([[*prompt, *pair.suffix[:place]]])).logits[0, -1]
            total += math.log(logits.softmax(dim=0)[pair.suffix[place]])
        assert value.item() == pytest.approx(total / 2 / len(pair.suffix), abs=1e-9)


def test_a_model_that_scales_its_logits_is_refused(monkeypatch):
    """The states behind its last norm tell other probabilities than it gives."""
    monkeypatch.setitem(FAMILIES, "granite", (GraniteForCausalLM, GraniteConfig, {"logits_scaling": 3.0}))
    with pytest.raises(InputError, match="GraniteForCausalLM scales or bends its logits"):
        suffix_log_probs(build_model("granite"), [Pair((1, 2), (1, 3), (7, 8))], max_batch_tokens=30)
