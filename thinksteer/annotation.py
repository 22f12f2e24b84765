"""Labelled pieces of responses: the annotators' format, and the characters and tokens that their pieces are.

The six labels and the format `["label"]text["end-section"]` are those of Venhoff et al. 2025 (arXiv 2506.18167).
Upstream looks for each piece's text from the response's beginning, so that repeated sentences all land on the first,
skips what it cannot find, and tokenises the text again; here pieces keep their order, what is not found is told, and
the tokens are those that were generated.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from thinksteer.records import InputError, Passage, Record, Span
from thinksteer.thinking import Reader

LABELS = ("initializing", "deduction", "adding-knowledge", "example-testing", "uncertainty-estimation", "backtracking")
END = "end-section"
BROKEN = "\ufffd"  # what part of a character decodes to

_QUOTES = "\"'`“”‘’"
_MARK = re.compile(rf"\[\s*[{_QUOTES}]([\w-]+)[{_QUOTES}]\s*\]|\[\s*({'|'.join((*LABELS, END))})\s*\]", re.IGNORECASE)


@dataclass(frozen=True)
class Section:
    """A labelled piece of a response: its characters [start, end), and the positions [first, last) in
    `record.token_ids` of the tokens that belong to it (none if no token begins in it)."""

    label: str
    start: int
    end: int
    first: int
    last: int


@dataclass(frozen=True)
class Annotation:
    """What an annotator made of one response; the field names are the JSON keys of an annotations file.

    `annotated` is its own output, unchanged. `sections` are in the order of the text and do not overlap. `unmatched`:
    the pieces that the thinking does not have at their place, as "label: text". `uncovered`: the characters of the
    thinking, white space aside, that no section covers.
    """

    id: str
    sample: int
    annotated: str
    sections: tuple[Section, ...]
    unmatched: tuple[str, ...]
    uncovered: int


def annotate(record: Record, reader: Reader, annotated: str) -> Annotation:
    """Read an annotator's output. InputError as for `Reader.read` and `token_spans`."""
    spans = token_spans(record, reader)
    begin, end = _thinking(record, reader, spans)
    text = record.response[begin:end]
    pieces = parse(annotated, text)
    places = locate(text, [piece for _, piece in pieces])
    keys = [_key(record.response, *span) for span in spans]
    sections, unmatched = [], []
    for (label, piece), place in zip(pieces, places, strict=True):
        if place is None:
            unmatched.append(f"{label}: {piece.strip()}")
        else:
            start, stop = begin + place[0], begin + place[1]
            sections.append(Section(label, start, stop, bisect_left(keys, start), bisect_left(keys, stop)))
    covered = sum(solid(record.response[one.start : one.end]) for one in sections)
    return Annotation(record.id, record.sample, annotated, tuple(sections), tuple(unmatched), solid(text) - covered)


def passage(record: Record, annotation: Annotation, reader: Reader) -> Passage:
    """A record's prompt and response with its sections as spans, those without a token left out. InputError: the record
    was kept as text, and its sections are positions in tokens that it does not have."""
    if annotation.sections and not record.token_ids:
        raise InputError(
            f"{record.id} sample {record.sample} has text but no token ids: import it again with --model, and annotate "
            "that"
        )
    prompt = reader.prompt(record)
    spans = (Span(one.label, len(prompt) + one.first, len(prompt) + one.last) for one in annotation.sections)
    return Passage(
        record.id, prompt + record.token_ids, tuple(span for span in spans if span.start < span.end), record.sample
    )


def thinking_text(record: Record, reader: Reader) -> tuple[int, int]:
    """The characters [start, end) of the response between the thinking's delimiters; of a response that never thinks
    (a base model's) all. InputError as for `Reader.read` and `token_spans`."""
    return _thinking(record, reader, token_spans(record, reader))


def _thinking(record: Record, reader: Reader, spans: Sequence[tuple[int, int]]) -> tuple[int, int]:
    if not record.response:  # nor any token, where upstream left out what thought nothing
        return 0, 0
    ids, inside = reader.inside(record)
    if record.status == "no_think":
        return 0, len(record.response)
    prompt = len(ids) - len(record.token_ids)
    edges = [*(start for start, _ in spans), len(record.response)]
    return edges[max(0, inside.start - prompt)], edges[max(0, inside.stop - prompt)]


