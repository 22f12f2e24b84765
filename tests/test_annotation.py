"""Annotated text against what was annotated: where pieces lie, in characters and in tokens."""

import random
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from synthetic import marks_of, record
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from thinksteer import thinking
from thinksteer.annotation import (
    LABELS,
    Section,
    annotate,
    locate,
    parse,
    passage,
    render,
    solid,
    thinking_text,
    token_spans,
)
from thinksteer.models import load_tokenizer, resolve
from thinksteer.records import InputError
from thinksteer.thinking import TEMPLATES, Reader

REF = resolve("tiny-reasoner", Path("artifacts"))
TOKENIZER = load_tokenizer(REF)
READER = Reader.of(REF.template, TOKENIZER)
NO_MARKS = marks_of((), "<think>", "</think>")  # of tokens whose texts hold none


def metaspace():
    """A tokenizer that, as SentencePiece's, drops the space before a text's first word when it decodes."""
    words = ["▁Wait", ",", "▁no", ".", "▁I", "▁see", "<0xE6>", "<0x97>", "<0xA5>", "▁", "<think>", "</think>", "\n"]
    vocabulary = {"<unk>": 0} | {word: index for index, word in enumerate(words, start=1)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer), vocabulary


def response(text, reader=READER, ids=None, eos=True, **changes):
    """A record with this response, as generated: its tokens, then EOS."""
    ids = TOKENIZER(text, add_special_tokens=False).input_ids if ids is None else ids
    ids = (*ids, TOKENIZER.eos_token_id) if eos else tuple(ids)
    asked = reader.encode(f"{REF.template.prompt('2+2?')}")
    found = thinking.read(asked, ids, reader.marks, len(ids), "stop")
    made = record("q1", response=text)
    changes = {"token_ids": ids, "status": found.status, "thinking_tokens": found.tokens} | changes
    return replace(made, prompt=REF.template.prompt("2+2?"), response_tokens=len(ids), **changes)


def thought(text):
    return response(f"<think>\n{text}\n</think>\n\n\\boxed{{4}}")


def found(one, annotated):
    """(label, text, text of its tokens) of each section."""
    annotation = annotate(one, READER, annotated)
    return [
        (part.label, one.response[part.start : part.end], READER.decode(one.token_ids[part.first : part.last]))
        for part in annotation.sections
    ]


def test_pieces_are_found_in_characters_and_in_tokens():
    one = thought("Monday: 4+9=13. So Tom has 13.\n\nWait, let me check.")
    annotated = (
        '["deduction"]Monday: 4+9=13. So Tom has 13.["end-section"]["uncertainty-estimation"]Wait, let me check.'
        '["end-section"]'
    )
    assert found(one, annotated) == [
        ("deduction", "Monday: 4+9=13. So Tom has 13.", "Monday: 4+9=13. So Tom has 13."),
        ("uncertainty-estimation", "Wait, let me check.", "Wait, let me check."),
    ]
    annotation = annotate(one, READER, annotated)
    assert (annotation.id, annotation.sample, annotation.annotated) == ("q1", 0, annotated)
    assert annotation.uncovered == 0 and annotation.unmatched == ()
    assert one.response.index("Wait") == annotation.sections[1].start


def test_a_token_belongs_to_the_section_that_has_its_first_character_that_is_no_space():
    """ " b" begins with a space that is between the sections; a token of spaces alone goes where its first one is."""
    one = replace(record("q1", response="a b  c", length=None), token_ids=(1, 2, 3, 4), status="no_think")
    text = {1: "a", 2: " b", 3: "  ", 4: "c"}
    reader = Reader(lambda _: (), lambda ids: "".join(text[id] for id in ids), list, NO_MARKS)
    sections = annotate(one, reader, '["x"]a["end-section"] ["y"]b  c["end-section"]').sections
    assert sections == (Section("x", 0, 1, 0, 1), Section("y", 2, 6, 1, 4))
    sections = annotate(one, reader, '["x"]a["end-section"] ["y"]b["end-section"]["z"]c["end-section"]').sections
    assert [(part.first, part.last) for part in sections] == [(0, 1), (1, 2), (3, 4)]


