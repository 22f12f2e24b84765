"""Rows of a local JSONL, JSON, CSV or Parquet file, each with the place that an error message can name."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from thinksteer.records import InputError


@dataclass(frozen=True)
class Row:
    """One row of a table: its number from 0, where it stands ("data.jsonl line 3"), and its values by column."""

    number: int
    place: str
    values: dict[str, object]


def read(file: Path) -> list[Row]:
    """All rows of the file; its suffix says what it is. InputError naming file and line if any of it is broken."""
    reader = READERS.get(file.suffix.lower())
    if reader is None:
        raise InputError(f"{file}: cannot tell its format; the name must end in one of {', '.join(READERS)}")
    if not file.is_file():
        raise InputError(f"{file}: no such file: correct the path")
    rows = [Row(number, place, values) for number, (place, values) in enumerate(reader(file))]
    if not rows:
        raise InputError(f"{file}: no rows in it: give one that has some")
    return rows


def _text(file: Path) -> str:
    return _decoded(file.read_bytes(), file, 1)


def _decoded(raw: bytes, file: Path, first_line: int) -> str:
    try:
        return raw.decode("utf-8-sig")  # spreadsheets put a byte order mark before the first column's name
    except UnicodeDecodeError as error:
        line = first_line + raw.count(b"\n", 0, error.start)
        raise InputError(f"{file} line {line}: not UTF-8 ({error.reason}); convert the file to UTF-8") from error


def _object(value: object, place: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise InputError(f"{place}: expected a JSON object with named columns, found {type(value).__name__}")
    return value


def _parsed(text: str, place: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        within = f" line {error.lineno}" if "\n" in text.strip() else ""
        said = f"{error.msg} at column {error.colno}"
        raise InputError(f"{place}{within}: broken JSON ({said}): mend it, one object for each row") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or brackets as deep
        raise InputError(f"{place}: broken JSON ({error}): mend it") from error


def _jsonl(file: Path) -> Iterator[tuple[str, dict[str, object]]]:
    # Line by line, since files have gigabytes; of bytes, since text also ends lines at U+2028, which JSON may hold.
    with file.open("rb") as lines:
        for number, raw in enumerate(lines, start=1):
            line = _decoded(raw, file, number)
            if not line.strip():
                continue
            place = f"{file} line {number}"
            yield place, _object(_parsed(line, place), place)


def _json(file: Path) -> Iterator[tuple[str, dict[str, object]]]:
    items = _parsed(_text(file), str(file))
    if not isinstance(items, list):
        raise InputError(f"{file}: expected a JSON list of objects, found {type(items).__name__}")
    for number, item in enumerate(items, start=1):
        place = f"{file} item {number}"
        yield place, _object(item, place)


def _csv(file: Path) -> Iterator[tuple[str, dict[str, object]]]:
    reader = csv.DictReader(io.StringIO(_text(file), newline=""), strict=True)
    while True:
        try:
            values = next(reader, None)
        except csv.Error as error:
            raise InputError(f"{file} line {reader.reader.line_num}: broken CSV ({error}): close its quotes") from error
        if values is None:
            return
        place = f"{file} line {reader.line_num}"
        if None in values or None in values.values():  # DictReader's marks of too many and too few fields
            raise InputError(
                f"{place}: not as many fields as the header has columns ({len(reader.fieldnames or ())}): quote commas"
            )
        yield place, dict(values)


def _parquet(file: Path) -> Iterator[tuple[str, dict[str, object]]]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(file).to_pylist()
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: not a Parquet file ({error}): write it again") from error
    for number, values in enumerate(table, start=1):
        yield f"{file} row {number}", values


READERS: dict[str, Callable[[Path], Iterator[tuple[str, dict[str, object]]]]] = {
    ".jsonl": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
}
