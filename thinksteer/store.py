"""Where every artifact lies under the artifacts root, and the one door to all reading and writing of them."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thinksteer.checkpoints import checkpoint_tensors, read_tensor, rewrite_checkpoint
from thinksteer.files import (
    atomic,
    atomic_folder,
    load_torch,
    read_json,
    read_safetensors,
    sha256,
    write_json,
    write_safetensors,
    write_text,
)
from thinksteer.journal import SHARD, RecordFile, RecordLog, iterate_records, read_records, record_files, shard_path
from thinksteer.manifest import Run, manifest_of, manifest_path, run
from thinksteer.records import InputError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "RecordFile",
    "RecordLog",
    "Run",
    "agreement_path",
    "annotations_path",
    "atomic",
    "atomic_folder",
    "behaviours_path",
    "checkpoint_tensors",
    "classes_path",
    "confidence_path",
    "contrast_path",
    "cosines_path",
    "direction_path",
    "evaluation_path",
    "figure_path",
    "finished_records",
    "heads_path",
    "is_complete",
    "iterate_records",
    "judge_path",
    "layer_effects_path",
    "level_effects_path",
    "lm_eval_path",
    "load_torch",
    "manifest_of",
    "manifest_path",
    "metrics_path",
    "model_path",
    "questions_path",
    "read_direction",
    "read_json",
    "read_records",
    "read_safetensors",
    "read_tensor",
    "record_files",
    "reports_path",
    "reroll_rates",
    "rerolls_path",
    "responses_path",
    "rewrite_checkpoint",
    "run",
    "run_settings",
    "separability_path",
    "sha256",
    "slug",
    "states_path",
    "steering_path",
    "steering_summary_path",
    "write_json",
    "write_safetensors",
    "write_text",
]

Shard = tuple[int, int]
"""Part i (from 0) of n."""

SLUG_BYTES = 120  # leaves room for shard, suffixes and the temporary name within the 255 bytes of a file name


def slug(name: str) -> str:
    """A hub id or a relative path as one file name: "Qwen/Qwen3-8B" -> "Qwen--Qwen3-8B".

    InputError for what could lead out of its folder or is no file name: absolute, with "..", hidden, empty, too long,
    or with control characters.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    joined = "--".join(parts)
    if name.startswith("/") or not parts or any(part.startswith(".") for part in parts):
        raise InputError(f"{name!r} cannot name a folder of artifacts: give a name or a hub id, without leading / or .")
    if not name.isprintable() or "\\" in name or len(joined.encode(errors="replace")) > SLUG_BYTES:
        raise InputError(f"{name!r} cannot name a folder of artifacts: give a shorter, plain name")
    return joined


def responses_path(root: Path, model: str, dataset: str, shard: Shard | None = None) -> Path:
    return shard_path(root / "responses" / slug(model) / f"{slug(dataset)}.jsonl", shard)


def rerolls_path(root: Path, model: str, dataset: str, control: str) -> Path:
    return root / "responses" / slug(model) / f"{slug(dataset)}.{slug(control)}.rerolls.jsonl"


def direction_path(root: Path, model: str, control: str) -> Path:
    return root / "directions" / slug(model) / f"{slug(control)}.safetensors"


def contrast_path(root: Path, model: str, name: str) -> Path:
    """How well a control vector tells the two sides of pairs apart."""
    return root / "directions" / slug(model) / f"{slug(name)}.contrast.json"


def classes_path(root: Path, model: str, dataset: str, control: str) -> Path:
    return root / "responses" / slug(model) / f"{slug(dataset)}.{slug(control)}.classes.json"


def separability_path(root: Path, model: str, dataset: str, control: str) -> Path:
    return root / "directions" / slug(model) / f"{slug(dataset)}.{slug(control)}.separability.json"


def states_path(root: Path, model: str, dataset: str, control: str) -> Path:
    return root / "states" / slug(model) / f"{slug(dataset)}.{slug(control)}.safetensors"


def layer_effects_path(root: Path, model: str, dataset: str, control: str) -> Path:
    return root / "layers" / slug(model) / f"{slug(dataset)}.{slug(control)}.json"


def level_effects_path(root: Path, model: str, dataset: str) -> Path:
    return root / "levels" / slug(model) / f"{slug(dataset)}.json"


def lm_eval_path(root: Path, model: str, name: str) -> Path:
    """What lm-eval's tasks found."""
    return root / "lm_eval" / slug(model) / f"{slug(name)}.json"


def cosines_path(root: Path, model: str) -> Path:
    return root / "directions" / slug(model) / "cosines.json"


def annotations_path(root: Path, records: Path, annotator: str) -> Path:
    """`<root>/<rel>.jsonl` -> `<root>/annotations/<annotator>/<rel>.jsonl`. InputError if `records` is not under it."""
    return root / "annotations" / slug(annotator) / _below(root, records)


def confidence_path(root: Path, records: Path, unsteered: bool = False) -> Path:
    """`<root>/<rel>.jsonl` -> `<root>/confidence/<rel>.jsonl`, or `<rel>.unsteered.jsonl`: of steered responses, what
    the model makes of them without. InputError if `records` is not under it."""
    path = root / "confidence" / _below(root, records)
    return path.with_name(f"{path.stem}.unsteered.jsonl") if unsteered else path


