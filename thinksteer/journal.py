"""Record files: JSON lines, one for each response, read across shards as one."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from thinksteer.lines import LineLog, whole_lines
from thinksteer.records import InputError, Record


def _fits(kind: Any) -> Callable[[Any], bool]:
    """Tells whether a JSON value is of a field's type; true and false are no integers."""
    origin, of = get_origin(kind), get_args(kind)
    if origin is Literal:
        return lambda value: type(value) is str and value in of
    if origin is tuple:
        return lambda value: type(value) is list and {*map(type, value)} <= {of[0]}
    return lambda value: type(value) in (of or (kind,))


HINTS = get_type_hints(Record)
FITS = {name: _fits(kind) for name, kind in HINTS.items()}  # of every field
OPTIONAL = {"prompt_ids": ()}  # which earlier records do not have
ROWS = msgspec.json.Decoder(
    msgspec.defstruct(
        "Row",
        [(name, kind, OPTIONAL[name]) if name in OPTIONAL else (name, kind) for name, kind in HINTS.items()],
        forbid_unknown_fields=True,
        gc=False,
    )
)
SHARD = re.compile(r"\.(\d+)-of-(\d+)")
ID_LISTS = ("token_ids", "prompt_ids")


class RecordLog(LineLog):
    """The record file being written: `with RecordLog(path) as log`, `log.done`, `log.append(record)`."""

    sync_seconds = 1.0

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.done: set[tuple[str, int]] = set()  # (id, sample) of every whole record in the file

    def known(self, line: bytes, place: str) -> None:
        _register(_decode(line, place), self.done, self.path)

    def append(self, record: Record) -> None:
        """Write one record. ValueError if its (id, sample) is in the file already."""
        key = (record.id, record.sample)
        if key in self.done:
            raise ValueError(f"{self.path}: record {key} is there already")
        self.write({name: getattr(record, name) for name in FITS})
        self.done.add(key)


def read_records(path: Path) -> list[Record]:
    """All records of a file, or of all its shards in order. InputError as for `iterate_records`."""
    return list(iterate_records(path))


def iterate_records(path: Path, token_ids: bool = True) -> Iterator[Record]:
    """The records of a file, or of all its shards in order, one in memory at a time; a torn last line is left out.

    Without `token_ids` they have none, which takes a third of the time: ids are most of the bytes.
    InputError if there is neither the file nor a complete set of shards, if a line is no record, or if one
    (id, sample) occurs twice.
    """
    seen: set[tuple[str, int]] = set()
    for part in record_files(path):
        for place, line in whole_lines(part):
            record = _decode(line if token_ids else _without_ids(line), place)
            _register(record, seen, part)
            yield record


class RecordFile(Sequence[Record]):
    """The records of a file, or of all its shards in order, without token ids. None stays in memory: each is read again
    whenever it is asked for. InputError as for `iterate_records`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def _places(self) -> list[tuple[Path, int]]:
        """The file and the byte at which each record begins."""
        found = []
        for part in record_files(self.path):
            at = 0
            for _, line in whole_lines(part):
                found.append((part, at))
                at += len(line)
        return found

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Record]:
        return iterate_records(self.path, token_ids=False)

    def __getitem__(self, row: int) -> Record:
        part, at = self._places[row]
        with open(part, "rb") as file:
            file.seek(at)
            return _decode(_without_ids(file.readline()), f"{part}, byte {at}")


def shard_path(path: Path, shard: tuple[int, int] | None) -> Path:
    """`<name>.<i>-of-<n>.jsonl` for shard (i, n), i from 0; the path itself for None."""
    return path if shard is None else path.with_name(f"{path.stem}.{shard[0]}-of-{shard[1]}{path.suffix}")


def record_files(path: Path) -> list[Path]:
    """The files that hold the records of `path`: itself, or its shards in order.

    InputError if there is nothing, if a shard is missing, or if the file and shards, or two splits, are mixed.
    """
    found = [part for part in path.parent.glob("*") if part.name.startswith(path.stem) and part.suffix == path.suffix]
    shards = {}
    for part in found:
        if match := SHARD.fullmatch(part.stem.removeprefix(path.stem)):
            shards[int(match[1]), int(match[2])] = part
    if not shards:
        if not path.is_file():
            raise InputError(f"{path} is missing: run the stage that writes it")
        return [path]
    counts = sorted({count for _, count in shards})
    if path.exists() or len(counts) > 1:
        splits = [path.name] * path.exists() + [f"shards of {count}" for count in counts]
        raise InputError(f"{path.parent}: {' and '.join(splits)} are mixed: keep one and remove the others")
    wanted = [shard_path(path, (index, counts[0])) for index in range(counts[0])]
    missing = [part.name for part in wanted if part not in shards.values()]
    if missing:
        raise InputError(f"{path.parent}: {', '.join(missing)} missing: run the stage with the missing --shard")
    return wanted


def _register(record: Record, seen: set[tuple[str, int]], path: Path) -> None:
    key = (record.id, record.sample)
    if key in seen:
        raise InputError(f"{path}: id {record.id!r} sample {record.sample} occurs twice: remove one of the two lines")
    seen.add(key)


def _without_ids(line: bytes) -> bytes:
    """The line with its lists of token ids emptied, where they stand as `encode` writes them.

    In JSON what is looked for can only be the key: within a string its second quote would have a backslash.
    """
    for name in ID_LISTS:
        key = b'"%s": [' % name.encode()
        start = line.find(key) + len(key)
        end = line.find(b"]", start)
        if start >= len(key) and not line[start:end].translate(None, b"0123456789, "):
            line = line[:start] + line[end:]
    return line


def _decode(line: bytes, place: str) -> Record:
    with suppress(msgspec.MsgspecError):  # which says less of a fault, and takes half of a surrogate pair for one
        return Record(*msgspec.structs.astuple(ROWS.decode(line)))
    try:
        return _record(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place}: {error}: remove the line, it is then made again") from None


def _record(line: bytes) -> Record:
    """ValueError says what is wrong with the line."""
    value = json.loads(line.decode())
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    value = {name: list(default) for name, default in OPTIONAL.items()} | value
    if value.keys() != FITS.keys():
        odd = [f"{name!r} missing" for name in FITS if name not in value]
        odd += [f"{name!r} unknown" for name in value if name not in FITS]
        raise ValueError("not a record: " + ", ".join(odd))
    for name, fits in FITS.items():
        if not fits(value[name]):
            raise ValueError(f"not a record: {name!r} is {value[name]!r:.60}")
    value |= {name: tuple(value[name]) for name in ID_LISTS}
    return Record(**value)
