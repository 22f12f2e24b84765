"""Whole files or none: every artifact is written beside its place, flushed to the disk, and renamed into it.

A process killed at any moment leaves the old file (or none) and at most a hidden
`.<stem>.<host>-<pid>.partial<suffix>`, which the next writer of the same file removes.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import socket
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from thinksteer.records import InputError

if TYPE_CHECKING:
    from torch import Tensor


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a path in the same folder, same suffix, to write; on a clean exit it becomes `path`, else it is gone."""
    with naming(path):
        partial = _partial(path)
        try:
            yield partial
            sync(partial)
            os.replace(partial, path)
            sync(path.parent)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a new, empty folder to fill; on a clean exit it becomes `path`, else it is gone.

    InputError if `path` is there already and not empty: a folder is never replaced. If it is one that this process got
    from here, it is yielded itself: else a kill would leave what nobody looks for, and models are large.
    """
    if f"-{os.getpid()}.partial" in path.name:
        yield path
        return
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path} is there already: remove it or write elsewhere")
    with naming(path):
        partial = _partial(path)
        partial.mkdir()
        try:
            yield partial
            for folder, _, names in os.walk(partial, topdown=False):
                for name in names:
                    sync(Path(folder, name))
                sync(Path(folder))
            os.replace(partial, path)
            sync(path.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """What the disk refuses names `path`: a failed write names no file at all, a failed copy its source, and the
    temporary file is gone when the message is read."""
    try:
        yield
    except OSError as error:
        hidden = str(path.with_name(f".{path.stem}."))
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        if error.errno is None or (names and not any(name.startswith(hidden) for name in names)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def _partial(path: Path) -> Path:
    """Where to write before renaming to `path`. What killed processes of this host left there is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    host = re.sub(r"[^\w.]", "_", socket.gethostname())
    # The suffix stays last, since writers such as matplotlib choose the format by it.
    name = f".{path.stem}.{host}-{{}}.partial{path.suffix}"
    pattern = re.compile(re.escape(name).replace(r"\{\}", r"(\d+)"))
    for left in path.parent.iterdir():
        if (match := pattern.fullmatch(left.name)) and not _runs(int(match[1])):
            shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink(missing_ok=True)
    return path.with_name(name.format(os.getpid()))


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):  # OverflowError: no process has such a number
        return False
    except PermissionError:  # it runs, under another user
        return True
    return pid != os.getpid()


def sync(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Keep other processes from making `path` meanwhile. InputError if one is at it.

    What is locked is `lock_path(path)`, which a killed process leaves and the next one takes over.
    """
    place = lock_path(path)
    with ExitStack() as stack:
        with naming(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            claim(stack.enter_context(open(place, "ab")), place, path)
        stack.callback(place.unlink, missing_ok=True)
        yield


def lock_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def claim(file: IO[bytes], place: Path, path: Path) -> None:
    """Lock the open file at `place` until it is closed. InputError, about `path`, if another process has it.

    The lock is shared with forked children: start worker processes with `spawn`, or before the file is opened.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(f"{path}: another process is writing it: wait for it, or stop it") from None
    if not place.exists() or not os.path.samestat(os.fstat(file.fileno()), place.stat()):
        raise InputError(f"{path}: another process has just written or removed it: run this again")


def sha256(path: Path) -> str:
    """The hexadecimal digest of a file's bytes, read in blocks."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_json(path: Path, value: object) -> None:
    """Write strict JSON (UTF-8, indented). ValueError for NaN and infinities: absent numbers are null."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8; a lone surrogate becomes its escape."""
    with atomic(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def read_json(path: Path, *keys: str) -> Any:
    """Read a JSON file. InputError if it is missing or broken or, with `keys`, if it is no object that has them."""
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))  # editors may put a byte order mark before it
    except FileNotFoundError:
        raise InputError(f"{path} is missing: run the stage that writes it") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({error}): restore it or make it again") from None
    if keys and not (isinstance(value, dict) and value.keys() >= set(keys)):
        raise InputError(f"{path} is no JSON object with {', '.join(keys)}: restore it or make it again")
    return value


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors (any device, any strides) with string metadata: the same values give the same bytes."""
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    data = save(plain)  # header length (8 bytes, little endian), JSON header, tensors
    start = 8 + int.from_bytes(data[:8], "little")
    # The library writes metadata in an order that changes from call to call, and with it the file's sha256.
    header = {"__metadata__": dict(sorted(metadata.items()))} | json.loads(data[8:start])
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the tensors stay aligned
    with atomic(path) as partial, open(partial, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.write(memoryview(data)[start:])  # hidden states can be gigabytes: no further copy


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read all tensors of a safetensors file, on the CPU, and its metadata. InputError if it is missing or broken."""
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
    except FileNotFoundError:
        raise InputError(f"{path} is missing: run the stage that writes it") from None
    except (SafetensorError, OSError) as error:  # OSError: it is a folder
        raise InputError(f"{path} is not a safetensors file ({error}): restore it or make it again") from None


def load_torch(data: bytes, name: str) -> Any:
    """What the bytes of a file of torch.save hold, on the CPU; the bare pickle from before torch 1.6 is not read.

    InputError if they are no such file, hold code, which is not run, or tensors of more values than bytes.
    """
    import torch
    from torch.utils._pytree import tree_leaves

    try:
        if not zipfile.is_zipfile(io.BytesIO(data)):
            raise ValueError("a bare pickle, or none")
        value = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        for one in tree_leaves(value):
            if isinstance(one, torch.Tensor) and one.numel() > one.untyped_storage().nbytes():
                raise ValueError("one value repeated, which would take all memory when it is converted")
    except Exception:  # a pickle is a program, and may end in anything
        raise InputError(
            f"{name} is no tensor file, or holds code, which is not run: give one of torch.save's"
        ) from None
    return value
