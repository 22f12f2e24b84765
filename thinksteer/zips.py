"""Zips (and folders) of others, read without unpacking: no member leads out, none is there twice, none is a bomb."""

import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO
from unicodedata import normalize

from thinksteer.records import InputError

MAX_RATIO, SMALL_BYTES = 500, 64 << 20  # of all members to the zip; responses that only loop are packed 1 to 350
LONGEST_NAME = 1000  # an artifact's stays below 700
# RuntimeError: it is encrypted, or of a version to come; UnicodeDecodeError: of a name.
BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, UnicodeDecodeError)

Opened = Callable[[], AbstractContextManager[IO[bytes]]]
Member = tuple[str, Opened]


def members(source: Path) -> Iterator[Member]:
    """The path below `source`, with slashes, of each file, and a function that opens it while the iteration lasts.

    InputError: `source` is neither a folder nor a zip, the zip is broken, encrypted or a bomb, or any of its members
    leads out of it or takes the place of another, also where capitals do not count.
    """
    if source.is_dir():
        for path in sorted(path for path in source.rglob("*") if path.is_file()):
            if not path.resolve().is_relative_to(source.resolve()):
                raise InputError(f"{path} leads out of {source}: put there what it points at, if you trust it")
            yield path.relative_to(source).as_posix(), partial(path.open, "rb")
        return
    with _open_zip(source) as archive:
        files = [info for info in archive.infolist() if not info.is_dir()]
        names = [normalize("NFC", info.filename).casefold() for info in files]
        for info in archive.infolist():
            shown = f"{source}: member {info.filename[:LONGEST_NAME]!r}"
            parts = info.filename.replace("\\", "/").split("/")
            is_link = (info.external_attr >> 16) & 0o170000 == 0o120000
            if parts[0] == "" or parts[0].endswith(":") or ".." in parts or is_link:
                raise InputError(f"{shown} leads out of the zip: do not trust this file")
            if len(info.filename) > LONGEST_NAME:
                raise InputError(f"{shown}... has too long a name: do not trust this file")
        folders = {str(above) for name in names for above in PurePosixPath(name).parents}
        if twice := next((name for name, count in Counter(names).items() if count > 1 or name in folders), None):
            raise InputError(f"{source}: member {twice!r} is there twice: do not trust this file")
        for info in files:
            yield info.filename, lambda info=info: _open_member(archive, info, source)


def _open_zip(source: Path) -> zipfile.ZipFile:
    broken = InputError(f"{source} is neither a folder nor a whole zip file: give what was published")
    try:
        archive = zipfile.ZipFile(source)
    except (FileNotFoundError, *BROKEN):
        raise broken from None
    if any(not info.filename or info.header_offset < 0 for info in archive.infolist()):
        archive.close()
        raise broken
    _check_size(archive, source)
    return archive


def _check_size(archive: zipfile.ZipFile, source: Path) -> None:
    """InputError: a bomb. What its members say of their sizes can be taken, since no more of one is ever read."""
    packed, unpacked = source.stat().st_size, sum(info.file_size for info in archive.infolist())
    if unpacked > max(SMALL_BYTES, MAX_RATIO * packed):
        archive.close()
        raise InputError(f"{source} of {packed:,} bytes unpacks to {unpacked:,}: do not trust this file")


@contextmanager
def _open_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, source: Path) -> Iterator[IO[bytes]]:
    try:
        with archive.open(info) as stream:
            yield stream
    except BROKEN as error:
        raise InputError(f"{source}: member {info.filename!r}: {error}") from None


def whole(path: Path) -> bool:
    """Whether it is a zip of which every member has its checksum."""
    try:
        with zipfile.ZipFile(path) as archive:
            _check_size(archive, path)
            return archive.testzip() is None
    except (OSError, IndexError, *BROKEN):
        return False
