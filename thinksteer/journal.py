"""Record files: JSON lines, one for each response, read across shards as one."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from thinksteer.lines import LineLog, whole_lines
from thinksteer.records import InputError, Record

KINDS = get_type_hints(Record)  # field name -> type
SHARD = re.compile(r"\.(\d+)-of-(\d+)")


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
        self.write({name: getattr(record, name) for name in KINDS})
        self.done.add(key)


def read_records(path: Path) -> list[Record]:
    """All records of a file, or of all its shards in order. InputError as for `iterate_records`."""
    return list(iterate_records(path))


def iterate_records(path: Path) -> Iterator[Record]:
    """The records of a file, or of all its shards in order, one in memory at a time; a torn last line is left out.

    InputError if there is neither the file nor a complete set of shards, if a line is no record, or if one
    (id, sample) occurs twice.
    """
    seen: set[tuple[str, int]] = set()
    for part in record_files(path):
        for place, line in whole_lines(part):
            record = _decode(line, place)
            _register(record, seen, part)
            yield record


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


def _decode(line: bytes, place: str) -> Record:
    try:
        return _record(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place}: {error}: remove the line, it is then made again") from None


def _record(line: bytes) -> Record:
    """ValueError says what is wrong with the line."""
    value = json.loads(line.decode())
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    if value.keys() != KINDS.keys():
        odd = [f"{name!r} missing" for name in KINDS if name not in value]
        odd += [f"{name!r} unknown" for name in value if name not in KINDS]
        raise ValueError("not a record: " + ", ".join(odd))
    for name, kind in KINDS.items():
        if not _fits(value[name], kind):
            raise ValueError(f"not a record: {name!r} is {value[name]!r:.60}")
    value["token_ids"] = tuple(value["token_ids"])
    return Record(**value)


def _fits(value: Any, kind: Any) -> bool:
    """Whether a JSON value is of a field's type; true and false are no integers."""
    origin = get_origin(kind)
    if origin is UnionType:
        return any(_fits(value, choice) for choice in get_args(kind))
    if origin is Literal:
        return value in get_args(kind)
    if origin is tuple:
        return type(value) is list and all(type(item) is int for item in value)
    return type(value) is kind
