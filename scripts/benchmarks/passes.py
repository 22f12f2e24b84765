"""What reading activations costs, against a bare forward pass over the same tokens and against the plain way."""

import argparse
import contextlib
import ctypes
import gc
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import process_time

import torch
from matplotlib.figure import Figure
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from scripts.benchmarks.child import held
from scripts.benchmarks.measuring import THREADS, Measured, Panel, growth, timed
from thinksteer.activations import pack, padded
from thinksteer.records import Passage, Span
from thinksteer.tables import Column, Table

BATCH_TOKENS = 16384  # as the stages have it
BARE, PLAIN, GOAL = "bare forward pass", "plain", 1.15

Work = Callable[[], object]
Ways = Callable[[PreTrainedModel, Sequence[Passage], int], Mapping[str, Work]]
"""What is measured of a model, passages and most tokens in a batch, by its name: ours, and the plain way."""


@dataclass(frozen=True)
class Shape:
    """Of a random model, and the tokens of each passage."""

    layers: int
    heads: int
    hidden: int
    length: int


BASE = Shape(layers=8, heads=8, hidden=256, length=256)
GROWN = {"length": (128, 512, 1024), "layers": (4, 12), "heads": (4, 16), "hidden": (384, 512)}
NAMES = {"length": "tokens of a passage", "layers": "layers", "heads": "heads", "hidden": "hidden size"}


@dataclass
class Found:
    """The seconds of every repeat and the MB on top of the model, by way."""

    seconds: dict[str, list[float]]
    megabytes: dict[str, float]

    def against(self, way: str, other: str) -> float:
        return min(self.seconds[way]) / min(self.seconds[other])


def measure(args: argparse.Namespace, name: str, title: str, labels: Sequence[str], ways: Ways) -> Measured:
    """Every shape, all ways in turn, on passages with these labels in turn; `name` is that of our way."""
    torch.set_num_threads(THREADS)  # vLLM, measured before, has changed it
    device = "cuda" if args.device != "cpu" and torch.cuda.is_available() else "cpu"
    shapes = [BASE, *(replace(BASE, **{grows: to}) for grows, values in GROWN.items() for to in values)]
    found = {shape: costs(shape, device, made(shape, args.pass_tokens, labels), args.repeats, ways) for shape in shapes}
    repeats = {f"{shape}: {way}": seconds for shape, one in found.items() for way, seconds in one.seconds.items()}
    on = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    return Measured([table(found, name, title, on)], drawn(found, title), repeats, on)


def costs(shape: Shape, device: str, passages: Sequence[Passage], repeats: int, ways: Ways) -> Found:
    """Seconds in the batches that the stages take, memory with one passage at a time, as it is the plain way."""
    model = build(shape, device)

    def all_ways(batch_tokens: int) -> dict[str, Work]:
        found = {BARE: lambda: forward(model, passages, batch_tokens), **ways(model, passages, batch_tokens)}
        return {way: waiting(work, device) for way, work in found.items()}

    clock = process_time if device == "cpu" and THREADS == 1 else None  # other processes do not slow it
    with contextlib.redirect_stderr(io.StringIO()):  # progress bars
        gc.collect()
        measured = timed(all_ways(BATCH_TOKENS), repeats, clock=clock)
        memory = {way: most_memory(work, device) for way, work in all_ways(shape.length).items()}
    return Found({way: [seconds for seconds, _ in all_of] for way, all_of in measured.items()}, memory)


def build(shape: Shape, device: str) -> PreTrainedModel:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=512,
        hidden_size=shape.hidden,
        intermediate_size=shape.hidden * 11 // 4,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads // 2,
    )
    return Qwen2ForCausalLM(config).to(device).eval()


def made(shape: Shape, tokens: int, labels: Sequence[str]) -> list[Passage]:
    """Passages of that many tokens in all, the last seven eighths of each their span."""
    ids = torch.randint(512, (max(len(labels), tokens // shape.length), shape.length)).tolist()
    spans = [Span(labels[row % len(labels)], shape.length // 8, shape.length) for row in range(len(ids))]
    return [Passage(str(row), tuple(one), (span,)) for row, (one, span) in enumerate(zip(ids, spans, strict=True))]


@torch.inference_mode()
def forward(model: PreTrainedModel, passages: Sequence[Passage], batch_tokens: int) -> None:
    """The decoder alone, in the batches that reading takes."""
    for batch in pack(passages, batch_tokens):
        model.base_model(input_ids=padded(batch).to(model.device), use_cache=False)


def waiting(work: Work, device: str) -> Work:
    """The work and all that it started on the device."""

    def run() -> None:
        work()
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def most_memory(work: Work, device: str) -> float:
    """MB that the work holds at most, on top of what is held before."""
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    ctypes.CDLL(None).malloc_trim(0)  # what was freed goes back, or it would hide what is taken
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak begins anew
    before = held("VmRSS")
    work()
    return held("VmHWM") - before


def table(found: Mapping[Shape, Found], name: str, title: str, device: str) -> Table:
    columns = tuple(Column(one, "count") for one in ("layers", "heads", "hidden size", "length"))
    columns += (Column("bare, ms", "count"), Column(f"{name}, ms", "count"), Column("as against bare, %", "share"))
    columns += (Column("goal, %", "share"), Column("plain, ms", "count"), Column("plain as against ours, %", "share"))
    columns += tuple(Column(f"{way}, MB", "count") for way in ("bare", name, "plain"))
    rows = []
    for shape, one in found.items():
        bare, ours, plain = (1000 * min(one.seconds[way]) for way in (BARE, name, PLAIN))
        ratios = (bare, ours, one.against(name, BARE), GOAL, plain, one.against(PLAIN, name))
        rows.append((shape.layers, shape.heads, shape.hidden, shape.length, *ratios, *one.megabytes.values()))
    note = (
        f"Best of the repeats, which alternate; float32, {device}. MB: the most that is held on top of the model, one"
        " passage at a time."
    )
    return Table(name, title, columns, tuple(rows), note)


def drawn(found: Mapping[Shape, Found], title: str) -> Figure:
    """Time above, memory below; what does not grow is as in `BASE`."""
    panels = []
    for unit in ("ms", "MB"):
        for grows in GROWN:
            along = {getattr(shape, grows): one for shape, one in found.items() if alone(shape, grows)}
            curves: dict[str, dict[float, float]] = {}
            for x, one in along.items():
                for way, seconds in one.seconds.items():
                    curves.setdefault(way, {})[x] = 1000 * min(seconds) if unit == "ms" else one.megabytes[way]
            panels.append(Panel(NAMES[grows], unit, curves))
    return growth(panels, title, rows=2)


def alone(shape: Shape, grows: str) -> bool:
    """Whether nothing but this is unlike `BASE`."""
    return replace(shape, **{grows: getattr(BASE, grows)}) == BASE
