"""A tensor inside a forward pass, and how to look at it or replace it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor, nn


class Handle(Protocol):
    def remove(self) -> None:
        """Ends the watching."""


@dataclass(frozen=True, eq=False)
class Place:
    """A tensor `[B, T, width]` inside the forward pass: the first input of a module, or its (first) output."""

    module: nn.Module
    side: Literal["input", "output"]

    def watch(self, visit: Callable[[Tensor], Tensor | None]) -> Handle:
        """Call `visit` with the tensor at every forward pass; what it returns, if anything, replaces the tensor."""

        def before(module: nn.Module, inputs: tuple) -> tuple | None:
            changed = visit(inputs[0])
            return None if changed is None else (changed, *inputs[1:])

        def after(module: nn.Module, inputs: tuple, output: Tensor | tuple) -> Tensor | tuple | None:
            if not isinstance(output, tuple):
                return visit(output)
            changed = visit(output[0])
            return None if changed is None else (changed, *output[1:])

        if self.side == "input":
            return self.module.register_forward_pre_hook(before)
        return self.module.register_forward_hook(after)