def test_a_section_within_a_token_that_began_before_it_has_no_token():
    one = replace(record("q1", response="ab", length=None), token_ids=(1,), status="no_think")
    reader = Reader(lambda _: (), lambda ids: "ab" * len(ids), list, NO_MARKS)
    first, second = annotate(one, reader, '["x"]a["end-section"]["y"]b["end-section"]').sections
    assert (first.first, first.last) == (0, 1) and second.first == second.last


def test_a_passage_has_the_sections_as_spans_of_prompt_and_response():
    one = thought("Monday: 4+9=13. Yes.")
    bare = Section("x", 9, 9, 3, 3)
    made = annotate(one, READER, '["deduction"]Monday: 4+9=13.["end-section"]["y"]Yes.["end-section"]')
    found = passage(one, replace(made, sections=(*made.sections, bare)), READER)
    assert (found.id, found.sample) == ("q1", 0) and found.ids == READER.encode(one.prompt) + one.token_ids
    texts = [(span.label, READER.decode(found.ids[span.start : span.end]).strip()) for span in found.spans]
    assert texts == [("deduction", "Monday: 4+9=13."), ("y", "Yes.")]


def test_repeated_sentences_go_to_their_own_places():
    one = thought("So 4. Wait, so 4. So 4. Yes. So 4.")
    pieces = [("deduction", "So 4."), ("backtracking", "Wait, so 4."), ("deduction", "So 4. Yes."), ("x", "So 4.")]
    annotated = "".join(f'["{label}"]{text}["end-section"]' for label, text in pieces)
    annotation = annotate(one, READER, annotated)
    starts = [part.start - len("<think>\n") for part in annotation.sections]
    assert starts == [0, 6, 18, 29] and annotation.uncovered == 0


@pytest.mark.parametrize(
    "annotated, pieces",
    [
        ('["deduction"]a["end-section"]', [("deduction", "a")]),
        ("[deduction]a[end-section]", [("deduction", "a")]),
        ("[Deduction]a[END-SECTION]b", [("deduction", "a")]),
        ("['deduction']a['end-section']", [("deduction", "a")]),
        ("[“Adding_Knowledge”]a[”end-section“]", [("adding-knowledge", "a")]),  # the six, however they are written
        ('["summing-up_2"]a["end-section"]', [("summing-up_2", "a")]),  # an invented label, kept as it is
        ('["deduction"]a["backtracking"]b["end-section"]', [("deduction", "a"), ("backtracking", "b")]),  # no end
        ('["deduction"]a["x"]b["end-section"]c["end-section"]', [("deduction", "a"), ("x", "b")]),  # nested
        ('Here it is: ["deduction"]a["end-section"] and ["x"]b', [("deduction", "a"), ("x", "b")]),
        ('["deduction"]see [1] and [x] and a[i]["end-section"]', [("deduction", "see [1] and [x] and a[i]")]),
        ('["deduction"] ["end-section"]["x"]["end-section"]', []),
        ("no marks at all", []),
        ("", []),
    ],
)
def test_marks_are_read_however_an_annotator_writes_them(annotated, pieces):
    assert parse(annotated) == pieces


def test_brackets_that_the_thinking_has_itself_are_no_marks():
    text = 'keys = ["name"] so far'
    assert parse(render(text, [("deduction", 0, len(text))]), text) == [("deduction", text)]
    assert [label for label, _ in parse(f'["deduction"]{text}["end-section"]')] == ["deduction", "name"]


def test_what_is_not_in_the_thinking_is_told_and_moves_nothing():
    one = thought("One. Two. Three.")
    annotated = '["a"]One.["end-section"]["b"]Never.["end-section"]["c"]Two.["end-section"]["d"]boxed["end-section"]'
    annotation = annotate(one, READER, annotated)
    assert [part.label for part in annotation.sections] == ["a", "c"]
    assert annotation.unmatched == ("b: Never.", "d: boxed")  # the answer is not thinking
    assert annotation.uncovered == solid("Three.")


