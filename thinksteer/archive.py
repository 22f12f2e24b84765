"""Read a folder or a zip file alike, without unpacking: no member can land, or point, outside."""

import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from thinksteer.records import InputError


def members(source: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """The path below `source`, with slashes, of each file, and a function that reads it while the iteration lasts.

    InputError: `source` is neither, the zip is broken or encrypted, or any of its members leads out of it.
    """
    if source.is_dir():
        for path in sorted(path for path in source.rglob("*") if path.is_file()):
            yield path.relative_to(source).as_posix(), path.read_bytes
        return
    with _open_zip(source) as archive:
        for info in archive.infolist():
            parts = info.filename.replace("\\", "/").split("/")
            is_link = (info.external_attr >> 16) & 0o170000 == 0o120000
            if parts[0] == "" or parts[0].endswith(":") or ".." in parts or is_link:
                raise InputError(f"{source}: member {info.filename!r} leads out of the zip: do not trust this file")
        for info in archive.infolist():
            yield info.filename, lambda info=info: _unzip(archive, info, source)


def _open_zip(source: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(source)
    except (FileNotFoundError, zipfile.BadZipFile):
        raise InputError(f"{source} is neither a folder nor a whole zip file: give what upstream publishes") from None


def _unzip(archive: zipfile.ZipFile, info: zipfile.ZipInfo, source: Path) -> bytes:
    try:
        return archive.read(info)
    except (zipfile.BadZipFile, zlib.error, RuntimeError) as error:  # RuntimeError: it is encrypted
        raise InputError(f"{source}: member {info.filename}: {error}") from None
