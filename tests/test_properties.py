"""What holds for any input: where thinking is, what spans cover, which chains are long, what answers equal."""

from collections import Counter
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from synthetic import character_marks, record

from thinksteer import grading
from thinksteer.annotation import LABELS, annotate, passage, render, thinking_text, token_spans
from thinksteer.classes import Labelled, usages
from thinksteer.equality import clean, decide
from thinksteer.keywords import annotate_text
from thinksteer.lengths import Chain, LengthRule, QuantileRule, read_rule, rule_text
from thinksteer.methods import METHODS
from thinksteer.methods.seal import ThoughtRule
from thinksteer.models import load_tokenizer, resolve
from thinksteer.records import InputError, Span
from thinksteer.thinking import FORCED_QUESTION, Follower, Reader, read

always = settings(derandomize=True, deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))
few = settings(always, max_examples=50)

REF = resolve("tiny-reasoner", Path("nowhere"))
TOKENIZER = load_tokenizer(REF)
READER = Reader.of(REF.template, TOKENIZER)
MARKS = [("o", "c"), ("oo", "cc"), ("ox", "oy"), ("xy", "xy")]  # one token each; two; two that begin alike; the same


@st.composite
def conversations(draw):
    """A prompt, a response, the marks of thinking and the budget; a letter is a token."""
    opening, closing = draw(st.sampled_from(MARKS))
    pieces = st.lists(st.sampled_from([opening, closing, "a", "o", "x", "y", "c", " "]), max_size=12).map("".join)
    return draw(pieces), draw(pieces), opening, closing, draw(st.integers(0, 14))


def thinking_of(prompt, text, opening, closing):
    """Where in a text that begins with the prompt the thinking begins, is closed and ends; None: it does not."""
    bare = prompt.rstrip()
    if bare.endswith(closing) and opening in bare:
        begin = bare.rfind(opening)
        return begin, len(bare) - len(closing), len(bare)
    begin = len(bare) - len(opening) if bare.endswith(opening) else text.find(opening, len(prompt))
    if begin < 0:
        return None, None, None
    closed = text.find(closing, max(len(prompt), begin + len(opening)))
    return (begin, None, None) if closed < 0 else (begin, closed, closed + len(closing))


@always
@given(conversations(), st.sampled_from(["stop", "length"]))
def test_the_thinking_of_tokens_is_that_of_the_text(conversation, finish):
    prompt, response, opening, closing, most = conversation
    found = read(list(map(ord, prompt)), list(map(ord, response)), character_marks(opening, closing), most, finish)
    text = prompt + response[:most]
    begin, closed, end = thinking_of(prompt, text, opening, closing)
    assert (found.start, found.closed, found.end) == (begin, closed, end)
    if begin is None:
        assert found.status == "no_think"
    elif end is None:
        assert found.status == ("capped" if finish == "length" else "eos_open")
    else:
        thought = end > len(prompt) and text[begin + len(opening) : closed].strip()
        assert found.status == ("closed" if thought else "empty")
        assert found.tokens == (end - begin if thought else None)


@always
@given(conversations(), st.data())
def test_a_follower_says_at_every_length_what_the_text_so_far_says_whatever_it_was_asked_before(conversation, data):
    prompt, response, opening, closing, _ = conversation
    text = prompt + response
    asked = data.draw(st.lists(st.integers(len(prompt), len(text)), min_size=1).map(sorted), "lengths")
    follower = Follower(len(prompt), character_marks(opening, closing))
    for length in asked:
        begin, _, end = thinking_of(prompt, text[:length], opening, closing)
        inside = begin is not None and (end is None or end > len(prompt))
        expected = range(begin + len(opening), length if end is None else end - 1) if inside else range(0)
        assert list(follower.inside(list(map(ord, text)), length)) == list(expected)


WORDS = [" Wait", "So 3 + 4 = 7.", "\n\n", "\n", " ", "Mia has", " é", "日本", "😀", "\u2028", "e\u0301", '"', "["]
texts = st.lists(st.sampled_from(WORDS), max_size=14).map("".join)


def tokens(text):
    return TOKENIZER(text, add_special_tokens=False).input_ids