def test_a_made_up_piece_whose_text_comes_much_later_is_left_out_and_not_the_pieces_between():
    text = "Add them. Then halve it. Then check. Halve again. Done: 4."
    pieces = ["Add them.", "Done: 4.", "Then halve it.", "Then check.", "Halve again."]
    assert [place is None for place in locate(text, pieces)] == [False, True, False, False, False]


def test_the_more_of_the_text_is_covered_the_better_whatever_the_number_of_pieces():
    assert locate("x. y. One two three.", ["One two three.", "x.", "y."]) == [(6, 20), None, None]


def test_annotated_text_without_its_marks_is_the_text():
    assert render("a b\nc d", [("x", 2, 5), ("y", 6, 7)]) == 'a ["x"]b\nc["end-section"] ["y"]d["end-section"]'


def test_a_piece_given_twice_has_the_first_label():
    assert locate("a b", ["a", "a", "b"]) == [(0, 1), None, (2, 3)]


def test_white_space_may_differ():
    assert locate("One\n\ntwo  three.\tFour", ["One two", " three. Four\n"]) == [(0, 8), (10, 21)]


def test_pieces_that_are_cut_within_words_follow_each_other():
    assert locate("1+1=2, 1+1=2", ["1+1", "=2, 1", "+1=2"]) == [(0, 3), (3, 8), (8, 12)]


def test_text_with_any_characters_keeps_its_places():
    one = thought("Say naïve 日本語 🙂. Ja – 1×2 🙂🙂! é")
    annotated = (
        '["deduction"]Say naïve 日本語 🙂.["end-section"] ["x"]Ja – 1×2 🙂🙂!["end-section"] ["y"]é["end-section"]'
    )
    assert [text for _, text, _ in found(one, annotated)] == ["Say naïve 日本語 🙂.", "Ja – 1×2 🙂🙂!", "é"]
    assert [tokens.strip() for _, _, tokens in found(one, annotated)] == ["Say naïve 日本語 🙂.", "Ja – 1×2 🙂🙂!", "é"]


def test_the_parts_of_a_character_begin_where_it_begins():
    one = response("é日🙂x", eos=True, status="no_think", thinking_tokens=None)
    spans = token_spans(one, READER)
    assert [start for start, _ in spans] == [0] * 2 + [1] * 3 + [2] * 4 + [3, 4]  # two, three and four bytes, x, EOS


def test_a_token_with_the_end_of_one_character_and_the_start_of_another_begins_in_the_first():
    parts = {1: b"a\xe6", 2: b"\x97\xa5\xe6", 3: b"\x9c\xac", 4: b"!"}  # a日本!
    one = replace(record("q1", response="a日本!", length=None), token_ids=(1, 2, 3, 4), status="no_think")
    reader = Reader(
        lambda _: (), lambda ids: b"".join(parts[id] for id in ids).decode(errors="replace"), list, NO_MARKS
    )
    assert [start for start, _ in token_spans(one, reader)] == [0, 1, 2, 3]


def test_bytes_that_are_no_character_are_a_text_of_their_own():
    ids = [TOKENIZER("日", add_special_tokens=False).input_ids[0], TOKENIZER("x").input_ids[0]]
    text = READER.decode(ids)
    one = response(text, ids=ids)
    assert text == "\ufffdx" and [start for start, _ in token_spans(one, READER)] == [0, 1, 2]