def token_spans(record: Record, reader: Reader) -> list[tuple[int, int]]:
    """The characters [start, end) of the response that each of its tokens has a part of; an EOS has none, at its end.

    Tokens may hold parts of characters, and a token's text may depend on the one before (leading spaces), so tokens
    are decoded after the ones before them until the text is the response's. InputError if it never is.
    """
    response = record.response
    alone = {token: reader.decode([token]) for token in set(record.token_ids)}
    spans: list[tuple[int, int]] = []
    before: tuple[int, ...] = ()
    group: tuple[int, ...] = ()  # the tokens from `at` on whose text is not yet whole
    at, text = 0, ""
    for token in record.token_ids:
        start, group = at + len(text.rstrip(BROKEN)), (*group, token)
        text = alone[token]
        if not text or not response.startswith(text, at):
            text = reader.decode(before + group)[len(reader.decode(before)) :]
        spans.append((min(start, len(response)), min(at + len(text), len(response))))
        if response.startswith(text, at):
            at, before, group, text = at + len(text), group, (), ""
    if at < len(response):
        raise InputError(
            f"{record.id} sample {record.sample}: from character {at} on its tokens are not its text "
            f"({response[at : at + 20]!r}): the response comes from another tokenizer, generate it anew"
        )
    return spans


def _key(response: str, start: int, end: int) -> int:
    """The character by which a token belongs to a section: its first that is not white space, else its first."""
    return next((place for place in range(start, end) if not response[place].isspace()), start)


def parse(annotated: str, text: str = "") -> list[tuple[str, str]]:
    """(label, text) of each piece of an annotator's output, white space around it included.

    A piece ends at the next mark, be it an end or another label; what lies outside pieces is left out. Labels beside
    the six are kept as they are, but only quoted ones are marks, and none that `text`, which was annotated, holds
    itself: `["x"]` may be code.
    """
    marks = []
    for mark in _MARK.finditer(annotated):
        name = mark[1] or mark[2]
        known = name.lower().replace("_", "-")
        if known in (*LABELS, END):
            marks.append((known, mark))
        elif mark[0] not in text:
            marks.append((name, mark))
    ends = [*(mark.start() for _, mark in marks), len(annotated)][1:]
    pieces = [(label, annotated[mark.end() : end]) for (label, mark), end in zip(marks, ends, strict=True)]
    return [(label, piece) for label, piece in pieces if label != END and piece.strip()]


def locate(text: str, pieces: Sequence[str]) -> list[tuple[int, int] | None]:
    """The characters [start, end) of `text` that each piece is, in order, without overlaps; None: at no place.

    White space counts for nothing. Of all ways to place the pieces, that which covers most characters; of those, the
    earliest. So a piece that the annotator made up is left out, even where its text happens to occur much later.
    """
    places = [place for place, letter in enumerate(text) if not letter.isspace()]
    solid_text = "".join(text[place] for place in places)
    pieces = ["".join(piece.split()) for piece in pieces]
    if "".join(pieces) == solid_text:  # a whole copy; looped chains of thought have a piece at thousands of places
        edges = pairwise(accumulate(map(len, pieces), initial=0))
        return [(places[start], places[end - 1] + 1) if start < end else None for start, end in edges]
    # The ways to place the pieces so far that are worth going on with: the more covered, the later they end.
    ends, covers, ways = [0], [0], [None]
    for index, piece in enumerate(pieces):
        found = []
        start = solid_text.find(piece) if piece else -1
        while start >= 0:
            way = bisect_left(ends, start + 1) - 1
            end, cover = start + len(piece), covers[way] + len(piece)
            if cover > covers[bisect_right(ends, end) - 1]:
                found.append((end, cover, (index, start, end, ways[way])))
            # Behind all earlier pieces, a later place covers no more.
            start = -1 if way == len(ends) - 1 else solid_text.find(piece, start + 1)
        merged = sorted([*zip(ends, covers, ways, strict=True), *found], key=lambda way: (way[0], -way[1]))
        ends, covers, ways = [], [], []
        for end, cover, way in merged:
            if not covers or cover > covers[-1]:
                ends.append(end), covers.append(cover), ways.append(way)
    located: list[tuple[int, int] | None] = [None] * len(pieces)
    way = ways[-1]
    while way is not None:
        index, start, end, way = way
        located[index] = places[start], places[end - 1] + 1
    return located


def render(text: str, pieces: Iterable[tuple[str, int, int]]) -> str:
    """The annotators' format of labelled pieces (label, start, end) of a text, with what lies between them."""
    out, done = [], 0
    for label, start, end in pieces:
        out.append(f'{text[done:start]}["{label}"]{text[start:end]}["{END}"]')
        done = end
    return "".join(out) + text[done:]


def solid(text: str) -> int:
    """The characters that are not white space."""
    return sum(not letter.isspace() for letter in text)