@st.composite
def responses(draw):
    """A record of the embedded model's tokens, closed, cut or ended while open, also with a forced answer."""
    before, thought, after = draw(texts), draw(texts), draw(texts)
    kind = draw(st.sampled_from(["closed", "capped", "eos_open", "no_think", "forced"]))
    parts = {"closed": "<think>{}</think>{}", "no_think": "{}{}"}.get(kind, "<think>{}")
    ids = tokens(before if kind == "no_think" else "") + tokens(parts.format(thought, after))
    forced = len(ids) if kind == "forced" else None
    if kind == "forced":
        ids += tokens(f"\n</think>{FORCED_QUESTION}{after}")
    if kind in ("closed", "eos_open", "no_think"):
        ids += [TOKENIZER.eos_token_id]
    finish = "length" if kind in ("capped", "forced") else "stop"
    drawn = len(ids) if forced is None else forced
    found = read((), ids, READER.marks, drawn, finish)
    return replace(
        record("q", response=READER.decode(ids)),
        token_ids=tuple(ids),
        status=found.status,
        thinking_tokens=found.tokens,
        response_tokens=len(ids),
        finish_reason=finish,
        forced_at=forced,
    )


@always
@given(responses())
def test_characters_and_tokens_of_a_response_are_of_each_other(one):
    spans = token_spans(one, READER)
    assert len(spans) == len(one.token_ids) and all(0 <= a <= b <= len(one.response) for a, b in spans)
    assert all(first[0] <= second[0] and first[1] <= second[1] for first, second in pairwise(spans))
    assert all(any(a <= place < b for a, b in spans) for place in range(len(one.response)))
    begin, end = thinking_text(one, READER)
    if one.status == "no_think":
        assert (begin, end) == (0, len(one.response))
        return
    after = one.response.partition("<think>")[2]
    thought = after.partition("</think>")[0] if one.status in ("closed", "empty") else one.response[begin:end]
    assert one.response[begin:end] == thought and one.response[:begin].endswith("<think>")
    if one.status == "capped" and one.forced_at is None:
        assert end == len(one.response)
    if one.forced_at is not None:
        assert one.response[end:].startswith("\n</think>") or one.response[:end].endswith("\n")


@always
@given(responses(), st.data())
def test_pieces_of_the_thinking_are_found_where_they_are_whatever_their_labels(one, data):
    begin, end = thinking_text(one, READER)
    text = one.response[begin:end]
    edges = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=6), "edges") | {0, len(text)})
    pieces = [(data.draw(st.sampled_from(LABELS)), *span) for span in pairwise(edges)]
    found = annotate(one, READER, render(text, pieces))
    expected = []
    for label, start, stop in pieces:
        piece = text[start:stop]
        if piece.strip():
            lead = len(piece) - len(piece.lstrip())
            expected.append((label, begin + start + lead, begin + start + len(piece.rstrip())))
    assert [(section.label, section.start, section.end) for section in found.sections] == expected
    assert found.unmatched == () and found.uncovered == 0
    spans = passage(one, found, READER).spans
    assert all(first.end <= second.start for first, second in pairwise(spans))
    assert all(0 < span.start < span.end <= len(READER.encode(one.prompt)) + len(one.token_ids) for span in spans)


@always
@given(texts | st.text(max_size=60), texts)
def test_keywords_cover_all_of_the_thinking_in_order_but_for_white_space(thinking, question):
    sections = annotate_text(thinking, question)
    assert all(label in LABELS for label, _, _ in sections)
    edges = [0, *(edge for _, *span in sections for edge in span), len(thinking)]
    assert edges == sorted(edges) and all(start < stop for _, start, stop in sections)
    assert not any(thinking[a:b].strip() for a, b in zip(edges[::2], edges[1::2], strict=True))


@few
@given(st.lists(responses(), min_size=1, max_size=4), st.sampled_from(["corrected", "code", "easysteer"]))
def test_thoughts_lie_one_after_the_other_between_blank_lines_inside_the_thinking(found, keywords):
    numbered = [replace(one, id=str(index)) for index, one in enumerate(found)]
    inside = {one.id: READER.inside(one) for one in numbered}
    for one in METHODS["seal"].passages(numbered, ThoughtRule(keywords), READER):
        ids, where = inside[one.id]
        assert one.ids == ids
        edges = [where.start, *(edge for span in one.spans for edge in (span.start, span.end)), where.stop]
        assert edges == sorted(edges) and all(span.start < span.end for span in one.spans)
        assert all("\n\n" in READER.decode(ids[span.start - 1 : span.start]) for span in one.spans)
        assert not any("\n\n" in READER.decode([token]) for span in one.spans for token in ids[span.start : span.end])


