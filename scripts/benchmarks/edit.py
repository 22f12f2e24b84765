"""What editing a checkpoint costs: edit_weights.py against a copy of the files, and against loading all of it."""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import torch
from matplotlib.figure import Figure
from safetensors.torch import load_file, save_file

from scripts.benchmarks.measuring import Cost, Measured, Panel, child, growth
from thinksteer import store
from thinksteer.files import sync
from thinksteer.models import ModelRef
from thinksteer.steering import project_out
from thinksteer.tables import Column, Table

CONTROL = "thinking_length_attn"
HIDDEN, HEADS, MLP = 1024, 16, 2816
SHAPES = {  # of a layer's weights
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (MLP, HIDDEN),
    "mlp.up_proj": (MLP, HIDDEN),
    "mlp.down_proj": (HIDDEN, MLP),
}
SHARD_BYTES = 256e6
SHARES = (0.25, 0.5, 1)  # of --edit_gb
GOAL, GOAL_MB = 1.5, 1024


@dataclass
class Size:
    """What was measured at one size: wall seconds of every copy, and all costs of our and of the plain way."""

    megabytes: float
    copies: list[float] = field(default_factory=list)
    edits: list[Cost] = field(default_factory=list)
    plain: list[Cost] = field(default_factory=list)


def measure(args: argparse.Namespace, ref: ModelRef) -> Measured:
    found = []
    for share in SHARES:
        with tempfile.TemporaryDirectory() as scratch:
            root = Path(scratch)
            source = write(root, share * args.edit_gb * 1e9)
            flags = ("--artifacts", root, "--model", source, "--template", "plain")
            size = Size(sum(file.stat().st_size for file in source.iterdir()) / 1e6)
            for _ in range(args.repeats):
                size.copies.append(copied(source, root / "copy"))
                size.edits.append(child("edit_weights:main", *flags))
                size.plain.append(child("scripts.benchmarks.edit:plain", source, root))
                for made in ("copy", "models", "plain"):
                    shutil.rmtree(root / made)
            found.append(size)
    repeats = {}
    for one in found:
        ways = {"copy": one.copies, "edit": [c.wall for c in one.edits], "plain": [c.wall for c in one.plain]}
        repeats |= {f"{one.megabytes:.3g} MB: {way}": seconds for way, seconds in ways.items()}
    return Measured([table(found)], drawn(found), repeats)


def write(root: Path, size: float) -> Path:
    """A sharded checkpoint of about that many bytes in bfloat16, a direction, and a head of every layer to edit."""
    torch.manual_seed(0)
    layer_bytes = 2 * sum(rows * columns for rows, columns in SHAPES.values())
    layers, folder = max(1, round(size / layer_bytes)), root / "source"
    per_shard = max(1, int(SHARD_BYTES // layer_bytes))
    weight_map = {}
    folder.mkdir()
    for first in range(0, layers, per_shard):
        tensors = {
            f"model.layers.{layer}.{name}.weight": torch.randn(shape, dtype=torch.bfloat16)
            for layer in range(first, min(layers, first + per_shard))
            for name, shape in SHAPES.items()
        }
        file = f"model-{first // per_shard + 1:05}-of-{-(-layers // per_shard):05}.safetensors"
        save_file(tensors, folder / file, {"format": "pt"})
        sync(folder / file)  # or what is measured would wait for it
        weight_map |= dict.fromkeys(tensors, file)
    store.write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})
    about = {"num_hidden_layers": layers, "num_attention_heads": HEADS, "hidden_size": HIDDEN, "model_type": "qwen2"}
    store.write_json(folder / "config.json", about)
    heads = [{"layer": layer, "head": layer % HEADS, "score": 1.0} for layer in range(layers)]
    store.write_json(store.heads_path(root, folder.name, CONTROL), {"heads": heads, "scores": [[0.0] * HEADS] * layers})
    direction = {"direction": torch.randn(layers, HIDDEN)}
    store.write_safetensors(store.direction_path(root, folder.name, CONTROL), direction, {"method": CONTROL})
    return folder


def copied(source: Path, target: Path) -> float:
    """Wall seconds of copying the files and of flushing them to the disk, as is done with an edited checkpoint."""
    begin = perf_counter()
    target.mkdir()
    for file in source.iterdir():
        shutil.copy(file, target)
    for file in target.iterdir():
        sync(file)
    sync(target)
    return perf_counter() - begin


def plain() -> None:
    """All of the checkpoint in memory, edited and saved: `<source> <root>`, in a process of its own."""
    source, root = map(Path, sys.argv[1:])
    direction = store.read_direction(store.direction_path(root, source.name, CONTROL))
    heads = store.read_json(store.heads_path(root, source.name, CONTROL))["heads"]
    files = sorted(source.glob("*.safetensors"))
    shards = {file.name: load_file(file) for file in files}
    for head in heads:
        name = f"model.layers.{head['layer']}.self_attn.o_proj.weight"
        (shard,) = (shard for shard in shards.values() if name in shard)
        shard[name] = project_out(shard[name], [head["head"]], HIDDEN // HEADS, direction[head["layer"]], 1.0)
    target = root / "plain"
    target.mkdir()
    for file, shard in shards.items():
        save_file(shard, target / file, {"format": "pt"})
        sync(target / file)


def table(found: Sequence[Size]) -> Table:
    columns = (
        Column("MB", "count"),
        Column("copy, s", "rate"),
        Column("edit, s", "rate"),
        Column("as against copy, %", "share"),
        Column("goal, %", "share"),
        Column("plain, s", "rate"),
        Column("plain as against edit, %", "share"),
        Column("peak MB of edit", "count"),
        Column("goal, MB", "count"),
        Column("of plain", "count"),
    )
    rows = []
    for one in found:
        copy, edit, plain = min(one.copies), min(c.wall for c in one.edits), min(c.wall for c in one.plain)
        peaks = [min(cost.peak for cost in costs) for costs in (one.edits, one.plain)]
        rows.append((one.megabytes, copy, edit, edit / copy, GOAL, plain, plain / edit, peaks[0], GOAL_MB, peaks[1]))
    note = (
        "Wall seconds, best of the repeats, which alternate, on the disk of TMPDIR; copies and results are flushed to"
        " it (fsync). One head of every layer is edited. Peaks are of whole processes, libraries included."
    )
    return Table("edit", "Editing a sharded checkpoint", columns, tuple(rows), note)


def drawn(found: Sequence[Size]) -> Figure:
    seconds: dict[str, dict[float, float]] = {"copy": {}, "edit_weights.py": {}, "plain": {}}
    memory: dict[str, dict[float, float]] = {"edit_weights.py": {}, "plain": {}}
    for one in found:
        seconds["copy"][one.megabytes] = min(one.copies)
        for way, costs in (("edit_weights.py", one.edits), ("plain", one.plain)):
            seconds[way][one.megabytes] = min(cost.wall for cost in costs)
            memory[way][one.megabytes] = min(cost.peak for cost in costs)
    x = "MB of the checkpoint"
    panels = [Panel(x, "seconds", seconds), Panel(x, "peak memory, MB", memory, GOAL_MB)]
    return growth(panels, "Editing a sharded checkpoint, flushed to the disk")
