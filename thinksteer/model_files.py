"""What the files of a model say, without its weights: its configuration, its shape, what tells it from another."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download

from thinksteer.hub import check_available, is_here, own_file, reachable
from thinksteer.models import ModelRef
from thinksteer.records import InputError

HASHED_BYTES = 1 << 28  # weights up to this size are inputs of a run by their hash, larger ones by their config alone


def generation_config(ref: ModelRef) -> dict[str, Any]:
    """What the model's generation_config.json states, and nothing else (empty: it has none)."""
    check_available(ref.location)
    file = own_file(ref.location, "generation_config.json")
    return _read(file) if file else {}


def config(ref: ModelRef) -> dict[str, Any] | None:
    """The model's config.json, without its weights; None for a hub model that is neither cached nor within reach."""
    if not is_here(ref.location) and not reachable():
        return None
    check_available(ref.location)
    return _read(own_file(ref.location, "config.json"))


def folder(ref: ModelRef) -> Path:
    """The model's checkpoint on this disk; a hub model is downloaded to the cache if it is not there."""
    check_available(ref.location)
    if Path(ref.location).is_dir():
        return Path(ref.location)
    return Path(snapshot_download(ref.location, ignore_patterns=["*.bin", "*.pth", "*.gguf", "original/*"]))


def fingerprint(ref: ModelRef) -> list[Path]:
    """The files that tell a local model from another of the same name; none for a hub id."""
    place = Path(ref.location)
    weights = list(place.glob("*.safetensors"))
    small = sum(file.stat().st_size for file in weights) <= HASHED_BYTES
    return sorted([*place.glob("*.json"), *(weights if small else [])]) if place.is_dir() else []


def stated_shape(config: Mapping[str, Any], what: str) -> tuple[int, int]:
    """Layers and hidden size, as a config.json says. InputError: it says none, as of recurrent-depth models."""
    if missing := [name for name in ("num_hidden_layers", "hidden_size") if name not in config]:
        raise InputError(f"{what} states no {missing[0]}: it is not built of layers that run once, which this is for")
    return config["num_hidden_layers"], config["hidden_size"]


def head_grid(place: Path) -> tuple[int, int]:
    """How many layers the checkpoint in a folder has, and how many attention heads each."""
    config = _read(place / "config.json")
    if missing := [name for name in ("num_hidden_layers", "num_attention_heads") if name not in config]:
        raise InputError(f"{place / 'config.json'} states no {missing[0]}: it is of no model with attention heads")
    return config["num_hidden_layers"], config["num_attention_heads"]


def _read(file: Path) -> dict[str, Any]:
    """The object in a model's JSON file. InputError if it is broken."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} is not JSON ({error}): download it again") from None
    if not isinstance(value, dict):
        raise InputError(f"{file} is no JSON object: download it again")
    return value
