"""What the parts of the benchmark share: a clock, a fresh process, an open engine, bars and curves."""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import torch
from matplotlib.figure import Figure

from thinksteer.drawing import COLOURS, GREY, MARKERS, frame
from thinksteer.engines import Steering
from thinksteer.models import ModelRef
from thinksteer.records import InputError
from thinksteer.stage import Generator
from thinksteer.tables import Table

ROOT = Path(__file__).parents[2]
THREADS = torch.get_num_threads()

Result = TypeVar("Result")


@dataclass(frozen=True)
class Measured:
    """What a part found. `repeats`: what was measured of each way, every repeat of it, in the unit of its figure;
    `device`: what the models ran on (None: there were none)."""

    tables: list[Table]
    figure: Figure
    repeats: dict[str, list[float]]
    device: str | None = None


@dataclass(frozen=True)
class Cost:
    """What a process cost: `wall` seconds of its work, without imports; `cpu` seconds and `peak` MB of all of it."""

    wall: float
    cpu: float
    peak: float


def child(work: str, *flags: object) -> Cost:
    """What `work`, "<module>:<function>", costs in a fresh process with these flags. InputError if it fails."""
    command = [sys.executable, "-m", "scripts.benchmarks.child", work, *map(str, flags)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"{work} failed while it was measured: {done.stderr.strip()[-2000:]}")
    return Cost(**json.loads(done.stdout))


def timed(
    ways: Mapping[str, Callable[[], Result]],
    repeats: int,
    forget: Callable[[], bool] = lambda: True,
    clock: Callable[[], float] | None = None,
) -> dict[str, list[tuple[float, Result]]]:
    """The seconds that each way takes and what it gives: once unmeasured, then `repeats` times in turn with the others;
    `forget` empties the prefix cache before each. `clock`: of the wall, unless another is given."""
    now = clock or perf_counter
    found: dict[str, list[tuple[float, Result]]] = {way: [] for way in ways}
    for repeat in range(-1, repeats):
        for way, work in ways.items():
            if not forget():
                raise RuntimeError("the prefix cache is in use")
            begin = now()
            result = work()
            seconds = now() - begin
            if repeat >= 0:
                found[way].append((seconds, result))
    return found


def engines(args: argparse.Namespace) -> list[str]:
    """Those to measure."""
    return [args.engine] if args.engine else ["hf", *(["vllm"] if find_spec("vllm") else [])]


@contextmanager
def opened(
    args: argparse.Namespace, ref: ModelRef, name: str, steering: Steering = "none"
) -> Iterator[tuple[Generator, Any, float]]:
    """What the stages generate with, without forced answers; its engine; and the seconds until that was ready."""
    torch.set_num_threads(THREADS)  # vLLM, opened before, has changed it
    with Generator(argparse.Namespace(**vars(args) | {"engine": name}), ref, steering) as generator:
        generator.sampling = replace(generator.sampling, forced_answer="")
        begin = perf_counter()
        engine = generator.engine
        yield generator, engine, perf_counter() - begin
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()  # vLLM counts what is free


def bars(rows: Sequence[tuple[str, Sequence[float], int]], best: Callable[..., float], unit: str, title: str) -> Figure:
    """A bar for the best of each row's repeats, a dot for each repeat; a row is its name, its repeats, its colour."""
    figure, (panel,) = frame(1, 8, 0.4 * len(rows) + 1)
    number = "{:.0f}" if max(max(repeats) for _, repeats, _ in rows) >= 100 else "{:.3g}"
    for at, (name, repeats, colour) in enumerate(rows):
        panel.barh(name, best(repeats), color=COLOURS[colour], alpha=0.5)
        panel.plot(repeats, [at] * len(repeats), linestyle="none", marker="o", markersize=3, color="black")
        place = {"xytext": (6, 0), "textcoords": "offset points", "va": "center"}
        panel.annotate(number.format(best(repeats)), (max(repeats), at), **place)
    panel.invert_yaxis()
    panel.margins(x=0.12)
    panel.set(xlabel=f"{unit} (bar and number: best repeat; dots: all)")
    figure.suptitle(title, x=0.01, ha="left", fontsize=9)
    return figure


@dataclass(frozen=True)
class Panel:
    """How costs grow: `curves[name][x]`; `goal`: a dashed line (None: there is none)."""

    x: str
    y: str
    curves: Mapping[str, Mapping[float, float]]
    goal: float | None = None


def growth(panels: Sequence[Panel], title: str, rows: int = 1) -> Figure:
    """A panel for each, in rows of as many; a curve of one name has one colour in all."""
    figure, axes = frame(len(panels), 4 * len(panels) / rows, 3 * rows + 0.4, rows=rows)
    names = list(dict.fromkeys(name for panel in panels for name in panel.curves))
    for axis, panel in zip(axes, panels, strict=True):
        for name, curve in panel.curves.items():
            index = names.index(name)
            axis.plot(
                *zip(*sorted(curve.items()), strict=True), color=COLOURS[index], marker=MARKERS[index], label=name
            )
        if panel.goal is not None:
            axis.axhline(panel.goal, color=GREY, linestyle="--", label="goal")
        axis.set(xlabel=panel.x, ylabel=panel.y)
        axis.set_xlim(left=0)
        axis.set_ylim(bottom=0)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=len(labels), frameon=False, fontsize=9)
    figure.suptitle(title, x=0.01, ha="left", fontsize=9)
    return figure
