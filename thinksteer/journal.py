"""Record files: JSON lines that grow a whole line at a time, survive a kill, and are read across shards as one."""

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import IO, Any, Literal, get_args, get_origin, get_type_hints

from thinksteer.files import claim, sync
from thinksteer.records import InputError, Record

SYNC_SECONDS = 1.0  # at most this much work is lost when the machine (not only the process) dies
KINDS = get_type_hints(Record)  # field name -> type
SHARD = re.compile(r"\.(\d+)-of-(\d+)")


class RecordLog:
    """The record file being written: `with RecordLog(path) as log`, `log.done`, `log.append(record)`.

    Entering creates the file or reads what an earlier run left: a last line without its line break (torn by a kill) is
    cut off and will be redone, any other fault is an InputError naming file and line. One process at a time may hold
    the file; InputError for the second.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.done: set[tuple[str, int]] = set()  # (id, sample) of every whole record in the file

    def __enter__(self) -> "RecordLog":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self.path, "a+b", buffering=0)  # O_APPEND
        try:
            claim(self._file, self.path)
            whole = 0  # bytes
            with open(self.path, "rb") as existing:
                for record, end in _parse(existing, self.path):
                    _register(record, self.done, self.path)
                    whole = end
            self._file.truncate(whole)
            sync(self.path.parent)
        except BaseException:
            self._file.close()
            raise
        self._synced = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        os.fsync(self._file.fileno())
        self._file.close()

    def append(self, record: Record) -> None:
        """Write one record. ValueError if its (id, sample) is in the file already."""
        key = (record.id, record.sample)
        if key in self.done:
            raise ValueError(f"{self.path}: record {key} is there already")
        line = encode(record)
        written = self._file.write(line)
        while written < len(line):  # only on a full disk, where the next write raises
            written += self._file.write(line[written:])
        self.done.add(key)
        if time.monotonic() - self._synced > SYNC_SECONDS:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()


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
        with open(part, "rb") as file:
            for record, _ in _parse(file, part):
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


def encode(record: Record) -> bytes:
    """One line, UTF-8, ending in a line break."""
    value = {name: getattr(record, name) for name in KINDS}
    # Half of a surrogate pair has no UTF-8; its backslash escape is what JSON writes for it.
    return (json.dumps(value, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def _register(record: Record, seen: set[tuple[str, int]], path: Path) -> None:
    key = (record.id, record.sample)
    if key in seen:
        raise InputError(f"{path}: id {record.id!r} sample {record.sample} occurs twice: remove one of the two lines")
    seen.add(key)


def _parse(file: IO[bytes], path: Path) -> Iterator[tuple[Record, int]]:
    """Each record and the position in bytes just after its line."""
    end = 0
    for number, line in enumerate(file, start=1):
        if not line.endswith(b"\n"):
            return
        end += len(line)
        try:
            yield _decode(line), end
        except ValueError as error:
            raise InputError(f"{path}:{number}: {error}: remove the line, it is then made again") from None


def _decode(line: bytes) -> Record:
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
