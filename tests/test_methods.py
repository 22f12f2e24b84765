"""The registry, and ThinkEdit's choice of responses and positions."""

from collections import Counter
from dataclasses import replace

import pytest
from synthetic import marks_of

from thinksteer.activations import read_at
from thinksteer.lengths import LengthRule, QuantileRule
from thinksteer.methods import METHODS, PENALTIES
from thinksteer.methods.method import labelled
from thinksteer.records import EVERYWHERE, InputError, Reading, Record, Span
from thinksteer.thinking import Reader

BOS, USER, ASSISTANT, OPEN, CLOSE, EOS = range(6)


def encode(prompt):
    """The fake tokenizer: one token a word."""
    return (BOS, USER, *(10 + len(word) for word in prompt.split()), ASSISTANT)


MARKS = marks_of(("<s>", "U", "A", "<think>", "</think>", "</s>"), "<think>", "</think>")
READER = Reader(encode, str, list, MARKS)
ATTN = METHODS["thinking_length_attn"]


def record(name, length, prompt="how many", status="closed", **more):
    """A response whose thinking has `length` tokens, both delimiters included."""
    ids = (OPEN, *[7] * (length - 2), CLOSE, 8, 9, EOS)
    counted = length if status == "closed" else None
    values = dict.fromkeys(("question", "reference", "kind", "prompt", "response", "prediction"), "")
    values |= {"id": name, "sample": 0, "prompt": prompt, "token_ids": ids, "thinking_tokens": counted}
    values |= {"response_tokens": len(ids), "status": status, "finish_reason": "stop", "forced_at": None, "seed": 0}
    return Record(**values | {"correct": True} | more)


def chosen(records, rule, min_examples=1):
    """id -> label."""
    found = labelled([ATTN], records, rule, READER, min_examples)
    return {passage.id: passage.spans[0].label for passage in found}


def read(records, reader):
    """Passages of long chains with 5 or more tokens of thinking and short ones with less, at the positions to read."""
    return read_at(ATTN.passages(records, LengthRule(4, 5), reader), ATTN.reading)


def test_both_published_controls_are_registered_with_their_sites():
    found = [METHODS[f"thinking_length_{part}"] for part in ("attn", "mlp")]
    assert [(one.reading, one.sites) for one in found] == [
        (Reading("mid", shift=-1), ("attn_out",)),
        (Reading("block_out", shift=-1), ("mlp_out",)),
    ]
    for one in found:
        assert one.terms == {("long",): 1, ("short",): -1}
        assert one.where(READER) == EVERYWHERE and not one.conditional and one.layer(28) is None


def test_names_of_controls_and_penalties_are_unique():
    assert not METHODS.keys() & PENALTIES.keys()
    assert all(name == one.name for name, one in (METHODS | PENALTIES).items())


def test_the_positions_read_are_those_that_predict_each_thinking_token():
    found = read([record("a", 5), record("b", 3)], READER)
    # BOS USER w w ASSISTANT | OPEN 7 7 7 CLOSE 8 9 EOS: position 4 predicts OPEN, position 8 predicts CLOSE.
    assert found[0].ids == (BOS, USER, 13, 14, ASSISTANT, OPEN, 7, 7, 7, CLOSE, 8, 9, EOS)
    assert found[0].spans == (Span("long", 4, 9),)
    span = found[0].spans[0]
    assert [found[0].ids[position + 1] for position in range(span.start, span.end)] == [OPEN, 7, 7, 7, CLOSE]
    assert found[1].spans == (Span("short", 4, 7),)


def test_an_opening_in_the_prompt_belongs_to_the_span():
    made = [record("a", 5, token_ids=(7, 7, 7, CLOSE, EOS)), record("b", 3, token_ids=(7, CLOSE, EOS))]
    prompt = (BOS, ASSISTANT, OPEN)
    found = read(made, replace(READER, encode=lambda _: prompt))
    # BOS ASSISTANT OPEN | 7 7 7 CLOSE EOS: position 1 predicts OPEN, position 5 predicts CLOSE.
    assert [p.spans for p in found] == [(Span("long", 1, 6),), (Span("short", 1, 4),)]


def test_delimiters_of_several_tokens_are_read_whole():
    ids = (OPEN, USER, 7, 7, CLOSE, USER, 9, EOS)
    short = (OPEN, USER, 7, CLOSE, USER)
    made = [record("a", 4, token_ids=ids, thinking_tokens=6), record("b", 4, token_ids=short, thinking_tokens=5)]
    found = read_at(
        ATTN.passages(
            made, LengthRule(5, 6), replace(READER, marks=replace(MARKS, open=b"<think>U", close=b"</think>U"))
        ),
        ATTN.reading,
    )
    assert [p.spans for p in found] == [(Span("long", 4, 10),), (Span("short", 4, 9),)]