def agreement_path(root: Path, first: str, second: str, model: str, dataset: str) -> Path:
    name = "-".join(slug(annotator) for annotator in (first, second))
    return root / "annotations" / f"{name}.{slug(model)}.{slug(dataset)}.agreement.json"


def judge_path(root: Path, model: str) -> Path:
    """The answers of an endpoint's model."""
    return root / "judge" / f"{slug(model)}.jsonl"


def questions_path(root: Path, name: str) -> Path:
    """Questions to be given as --data_file."""
    return root / "questions" / f"{slug(name)}.jsonl"


def behaviours_path(root: Path, model: str, name: str) -> Path:
    return root / "behaviours" / slug(model) / f"{name}.json"


def steering_path(
    root: Path, model: str, dataset: str, control: str, weight: float, layer: int | None, shard: Shard | None = None
) -> Path:
    """`<weight>.jsonl` for all layers, `<weight>.layer<k>.jsonl` for one; the weight as Python prints a float."""
    name = repr(float(weight) + 0.0)  # -0.0 is 0.0
    name += "" if layer is None else f".layer{layer}"
    return shard_path(_steering_folder(root, model, dataset, control) / f"{name}.jsonl", shard)


def steering_summary_path(root: Path, model: str, dataset: str, control: str) -> Path:
    return _steering_folder(root, model, dataset, control) / "summary.json"


def heads_path(root: Path, model: str, control: str) -> Path:
    return root / "heads" / slug(model) / f"{slug(control)}.json"


def model_path(root: Path, name: str) -> Path:
    return root / "models" / slug(name)


def evaluation_path(root: Path, model: str, dataset: str, instruction: str, shard: Shard | None = None) -> Path:
    """`default.jsonl` without an instruction, else `<its first words>-<8 digits of its sha256>.jsonl`."""
    folder = root / "evaluations" / slug(model) / slug(dataset)
    return shard_path(folder / f"{_instruction_name(instruction)}.jsonl", shard)


def metrics_path(root: Path, model: str, dataset: str, instruction: str) -> Path:
    """`metrics.json` without an instruction, else `<as in evaluation_path>.metrics.json`."""
    folder = root / "evaluations" / slug(model) / slug(dataset)
    return folder / (f"{_instruction_name(instruction)}.metrics.json" if instruction else "metrics.json")


def reroll_rates(path: Path) -> dict[tuple[str, int, int], float]:
    """(id, sample, start) of a span -> the share of its draws that were labelled as it is."""
    drawn: dict[str, list[bool]] = {}
    for record in iterate_records(path):
        drawn.setdefault(record.id, []).append(record.correct)
    parts = {name: name.rsplit("/", 2) for name in drawn}
    return {
        (id, int(sample), int(start)): sum(drawn[name]) / len(drawn[name])
        for name, (id, sample, start) in parts.items()
    }


def finished_records(folder: Path) -> list[Path]:
    """The complete record files of a folder, shards as one."""
    found = {file.with_name(SHARD.sub("", file.name)) for file in folder.glob("*.jsonl")}
    return sorted(path for path in found if is_complete(path))


def is_complete(path: Path) -> bool:
    """Whether a record file, or every one of its shards, is there and was written by a run that finished."""
    try:
        files = record_files(path)
    except InputError:
        return False
    return all(run_settings(file) is not None for file in files)


def run_settings(output: Path) -> dict[str, Any] | None:
    """The settings an artifact was made with; None if its run has not finished."""
    facts = manifest_of(record_files(output)[0] if output.suffix == ".jsonl" else output)
    return facts["settings"] if facts and facts["finished"] is not None else None


def read_direction(path: Path) -> Tensor:
    """The direction of an artifact, `[num_layers, hidden_size]`. InputError if it is not that or not finite."""
    direction = read_safetensors(path)[0].get("direction")
    fits = direction is not None and direction.ndim == 2 and direction.is_floating_point()
    if not fits or not direction.isfinite().all():
        raise InputError(f"{path} holds no finite tensor `direction` [num_layers, hidden_size]: make it with stage 2")
    return direction


def reports_path(root: Path) -> Path:
    return root / "reports"


def figure_path(artifact: Path) -> Path:
    """The picture of an artifact, beside it."""
    return artifact.with_suffix(".png")


def _steering_folder(root: Path, model: str, dataset: str, control: str) -> Path:
    return root / "steering" / slug(model) / slug(dataset) / slug(control)


def _below(root: Path, records: Path) -> Path:
    if not records.resolve().is_relative_to(root.resolve()):
        raise InputError(f"{records} is not under --artifacts {root}: what is made of it mirrors the files there")
    return records.resolve().relative_to(root.resolve())


def _instruction_name(instruction: str) -> str:
    if not instruction:
        return "default"
    words = re.findall(r"[a-z0-9]+", instruction.lower())
    digest = hashlib.sha256(instruction.encode("utf-8", "backslashreplace")).hexdigest()[:8]
    return "-".join([*words[:5], digest])[-60:].lstrip("-")
