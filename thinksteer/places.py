"""A tensor inside a forward pass, and how to look at it or replace it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from thinksteer.records import InputError


class Handle(Protocol):
    def remove(self) -> None:
        """Ends the watching."""


@dataclass(frozen=True, eq=False)
class Place:
    """A tensor `[B, T, width]` inside the forward pass: the first input of a module, by position or by its name, or its
    (first) output."""

    module: nn.Module
    side: Literal["input", "output"]

    def watch(self, visit: Callable[[Tensor], Tensor | None]) -> Handle:
        """Call `visit` with the tensor at every forward pass; what it returns, if anything, replaces the tensor.

        InputError from a forward pass that calls the module without its first input.
        """
        first = next(iter(signature(self.module.forward).parameters))

        def before(module: nn.Module, inputs: tuple, named: dict[str, Any]) -> tuple[tuple, dict[str, Any]] | None:
            if not inputs and first not in named:
                given = ", ".join(named) or "nothing"
                raise InputError(f"{type(module).__name__} is called with {given}, not with its input {first}")
            changed = visit(inputs[0] if inputs else named[first])
            if changed is None:
                return None
            return ((changed, *inputs[1:]), named) if inputs else (inputs, named | {first: changed})

        def after(module: nn.Module, inputs: tuple, output: Tensor | tuple) -> Tensor | tuple | None:
            if not isinstance(output, tuple):
                return visit(output)
            changed = visit(output[0])
            return None if changed is None else (changed, *output[1:])

        if self.side == "input":
            return self.module.register_forward_pre_hook(before, with_kwargs=True)
        return self.module.register_forward_hook(after)
