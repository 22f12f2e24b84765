"""Files of JSON lines that grow a whole line at a time, survive a kill, and have one writer at a time."""

import json
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from thinksteer.files import claim, naming, sync


def whole_lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """("<path>:<number>", line) of each line; one without its line break, which a kill has torn, is left out."""
    with open(path, "rb", buffering=1 << 16) as file:  # a line is as long as the default
        for number, line in enumerate(file, start=1):
            if line.endswith(b"\n"):
                yield f"{path}:{number}", line


def cut(path: Path) -> bool:
    """Whether the file ends within a line."""
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - 1))
        return file.read() not in (b"", b"\n")


def encode(value: Mapping[str, Any]) -> bytes:
    """One line, UTF-8, ending in a line break."""
    # Half of a surrogate pair has no UTF-8; its backslash escape is what JSON writes for it.
    return (json.dumps(value, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


class LineLog(ABC):
    """A file that is being written: `with Log(path) as log`.

    Entering creates the file or reads what an earlier run left: a torn last line is cut off and will be redone, any
    other fault is an InputError naming file and line. InputError also for a second process that wants to write.
    """

    sync_seconds = 0.0  # at most this much work is lost when the machine (not only the process) dies

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def known(self, line: bytes, place: str) -> None:
        """Take note of a line that an earlier run wrote. InputError, naming the place, if it is none."""

    def __enter__(self) -> Self:
        with ExitStack() as stack, naming(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = stack.enter_context(open(self.path, "a+b", buffering=0))  # O_APPEND
            claim(self._file, self.path, self.path)
            whole = 0  # bytes
            for place, line in whole_lines(self.path):
                self.known(line, place)
                whole += len(line)
            self._file.truncate(whole)
            sync(self.path.parent)
            stack.pop_all()
        self._synced = time.monotonic()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._file as file, naming(self.path):
            os.fsync(file.fileno())
            if kind is not None and not os.fstat(file.fileno()).st_size:
                self.path.unlink(missing_ok=True)  # what failed before its first line leaves no file

    def write(self, value: Mapping[str, Any]) -> None:
        """Append one line, or nothing if the disk refuses it."""
        line, size = encode(value), os.fstat(self._file.fileno()).st_size
        with naming(self.path):
            try:
                written = self._file.write(line)
                while written < len(line):  # only on a full disk, where the next write raises
                    written += self._file.write(line[written:])
            except OSError:
                self._file.truncate(size)
                raise
            if time.monotonic() - self._synced >= self.sync_seconds:
                os.fsync(self._file.fileno())
                self._synced = time.monotonic()
