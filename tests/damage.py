"""What can be wrong with the files of a run and with files of one's own: how each is made so, in the current folder.

Where files are links to those of others (see `test_bad_input`), a new file takes their place.
"""

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from thinksteer import store

TINY = "tiny-reasoner"
RESPONSES = f"artifacts/responses/{TINY}/arithmetic.jsonl"
ATTN, MLP = (f"artifacts/directions/{TINY}/thinking_length_{part}.safetensors" for part in ("attn", "mlp"))
HEADS = f"artifacts/heads/{TINY}/thinking_length_attn.json"
STEERING = f"artifacts/steering/{TINY}/arithmetic/thinking_length_attn"
STEERED = f"{STEERING}/0.4.jsonl"
STRONGEST = f"artifacts/layers/{TINY}/arithmetic.thinking_length_attn.json"
EVALUATION = f"artifacts/evaluations/{TINY}/arithmetic/default.jsonl"
EDITED = f"artifacts/models/ThinkEdit-{TINY}"
ANNOTATIONS = f"artifacts/annotations/keywords/responses/{TINY}/arithmetic.jsonl"
MODEL, WEIGHTS = "mine/model", "mine/model/model.safetensors"

Damage = Callable[[], object]


def write(path: str, content: str | bytes) -> Damage:
    def damage() -> None:
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())

    return damage


def rewrite(path: str, change: Callable[[bytes], bytes]) -> Damage:
    return lambda: write(path, change(Path(path).read_bytes()))()


def cut(path: str) -> Damage:
    return rewrite(path, lambda data: data[: len(data) // 2])


def remove(path: str) -> Damage:
    return lambda: shutil.rmtree(path) if Path(path).is_dir() else Path(path).unlink()


def folder(path: str) -> Damage:
    """A folder where a file is expected."""
    return lambda: (Path(path).exists() and remove(path)(), Path(path).mkdir(parents=True))


def copy(source: str, target: str) -> Damage:
    return lambda: shutil.copytree(source, target) if Path(source).is_dir() else shutil.copy(source, target)


def stated(path: str, **values: Any) -> Damage:
    """A JSON file's values; `...` takes one out."""

    def change(data: bytes) -> bytes:
        merged = json.loads(data) | values
        return json.dumps({name: value for name, value in merged.items() if value is not ...}).encode()

    return rewrite(path, change)


def unfinished(path: str) -> Damage:
    return stated(f"{path}.run.json", finished=None)


def run_settings(path: str, **values: Any) -> Damage:
    def change(data: bytes) -> bytes:
        facts = json.loads(data)
        facts["settings"] = {name: value for name, value in (facts["settings"] | values).items() if value is not ...}
        return json.dumps(facts).encode()

    return rewrite(f"{path}.run.json", change)


def third(change: Callable[[bytes], bytes], path: str = RESPONSES) -> Damage:
    """The third line of a file of records."""

    def changed(data: bytes) -> bytes:
        lines = data.splitlines(keepends=True)
        return b"".join([*lines[:2], change(lines[2]), *lines[3:]])

    return rewrite(path, changed)


def record(**values: Any) -> Damage:
    """Fields of the third record; `...` takes one out."""

    def change(line: bytes) -> bytes:
        merged = json.loads(line) | values
        return json.dumps({name: value for name, value in merged.items() if value is not ...}).encode() + b"\n"

    return third(change)


def vectors(rows: torch.Tensor, path: str = ATTN, about: dict[str, str] | None = None, **more: torch.Tensor) -> Damage:
    """A direction's file, with what it says of itself."""

    def damage() -> None:
        told = store.read_safetensors(Path(path))[1] if about is None else about
        store.write_safetensors(Path(path), {"direction": rows} | more, told)

    return damage


def saved(value: Any, path: str = "mine/v.pt") -> Damage:
    return lambda: torch.save(value, path)


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Damage:
    """The weights of a model of one's own."""

    def damage() -> None:
        found = load_file(WEIGHTS)
        change(found)
        Path(WEIGHTS).unlink()
        save_file(found, WEIGHTS, {"format": "pt"})

    return damage


def sharded(**places: str) -> Damage:
    """The weights in two files, of which the index names the second for `lm_head.weight`, or as `places` says."""

    def damage() -> None:
        found = load_file(WEIGHTS)
        Path(WEIGHTS).unlink()
        names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
        head = {"lm_head.weight": found.pop("lm_head.weight")}
        for name, part in zip(names, (found, head), strict=True):
            save_file(part, f"{MODEL}/{name}", {"format": "pt"})
        weight_map = dict.fromkeys(found, names[0]) | dict.fromkeys(head, names[1]) | places
        index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
        Path(f"{MODEL}/model.safetensors.index.json").write_text(json.dumps(index))

    return damage


def archive(*members: tuple[str, str], path: str = "mine/b.zip") -> Damage:
    def damage() -> None:
        with zipfile.ZipFile(path, "w") as file:
            for name, content in members:
                file.writestr(name, content)

    return damage


class Code:
    """What runs a command where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch mine/executed",)