def test_a_tokenizer_that_drops_a_first_space_has_its_characters_too():
    tokenizer, vocabulary = metaspace()
    words = ["▁Wait", ",", "▁no", ".", "▁", "<0xE6>", "<0x97>", "<0xA5>", "▁I", "▁see", "."]
    ids = tuple(vocabulary[word] for word in words)
    decode = partial(tokenizer.decode, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    assert decode(ids) == "Wait, no. 日 I see." and decode(ids[2:3]) == "no"
    one = replace(record("q1", response=decode(ids), length=None), token_ids=ids, status="no_think")
    reader = Reader(lambda _: (), decode, list, NO_MARKS)
    assert [start for start, _ in token_spans(one, reader)] == [0, 4, 5, 8, 9, 10, 10, 10, 11, 13, 17]
    part = annotate(one, reader, '["x"]I see.["end-section"]').sections[0]
    assert (part.first, part.last) == (8, 11)


def test_tokens_of_another_tokenizer_are_refused():
    one = replace(thought("One."), response="<think>\nTwo.\n</think>")
    with pytest.raises(InputError, match=r"q1 sample 0: from character 8 on .*another tokenizer"):
        token_spans(one, READER)


@pytest.mark.parametrize(
    "text, thinks",
    [
        ("<think>\nOne.\n</think>\n\nFour", "\nOne.\n"),
        ("<think></think>\n\nFour", ""),
        ("Well. <think>One.", "One."),  # never closed
        ("Just four.", "Just four."),  # never begun: all of it
    ],
)
def test_the_thinking_is_what_is_between_its_delimiters(text, thinks):
    one = response(text)
    start, end = thinking_text(one, READER)
    assert one.response[start:end] == thinks
    empty = annotate(one, READER, "")
    assert empty.sections == () and empty.uncovered == solid(thinks)


def test_a_forced_answer_is_no_thinking():
    text = "<think>\nOne. Two\n</think>\n\nSo. 4"
    ids = TOKENIZER(text, add_special_tokens=False).input_ids
    cut = ids.index(TOKENIZER.convert_tokens_to_ids("</think>"))
    one = response(
        text, ids=ids, eos=False, status="capped", thinking_tokens=None, forced_at=cut, finish_reason="length"
    )
    start, end = thinking_text(one, READER)
    assert one.response[start:end] == "\nOne. Two\n"


def test_thinking_that_the_prompt_opened_begins_with_the_response():
    template = TEMPLATES["qwq"]
    text = "One.\n</think>\n\nFour"
    ids = tuple(TOKENIZER(text, add_special_tokens=False).input_ids)
    prompt = template.prompt("2+2?")
    read = thinking.read(READER.encode(prompt), ids, READER.marks, len(ids), "length")
    one = replace(record("q1", response=text), prompt=prompt, token_ids=ids, thinking_tokens=read.tokens)
    one = replace(one, finish_reason="length")
    assert text[slice(*thinking_text(one, READER))] == "One.\n"


WORDS = ["So", "4.", "Wait,", "é日", "🙂", "[1]", '"x"', "\n\n", "Yes.", "So 4.", "\\boxed{4}", "["]


@pytest.mark.parametrize("seed", range(60))
def test_whatever_is_annotated_is_read_back_as_it_was(seed):
    """Any text cut into sections of any labels at any places, with gaps: parts that hold a letter come back."""
    rng = random.Random(seed)
    text = " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, 40)))
    cuts = sorted(rng.sample(range(len(text) + 1), min(len(text), rng.randint(2, 12))))
    labels = [*LABELS, "other_1", "none"]
    pieces = [(rng.choice(labels), start, end) for start, end in pairwise(cuts)]
    pieces = [(label, start, end) for label, start, end in pieces if text[start:end].strip()]
    annotated = render(text, pieces)
    read = parse(annotated, text)
    assert read == [(label, text[start:end]) for label, start, end in pieces]
    trimmed = [
        (start + len(text[start:end]) - len(text[start:end].lstrip()), start + len(text[start:end].rstrip()))
        for _, start, end in pieces
    ]
    places = locate(text, [piece for _, piece in read])
    assert None not in places
    assert sum(solid(text[slice(*place)]) for place in places) == sum(solid(text[slice(*one)]) for one in trimmed)
    assert places == sorted(places) and all(a[1] <= b[0] for a, b in pairwise(places))
    if solid(text[: cuts[0]]) == solid(text[cuts[-1] :]) == 0:
        assert places == trimmed  # nothing is left out, so there is but one way
    for (_, piece), place in zip(read, places, strict=True):
        assert "".join(text[slice(*place)].split()) == "".join(piece.split())
