"""Recurrent-depth models: a prelude, a core whose blocks run again and again, and a coda (Geiping et al. 2025).

Such a model (arXiv 2502.05171; Huginn-0125) has no layers but depth steps, which are numbered in the order in which
they run: the prelude's p blocks 0..p-1, then p + c * r + k for block k of the core's c in recurrence r, then the coda.
Huginn has 2 + 4 * 32 + 2 = 132 of them; step 66 is block 0 in recurrence 16, step 1 the last of the prelude.

A recurrence mixes the prelude's output into the latent state (the adapter), then runs the core's blocks. The first
latent state is noise; `seed_initial_states` says which.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from thinksteer.places import Handle, Place
from thinksteer.records import InputError, Site

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PARTS = ("wte", "prelude", "adapter", "core_block", "coda", "ln_f")


@dataclass(frozen=True)
class Depth:
    """How many blocks prelude, core and coda have, and how often the core runs."""

    prelude: int
    core: int
    coda: int
    recurrences: int

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self:
        """From what a config.json says."""
        names = ("n_layers_in_prelude", "n_layers_in_recurrent_block", "n_layers_in_coda", "mean_recurrence")
        return cls(*(config[name] for name in names))

    @property
    def steps(self) -> int:
        return self.prelude + self.core * self.recurrences + self.coda

    def place(self, step: int) -> tuple[str, int, int]:
        """The part that a step belongs to, the block of it, and how many times that block has run before."""
        if step < self.prelude:
            return "prelude", step, 0
        recurrence, block = divmod(step - self.prelude, self.core)
        if recurrence < self.recurrences:
            return "core_block", block, recurrence
        return "coda", step - self.prelude - self.core * self.recurrences, 0


def step_name(step: int, depth: Depth) -> str:
    """A depth step in words: "prelude, block 1", "recurrence 16, block 0", "coda, block 0"."""
    part, block, recurrence = depth.place(step)
    return f"{f'recurrence {recurrence}' if part == 'core_block' else part}, block {block}"


def is_recurrent(model: PreTrainedModel) -> bool:
    return hasattr(model.config, "mean_recurrence")


@dataclass(frozen=True, eq=False)
class StepPlace(Place):
    """A place in a module that runs several times in one forward pass of `model`: at its run number `run`, from 0.

    `adapter` runs once in each of the `recurrences` that the steps were numbered for.
    """

    model: nn.Module
    adapter: nn.Module
    recurrences: int
    run: int

    def watch(self, visit: Callable[[Tensor], Tensor | None]) -> Handle:
        """As of any place; InputError from a forward pass that has more or fewer recurrences."""
        runs = recurrences = 0

        def begin(*_: object) -> None:
            nonlocal runs, recurrences
            runs = recurrences = 0

        def at_run(hidden: Tensor) -> Tensor | None:
            nonlocal runs
            runs += 1
            return visit(hidden) if runs == self.run + 1 else None

        def recur(*_: object) -> None:
            nonlocal recurrences
            recurrences += 1
            if recurrences > self.recurrences:
                raise InputError(self._wrong(f"more than {self.recurrences}"))

        def end(*_: object) -> None:
            if recurrences < self.recurrences:
                raise InputError(self._wrong(f"only {recurrences}"))

        handles = Handles()
        handles.callback(self.model.register_forward_pre_hook(begin).remove)
        handles.callback(self.adapter.register_forward_pre_hook(recur).remove)
        handles.callback(super().watch(at_run).remove)
        handles.callback(self.model.register_forward_hook(end).remove)
        return handles

    def _wrong(self, what: str) -> str:
        return (
            f"a forward pass ran {what} recurrences, but its depth steps are numbered for {self.recurrences}: choose "
            "them with --mean_recurrence, not with num_steps, and keep the model in eval mode"
        )


class Handles(ExitStack):
    """Several hooks that end together."""

    remove = ExitStack.close


class RecurrentLayout:
    """The parts of a recurrent-depth model, by depth step: there `layout.Layout` has layers.

    Its blocks are `mid = norm_2(x + attention(norm_1(x))); block_out = norm_4(mid + mlp(norm_3(mid)))`, so what is
    added at "attn_out" or "mlp_out" is normed with the residual stream that it joins. Hooks of a core block belong to
    one of its runs. The number of recurrences is that of the model's config, as in eval mode.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model, self.parts = model.base_model, getattr(model.base_model, "transformer", {})
        if missing := [name for name in PARTS if name not in self.parts]:
            raise InputError(
                f"{type(model).__name__} is of recurrent depth, but has no transformer.{missing[0]}: it is not "
                "built as Huginn is and cannot be read or steered"
            )
        self.depth = Depth.of(model.config.to_dict())

    @property
    def shape(self) -> tuple[int, int]:
        """Depth steps and hidden size: the shape of a direction."""
        return self.depth.steps, self.parts["wte"].embedding_dim

    def site(self, step: int, site: Site) -> Place:
        block, (_, _, run) = self._block(step), self.depth.place(step)
        module, side = {
            "block_in": (block, "input"),
            "attn_out": (block.attn, "output"),
            "mid": (block.norm_2, "output"),
            "mlp_out": (block.mlp, "output"),
            "block_out": (block, "output"),
        }[site]
        return StepPlace(module, side, self.model, self.parts["adapter"], self.depth.recurrences, run)

    def beside(self, step: int) -> Tensor:
        """A weight of that step's block: what is to be added there needs its device and dtype."""
        return self._block(step).norm_1.weight

    @property
    def final(self) -> Place:
        """The residual stream behind the final norm, which runs once before, after the last recurrence."""
        norm, adapter = self.parts["ln_f"], self.parts["adapter"]
        return StepPlace(norm, "output", self.model, adapter, self.depth.recurrences, run=1)

    def _block(self, step: int) -> nn.Module:
        part, block, _ = self.depth.place(step)
        return self.parts[part][block]


