"""Annotations files: where they lie, and how they are read and written. A line is an `Annotation` as JSON."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Self

from thinksteer import store
from thinksteer.annotation import Annotation, Section
from thinksteer.files import claim, sync
from thinksteer.records import InputError

Key = tuple[str, int]
"""(id, sample) of a response."""


def annotations_path(root: Path, records: Path, annotator: str) -> Path:
    """`<root>/<rel>.jsonl` -> `<root>/annotations/<annotator>/<rel>.jsonl`. InputError if `records` is not under it."""
    if not records.resolve().is_relative_to(root.resolve()):
        raise InputError(f"{records} is not under --artifacts {root}: annotations mirror the files there")
    return root / "annotations" / store.slug(annotator) / records.resolve().relative_to(root.resolve())


def agreement_path(root: Path, first: str, second: str, model: str, dataset: str) -> Path:
    name = "-".join(store.slug(annotator) for annotator in (first, second))
    return root / "annotations" / f"{name}.{store.slug(model)}.{store.slug(dataset)}.agreement.json"


def read_annotations(path: Path, records: Path | None = None) -> dict[Key, Annotation]:
    """All annotations of a file by (id, sample); a torn last line is left out.

    With `records`, the file they were made from: InputError if they are unfinished, or if it is not the same any more.
    InputError also if the file is missing, if a line is no annotation, or if one (id, sample) occurs twice.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing: make it with scripts.annotate")
    if records is not None:
        manifest = store.manifest_path(path)
        facts = store.read_json(manifest) if manifest.exists() else {"finished": None}
        if facts["finished"] is None:
            raise InputError(f"{path} is not finished: run scripts.annotate again, it goes on")
        if not {store.sha256(part) for part in store.record_files(records)} <= set(facts["inputs"].values()):
            raise InputError(f"{path} was made from other responses than {records} holds now: --overwrite it")
    with open(path, "rb") as file:
        return {key: annotation for key, annotation, _ in _parse(file, path)}


class AnnotationLog:
    """The annotations file being written: `with AnnotationLog(path) as log`, `log.done`, `log.append(annotation)`.

    As `journal.RecordLog`: a last line torn by a kill is cut off, any other fault is an InputError naming file and
    line, and only one process at a time may hold the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.done: set[Key] = set()  # of every whole line in the file

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self.path, "a+b", buffering=0)  # O_APPEND
        try:
            claim(self._file, self.path)
            whole = 0  # bytes
            with open(self.path, "rb") as existing:
                for key, _, end in _parse(existing, self.path):
                    self.done.add(key)
                    whole = end
            self._file.truncate(whole)
            sync(self.path.parent)
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        os.fsync(self._file.fileno())
        self._file.close()

    def append(self, annotation: Annotation) -> None:
        """Write one line. ValueError if its (id, sample) is in the file already."""
        key = (annotation.id, annotation.sample)
        if key in self.done:
            raise ValueError(f"{self.path}: annotation {key} is there already")
        line = (json.dumps(asdict(annotation), ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
        written = self._file.write(line)
        while written < len(line):  # only on a full disk, where the next write raises
            written += self._file.write(line[written:])
        self.done.add(key)


def _parse(file: IO[bytes], path: Path) -> Iterator[tuple[Key, Annotation, int]]:
    """Each annotation with its key and the position in bytes just after its line."""
    seen: set[Key] = set()
    end = 0
    for number, line in enumerate(file, start=1):
        if not line.endswith(b"\n"):
            return
        end += len(line)
        try:
            annotation = _decode(line)
        except (ValueError, TypeError) as error:
            raise InputError(f"{path}:{number}: no annotation ({error}): remove the line, it is then redone") from None
        key = (annotation.id, annotation.sample)
        if key in seen:
            raise InputError(
                f"{path}:{number}: id {key[0]!r} sample {key[1]} occurs twice: remove one of the two lines"
            )
        seen.add(key)
        yield key, annotation, end


def _decode(line: bytes) -> Annotation:
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
