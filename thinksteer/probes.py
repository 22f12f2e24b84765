"""Where a vector's effect on the answer is measured: where the response begins, and where its answer does."""

import re
from collections.abc import Sequence
from typing import Any

from thinksteer.annotation import token_spans
from thinksteer.records import InputError, Passage, Record, Span
from thinksteer.thinking import Reader

BEGINNING, ANSWER = "response", "answer"
"""What begins after the token at which the effect is measured."""

_BEFORE = re.compile(r"\\boxed\s*\{\s*|answer is:?\s*\(?")


def by_level(records: Sequence[Record], rule: Any, reader: Reader) -> list[Passage]:
    """Two spans of each record whose question is of a kind (`level`): the first token of its response, and that of the
    answer which was read in it, if there is one. Labels are "<kind>, response" and "<kind>, answer".

    InputError: no question is of a kind; further as for `Reader.read` and `token_spans`.
    """
    found = []
    for record in records:
        if record.level is not None:
            ids, _ = reader.read(record)
            start = len(ids) - len(record.token_ids)
            spans = [Span(f"{record.level}, {BEGINNING}", start, start + 1)]
            place = answer_place(record)
            if place is not None:
                first = next(i for i, (_, end) in enumerate(token_spans(record, reader)) if end > place)
                spans += [Span(f"{record.level}, {ANSWER}", start + first, start + first + 1)]
            found.append(Passage(record.id, ids, tuple(spans), record.sample))
    if not found:
        raise InputError(f"the questions of {len(records)} responses tell no level: there are no kinds to compare")
    return found


def answer_place(record: Record) -> int | None:
    r"""The character of a response at which its answer begins: after the last `\boxed{` or "answer is" that it follows
    (for a letter the first, as it was read); None where no answer was read, or it stands alone."""
    if record.prediction is None:
        return None
    marks = (mark.end() for mark in _BEFORE.finditer(record.response))
    places = [place for place in marks if record.response.startswith(record.prediction, place)]
    if not places:
        return None
    return places[0] if record.kind == "letter" else places[-1]