def test_thresholds_are_strict():
    lengths = {"a": 99, "b": 100, "c": 101, "d": 999, "e": 1000, "f": 1001}
    assert chosen([record(n, length) for n, length in lengths.items()], LengthRule()) == {"a": "short", "f": "long"}


@pytest.mark.parametrize("status", ["capped", "eos_open", "no_think"])
def test_only_closed_chains_of_thought_are_used(status):
    made = [record("a", 5), record("b", 50), record("c", 5, status=status), record("d", 50, status=status)]
    assert chosen(made, LengthRule(20, 20)) == {"a": "short", "b": "long"}


def test_too_few_examples_are_an_error_that_counts_them_and_names_thresholds_that_work():
    made = [record(f"r{length}", length) for length in (20, 30, 40, 50, 60, 70, 80, 90)]
    made += [record("open", 500, status="capped")]
    with pytest.raises(InputError) as error:
        chosen(made, LengthRule(75, 25), min_examples=3)
    assert "2 long and 1 short above 75 tokens of thinking (long) and below 25 (short), at least 3 of each" in str(
        error.value
    )
    assert "among 8 closed chains long_above 69 and short_below 41 would give enough" in str(error.value)
    assert Counter(chosen(made, LengthRule(69, 41), min_examples=3).values()) == {"long": 3, "short": 3}


def test_where_no_threshold_can_help_more_responses_are_asked_for():
    for made in ([record("a", 5), record("b", 50)], [record(f"r{i}", 30) for i in range(9)]):
        for rule in (LengthRule(), QuantileRule(0.2)):
            with pytest.raises(InputError, match="generate more responses"):
                chosen(made, rule, min_examples=2)
    with pytest.raises(InputError, match=r"0 long and 0 short.*: generate more"):
        chosen([], LengthRule())


def test_quantiles_take_the_longest_and_the_shortest_share():
    made = [record(f"r{length}", length) for length in (12, 55, 30, 99, 41, 8, 77, 23, 60, 14)]
    expected = {"r99": "long", "r77": "long", "r8": "short", "r12": "short"}
    assert chosen(made, QuantileRule(0.2)) == expected
    assert len(chosen([record(f"r{n}", n) for n in range(10, 110)], QuantileRule(0.29))) == 58


def test_a_length_is_never_both_long_and_short():
    made = [record(f"r{i}", length) for i, length in enumerate([10] * 6 + [20] * 2)]
    assert Counter(chosen(made, QuantileRule(0.5)).values()) == {"long": 2, "short": 2}
    labels = chosen(made, QuantileRule(0.5))
    assert {label for name, label in labels.items() if int(name[1:]) >= 6} == {"long"}


def test_too_small_a_share_is_told_which_share_would_do():
    made = [record(f"r{n}", n) for n in range(10, 50)]
    with pytest.raises(InputError, match=r"4 long and 4 short.* among 40 closed chains share 0\.25 would give enough"):
        chosen(made, QuantileRule(0.1), min_examples=10)
    assert len(chosen(made, QuantileRule(0.25), min_examples=10)) == 20


@pytest.mark.parametrize("share", [0, -0.1, 0.51, float("nan")])
def test_a_share_that_cannot_be_is_refused(share):
    with pytest.raises(InputError, match="share"):
        QuantileRule(share)


def test_matched_groups_have_the_same_distribution_of_question_size():
    # Larger questions are thought about longer: unmatched groups differ in size, matched ones only in length.
    made = [
        record(f"{size}-{extra}", 20 * size + extra, prompt="word " * size)
        for size, count in ((3, 50), (4, 30), (5, 20))
        for extra in range(count)
    ]

    def sizes(rule, label):
        return Counter(name.split("-")[0] for name, found in chosen(made, rule).items() if found == label)

    plain, matched = QuantileRule(0.2), QuantileRule(0.2, match="prompt_tokens")
    assert sizes(matched, "long") == sizes(matched, "short") == {"3": 10, "4": 6, "5": 4}
    assert sizes(plain, "long") != sizes(plain, "short")
    labels = chosen(made, matched)
    assert {labels[f"4-{extra}"] for extra in range(24, 30)} == {"long"}
    assert {labels[f"4-{extra}"] for extra in range(6)} == {"short"}


def test_a_response_of_another_template_is_refused_by_name():
    with pytest.raises(InputError, match=r"gsm8k-3 sample 0.*no_think.*pass the --template"):
        read([record("gsm8k-3", 9)], replace(READER, marks=replace(MARKS, open=b"<other>")))
    with pytest.raises(InputError, match=r"9 thinking tokens.* closed with 12"):
        chosen([record("a", 12, thinking_tokens=9)], LengthRule())


def test_a_response_without_token_ids_is_refused_by_name():
    with pytest.raises(InputError, match="up-1 sample 0 has text but no token ids"):
        chosen([record("up-1", 5, token_ids=())], LengthRule())