def seed_initial_states(model: PreTrainedModel) -> Handle:
    """From now on the first latent state at a position is drawn from a seed that is made of the tokens up to there.

    So a text has the same states whenever it is read, in whatever batch, with or without a cache, and what is read
    from a response are the states that the model had when it wrote it; while noise at one position of two texts is
    independent, and averages out over records as that of upstream's unseeded runs does. The distribution is the
    model's own (`initialize_state`). A caller's `input_states` are left alone.

    The tokens are summed up by their CRC-32, which can be continued: that of a cached prefix is kept on its cache.
    """
    sums: list[int] = []

    def before(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]] | None:
        nonlocal sums
        if kwargs.get("input_states") is not None:
            return None
        ids = args[0] if args else kwargs["input_ids"]
        sums = getattr(kwargs.get("past_key_values"), "checksums", [0] * len(ids))
        seeds = [_checksums(row, start) for row, start in zip(ids.tolist(), sums, strict=True)]
        sums = [row[-1] for row in seeds]
        weight = model.get_input_embeddings().weight
        states = _states(model, seeds, weight.shape[1]).to(weight.device, weight.dtype)
        return args, kwargs | {"input_states": states}

    def after(module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
        if output.past_key_values is not None:
            output.past_key_values.checksums = sums

    handles = Handles()
    handles.callback(model.register_forward_pre_hook(before, with_kwargs=True).remove)
    handles.callback(model.register_forward_hook(after, with_kwargs=True).remove)
    return handles


def _checksums(ids: Sequence[int], start: int) -> list[int]:
    """The checksum of the tokens up to each position; `start`: that of those before."""
    sums = []
    for token in ids:
        start = zlib.crc32(token.to_bytes(4, "little"), start)
        sums.append(start)
    return sums


def _states(model: PreTrainedModel, seeds: Sequence[Sequence[int]], width: int) -> Tensor:
    """Initial latent states `[B, T, width]` on the CPU, each position's from its own seed."""
    rows, empty = [], torch.empty(1, 1, width)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for row in seeds:
            for seed in row:
                torch.default_generator.manual_seed(seed)
                rows.append(model.initialize_state(empty))
    return torch.cat(rows).view(len(seeds), -1, width)
