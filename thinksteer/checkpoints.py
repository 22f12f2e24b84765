"""Edit a Hugging Face checkpoint as a stream: files copied, named tensors patched in place, one in memory at a time,
new tensors in a shard of their own."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thinksteer.files import atomic_folder, read_json, write_json, write_safetensors
from thinksteer.records import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}  # PyTorch's names
HEADER_LIMIT = 100_000_000  # bytes, as in the safetensors library


@dataclass(frozen=True)
class _Entry:
    """Where a tensor lies: bytes [start, end) of `file`, a path relative to the checkpoint."""

    file: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def checkpoint_tensors(source: Path) -> dict[str, Tensor]:
    """The floating-point tensors without their data (device "meta"): names, shapes and dtypes.

    InputError if the folder is no whole safetensors checkpoint.
    """
    import torch

    entries = {name: entry for name, entry in _entries(source).items() if entry.dtype in FLOATS}
    return {name: torch.empty(one.shape, dtype=_dtype(one), device="meta") for name, one in entries.items()}


def read_tensor(source: Path, name: str) -> Tensor:
    """One tensor, in its stored dtype. InputError if there is none of that name or it is not floating point."""
    entry = _find(_entries(source), name, source)
    return _read(source / entry.file, entry)


def rewrite_checkpoint(
    source: Path,
    target: Path,
    rewrite: Mapping[str, Callable[[Tensor], Tensor]],
    added: Mapping[str, Tensor] | None = None,
) -> None:
    """Write `target`: `source` with each named tensor replaced by what its function makes of it, and with `added` ones.

    Each function gets a tensor of its own in the stored dtype and must return the same shape and dtype (ValueError).
    Every other byte of every file is that of `source`; hidden subfolders, `original` (Meta's unconverted weights) and
    safetensors that are not the checkpoint's (some engines prefer `consolidated.safetensors`) are left out, symbolic
    links (the Hugging Face cache) are followed. Tensors added, of new names (ValueError), come as one more shard: the
    others are renumbered and the index made anew. Memory: one tensor, what its function uses, and `added`.
    `target` appears when it is whole. InputError: `target` is there already, lies inside `source` or does not fit on
    the disk; a name is unknown or its tensor quantised; `source` is broken.
    """
    entries, added = _entries(source), added or {}
    patches = {name: _find(entries, name, source) for name in rewrite}
    if known := entries.keys() & added.keys():
        raise ValueError(f"{min(known)} is in {source} already: rewrite it")
    if target.resolve().is_relative_to(source.resolve()):
        raise InputError(f"{target} lies inside {source}, which it is made from: write elsewhere")
    shards = sorted({entry.file for entry in entries.values()})
    # A model.safetensors beside an index would be loaded in its place: the new names never include it.
    numbered = [f"model-{number + 1:05}-of-{len(shards) + 1:05}.safetensors" for number in range(len(shards) + 1)]
    place = dict(zip(shards, numbered if added else shards, strict=False))
    files = [file for file in _files(source) if file.suffix != ".safetensors" or str(file) in place]
    with atomic_folder(target) as folder:
        new_bytes = sum(tensor.nbytes for tensor in added.values())
        _require_space(sum((source / file).stat().st_size for file in files) + new_bytes, target)
        for file in files:
            copy = folder / place.get(str(file), file)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / file, copy)
        for name, entry in patches.items():
            _patch(folder / place[entry.file], name, entry, rewrite[name])
        if added:
            write_safetensors(folder / numbered[-1], added, {"format": "pt"})
            weight_map = {name: place[entry.file] for name, entry in entries.items()}
            weight_map |= dict.fromkeys(added, numbered[-1])
            size = sum(entry.end - entry.start for entry in entries.values()) + new_bytes
            write_json(folder / INDEX, {"metadata": {"total_size": size}, "weight_map": weight_map})


def _patch(path: Path, name: str, entry: _Entry, change: Callable[[Tensor], Tensor]) -> None:
    import torch

    new = change(_read(path, entry))
    if tuple(new.shape) != entry.shape or new.dtype != _dtype(entry):
        found, wanted = f"{list(new.shape)} {new.dtype}", f"{list(entry.shape)} {_dtype(entry)}"
        raise ValueError(f"{name} became {found}, must stay {wanted}")
    with open(path, "r+b") as file:
        file.seek(entry.start)
        file.write(memoryview(new.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()))


def _read(path: Path, entry: _Entry) -> Tensor:
    import torch

    data = bytearray(entry.end - entry.start)
    with open(path, "rb") as file:
        file.seek(entry.start)
        file.readinto(data)
    return torch.frombuffer(data, dtype=_dtype(entry)).reshape(entry.shape)


def _dtype(entry: _Entry) -> torch.dtype:
    import torch

    return getattr(torch, FLOATS[entry.dtype])


def _entries(source: Path) -> dict[str, _Entry]:
    """Every tensor of a checkpoint, from the headers of its files alone."""
    single, sharded = (source / SINGLE).exists(), (source / INDEX).exists()
    if single and sharded:
        raise InputError(f"{source} holds both {SINGLE} and {INDEX}: remove the one that is not meant")
    if single:
        return _header(source, SINGLE)
    if not sharded:
        raise InputError(_no_weights(source))
    index = read_json(source / INDEX)
    weight_map: dict[str, str] | None = index.get("weight_map") if isinstance(index, dict) else None
    if not weight_map:
        raise InputError(f"{source / INDEX} has no weight_map: download it again")
    shards = {file: _header(source, file) for file in sorted(set(weight_map.values()))}
    for name, file in weight_map.items():
        if name not in shards[file]:
            raise InputError(f"{source / file} lacks {name}, which {INDEX} places there: download it again")
    return {name: shards[file][name] for name, file in weight_map.items()}


def _no_weights(source: Path) -> str:
    if not source.is_dir():
        return f"{source} is no folder: give a checkpoint's folder"
    if list(source.glob("*.bin")):
        return f"{source} has only .bin weights: load and save it once with save_pretrained, which writes safetensors"
    return f"{source} has neither {SINGLE} nor {INDEX}: give a checkpoint's folder"


def _header(source: Path, file: str) -> dict[str, _Entry]:
    """The tensors of one safetensors file: 8 bytes of header length, little endian, the JSON header, the data."""
    path = source / file
    if Path(file).is_absolute() or ".." in Path(file).parts:
        raise InputError(f"{source / INDEX} names {file!r}, outside the checkpoint")
    if not path.is_file():
        raise InputError(f"{path} is missing: download the checkpoint again")
    size = path.stat().st_size
    with open(path, "rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        broken = InputError(f"{path} is no whole safetensors file (a git-lfs pointer?): download it again")
        if not 2 <= length <= min(HEADER_LIMIT, size - 8):
            raise broken
        try:
            header: dict[str, Any] = json.loads(stream.read(length))
            header.pop("__metadata__", None)
            entries = {name: _entry(file, 8 + length, value) for name, value in header.items()}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise broken from None
    if any(not 8 + length <= entry.start <= entry.end <= size for entry in entries.values()):
        raise broken
    return entries


def _entry(file: str, data_start: int, value: Mapping[str, Any]) -> _Entry:
    start, end = value["data_offsets"]
    entry = _Entry(file, value["dtype"], tuple(value["shape"]), data_start + start, data_start + end)
    if entry.dtype in FLOATS and end - start != math.prod(entry.shape) * _dtype(entry).itemsize:
        raise ValueError("shape and bytes disagree")
    return entry


def _find(entries: Mapping[str, _Entry], name: str, source: Path) -> _Entry:
    if name not in entries:
        alike = [known for known in entries if known.rsplit(".", 2)[-2:] == name.rsplit(".", 2)[-2:]]
        raise InputError(f"{source} has no tensor {name}; it has {', '.join((alike or list(entries))[:3])}, ...")
    entry = entries[name]
    if entry.dtype not in FLOATS:
        place = f"{source / entry.file}: {name}"
        raise InputError(f"{place} is stored as {entry.dtype}: take the checkpoint that is not quantised")
    return entry


def _files(source: Path) -> list[Path]:
    """What to copy, relative to `source`."""
    files = []
    for folder, folders, names in os.walk(source, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "original"]
        files += [Path(folder, name).relative_to(source) for name in names]
    own = source.resolve()
    own = own.parents[1] if own.parent.name == "snapshots" else own  # the hub's cache has the files beside these
    for file in files:
        if not (source / file).is_file():
            raise InputError(f"{source / file} is no file, or a link to nothing: download the checkpoint again")
        if file.suffix != ".safetensors" and not (source / file).resolve().is_relative_to(own):
            raise InputError(f"{source / file} leads out of the checkpoint: put there what it points at, or nothing")
    return sorted(files)


def _require_space(needed: int, target: Path) -> None:
    free = shutil.disk_usage(target.parent).free
    if needed > free:
        sizes = f"the checkpoint takes {needed / 1e6:.1f} MB, the disk has {free / 1e6:.1f} MB free"
        raise InputError(f"{target.parent}: {sizes}: make room on the disk, or write elsewhere")
