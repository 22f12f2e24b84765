"""Annotations files: where they lie, and how they are read and written. A line is an `Annotation` as JSON."""

import json
from collections.abc import Collection
from dataclasses import asdict, replace
from pathlib import Path

from thinksteer import store
from thinksteer.annotation import Annotation, Section
from thinksteer.lines import LineLog, whole_lines
from thinksteer.records import InputError

Key = tuple[str, int]
"""(id, sample) of a response."""


def read_annotations(path: Path, records: Path | None = None) -> dict[Key, Annotation]:
    """All annotations of a file by (id, sample); a torn last line is left out.

    With `records`, the file they were made from: InputError if they are unfinished, or if it is not the same any more.
    InputError also if the file is missing, if a line is no annotation, or if one (id, sample) occurs twice.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing: make it with scripts.annotate")
    if records is not None:
        facts = store.manifest_of(path)
        if facts is None or facts["finished"] is None:
            raise InputError(f"{path} is not finished: run scripts.annotate again, it goes on")
        if not {store.sha256(part) for part in store.record_files(records)} <= set(facts["inputs"].values()):
            raise InputError(f"{path} was made from other responses than {records} holds now: --overwrite it")
    found: dict[Key, Annotation] = {}
    for place, line in whole_lines(path):
        annotation = _decode(line, place)
        _check_new(annotation, found, place)
        found[annotation.id, annotation.sample] = annotation
    return found


class AnnotationLog(LineLog):
    """The annotations file being written: `with AnnotationLog(path) as log`, `log.done`, `log.append(annotation)`."""

    sync_seconds = 1.0

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.done: set[Key] = set()  # of every whole line in the file

    def known(self, line: bytes, place: str) -> None:
        annotation = _decode(line, place)
        _check_new(annotation, self.done, place)
        self.done.add((annotation.id, annotation.sample))

    def append(self, annotation: Annotation) -> None:
        """Write one line. ValueError if its (id, sample) is in the file already."""
        key = (annotation.id, annotation.sample)
        if key in self.done:
            raise ValueError(f"{self.path}: annotation {key} is there already")
        self.write(asdict(annotation))
        self.done.add(key)


def _check_new(annotation: Annotation, done: Collection[Key], place: str) -> None:
    key = (annotation.id, annotation.sample)
    if key in done:
        raise InputError(f"{place}: id {key[0]!r} sample {key[1]} occurs twice: remove one of the two lines")


def _decode(line: bytes, place: str) -> Annotation:
    try:
        return _annotation(line)
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{place}: no annotation ({error}): remove the line, it is then redone") from None


def _annotation(line: bytes) -> Annotation:
    """ValueError or TypeError says what is wrong with the line."""
    annotation = Annotation(**json.loads(line))
    sections = tuple(Section(**section) for section in annotation.sections)
    annotation = replace(annotation, sections=sections, unmatched=tuple(annotation.unmatched))
    texts = [annotation.id, annotation.annotated, *annotation.unmatched, *(one.label for one in sections)]
    numbers = [annotation.sample, annotation.uncovered]
    numbers += [number for one in sections for number in (one.start, one.end, one.first, one.last)]
    if not all(type(one) is str for one in texts) or not all(type(one) is int for one in numbers):
        raise ValueError("a field has another type")
    return annotation