@few
@given(st.lists(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 9)), max_size=5), min_size=1, max_size=4))
def test_what_labels_cover_adds_up(drawn):
    labelled = []
    for index, parts in enumerate(drawn):
        ends = np.cumsum([0, *(length for _, length in parts)]).tolist()
        spans = [Span(label, a, b) for (label, _), a, b in zip(parts, ends, ends[1:], strict=False)]
        labelled.append(Labelled(record(str(index)), tuple(range(ends[-1])), tuple(spans)))
    found = {one.label: one for one in usages(labelled, ["a", "b"]) if one.by == "all"}
    total = sum(length for parts in drawn for _, length in parts)
    assert sum(one.tokens.value for one in found.values()) * len(drawn) == pytest.approx(total)
    assert sum(one.spans.value for one in found.values()) * len(drawn) == pytest.approx(sum(map(len, drawn)))
    if total:
        assert sum(one.share.value for one in found.values()) == pytest.approx(1)


chains = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 5)), max_size=40).map(
    lambda pairs: [Chain((), asked, 0, length) for length, asked in pairs]
)


@always
@given(chains, st.integers(1, 40), st.integers(1, 40), st.integers(1, 4))
def test_thresholds_part_the_chains_and_their_cure_cures(found, above, below, enough):
    if below > above + 1:
        with pytest.raises(InputError, match="both, long and short"):
            LengthRule(above, below)
        return
    rule = LengthRule(above, below)
    for chain, label in zip(found, rule.labels(found), strict=True):
        assert label == ("long" if chain.length > above else "short" if chain.length < below else None)
    assert read_rule(rule_text(rule)) == rule
    said = rule.cure(found, enough)
    if "would give" in said:
        cured = LengthRule(*(float(word) for word in said.split() if word.isdecimal())).labels(found)
        assert min(cured.count("long"), cured.count("short")) >= enough
    else:
        lengths = sorted(chain.length for chain in found)
        assert not any(
            min(sum(length > at for length in lengths), sum(length < at + 1 for length in lengths)) >= enough
            for at in range(41)
        )


@always
@given(chains, st.integers(1, 50), st.sampled_from([None, "prompt_tokens"]), st.randoms(use_true_random=False))
def test_shares_are_of_one_size_apart_and_of_no_order(found, percent, match, random):
    rule = QuantileRule(percent / 100, match)
    labels = rule.labels(found)
    assert labels.count("long") == labels.count("short") <= len(found) * percent / 100 + 1e-9
    assert read_rule(rule_text(rule)) == rule
    of = {
        wanted: [one.length for one, label in zip(found, labels, strict=True) if label == wanted]
        for wanted in ("long", "short", None)
    }
    if match is None and of["long"]:
        assert max(of["short"]) < min(of["long"])
        assert not of[None] or max(of["short"]) <= min(of[None]) <= max(of[None]) <= min(of["long"])
    shuffled = random.sample(found, len(found))
    again = zip(shuffled, rule.labels(shuffled), strict=True)
    assert Counter((one.length, label) for one, label in again) == Counter(
        (one.length, label) for one, label in zip(found, labels, strict=True)
    )
    shares = (replace(rule, share=one / 100) for one in range(1, 51))
    least = next((one.share for one in shares if one.labels(found).count("long") >= 2), None)
    assert rule.cure(found, 2).startswith("no share" if least is None else f"share {least:g} would give")


any_text = st.text(max_size=80) | st.text("0123456789.,/\\{}()[]$%^_=:+- abxeEdcmfrac", max_size=60)
KINDS = ["math", "choice", "letter", "code", "open"]


@settings(always, max_examples=400)
@given(any_text, any_text, st.sampled_from(KINDS))
def test_reading_and_comparing_answers_takes_any_text(text, other, kind):
    found = grading.extract(text, kind)
    assert found is None or (isinstance(found, str) and found != "")
    if kind == "open":
        assert found is None
    if kind in ("math", "choice", "letter"):
        verdict = grading.decide(text, other, kind)
        assert verdict in (True, False, None)
        assert kind != "math" or "%" in text + other or verdict == decide(other, text)
        assert kind != "math" or decide(text, text) is bool(clean(text))


balanced = st.recursive(
    st.text(st.characters(exclude_characters="{}\\", codec="utf-8"), max_size=8),
    lambda inner: st.lists(inner | inner.map(lambda text: "{" + text + "}"), max_size=3).map("".join),
    max_leaves=5,
)


@always
@given(texts, balanced, texts)
def test_a_boxed_answer_is_read_as_it_was_boxed(before, answer, after):
    assume(answer.strip() and "\\boxed" not in answer)
    text = f"<think>{before}</think>{before}\\boxed{{{answer}}}{after}"
    assert grading.extract(text) == answer.strip()
    assert grading.extract(f"\\boxed{{{grading.extract(text)}}}") == answer.strip()
    assert grading.extract(f"<think>\\boxed{{1}}</think>{text}") == answer.strip()


numbers = st.fractions(-10_000, 10_000, max_denominator=400)


def spellings(value: Fraction) -> list[str]:
    """A number as people and models write it."""
    sign, whole = "-" if value < 0 else "", abs(value)
    top, bottom = whole.numerator, whole.denominator
    found = [f"{sign}\\frac{{{top}}}{{{bottom}}}", f"${sign}{top}/{bottom}$", f"{sign}\\dfrac{{{top}}}{{{bottom}}}"]
    if bottom == 1:
        found += [
            f"{value}",
            f"{value}.0",
            f"x = {value}",
            f" {value}. ",
            f"\\({value}\\)",
            f"\\text{{{int(value):,}}}",
        ]
        found += [f"{int(value):,}", f"{int(value):,}".replace(",", "{,}"), f"{int(value):,}".replace(",", "\\,")]
    elif top > bottom:
        found += [
            f"{sign}{top // bottom}\\frac{{{top % bottom}}}{{{bottom}}}",
            f"{sign}{top // bottom} {top % bottom}/{bottom}",
        ]
    if 64 % bottom == 0:
        found += [f"{float(value)!r}", f"{float(value):.6f}", f"{float(value):.6f}".replace("-", "−")]
    return found


@always
@given(numbers, numbers | st.sampled_from([Fraction(1, 10**4), Fraction(-1, 10**9)]), st.data())
def test_numbers_are_equal_however_they_are_written_and_only_then(one, other, data):
    other = other if other.denominator <= 400 else one + other  # as near as rounding would take for the same
    first, second, third = (data.draw(st.sampled_from(spellings(value))) for value in (one, one, other))
    assert decide(first, second) is decide(second, first) is True
    assert decide(first, third) is decide(third, first) is (one == other)


ANSWERS = [
    "5",
    "-1,000",
    "\\frac12",
    "3\\frac{1}{2}",
    "x = 5",
    "(1, 2)",
    "[1,\\infty)",
    "\\{1,2\\}",
    "5 cm",
    "50\\%",
    "yes",
]
ANSWERS += [
    "\\text{Evelyn}",
    "2√3",
    "2\\sqrt{3}",
    "π/2",
    "10:30 \\text{ p.m.}",
    "101_2",
    "$5",
    "90^\\circ",
    "B",
    "x^2+1",
]
AROUND = [
    "{}",
    "${}$",
    "\\({}\\)",
    "$${}$$",
    " {} ",
    "{}.",
    "{{{}}}",
    "\\left{}\\right",
    "{}\\,",
    "~{}",
    "\\displaystyle {}",
]
written = st.builds(lambda answer, around: around.format(answer), st.sampled_from(ANSWERS), st.sampled_from(AROUND))


@few
@given(written, written)
def test_what_stands_around_an_answer_changes_nothing_and_is_taken_away_at_once(one, other):
    assert clean(clean(one)) == clean(one) != ""
    assert decide(one, other) == decide(clean(one), other) == decide(one, clean(other))
    assert decide(one, one) is True
