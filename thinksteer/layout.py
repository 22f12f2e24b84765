"""Where the parts of a model are, and how to look at what passes through them: ask the model, never assume."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from thinksteer.records import InputError, Site

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, eq=False)
class Place:
    """A tensor `[B, T, width]` inside the forward pass: the first input of a module, or its (first) output."""

    module: nn.Module
    side: Literal["input", "output"]

    def watch(self, visit: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
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


class Layout:
    """The parts of a decoder whose layers are `mid = x + attention(norm(x)); block_out = mid + mlp(norm(mid))`.

    Llama, Mistral, Qwen2 and Qwen3 are built so. What is built otherwise is refused: there the same names of modules
    can stand for other places of the residual stream.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        decoder = model.base_model
        _require(decoder, ("layers", "norm"), f"{type(model).__name__}'s decoder")
        self.layers: nn.ModuleList = decoder.layers
        self.norm: nn.Module = decoder.norm
        parts = ("input_layernorm", "self_attn", "post_attention_layernorm", "mlp")
        for index, layer in enumerate(self.layers):
            name = f"layer {index} of {type(model).__name__}"
            _require(layer, parts, name)
            _require(layer.self_attn, ("o_proj",), f"the attention of {name}")
            more = [
                part
                for part, module in layer.named_children()
                if part not in parts and next(module.parameters(), None) is not None
            ]
            if more:
                raise InputError(f"{name} has also {', '.join(more)}: how its parts add up is not known here")
        self.hidden_size: int = self.layers[0].self_attn.o_proj.out_features
        self.num_heads: int = model.config.num_attention_heads
        # Not hidden_size // num_heads: Qwen3 and Mistral-Nemo choose their head_dim freely.
        self.head_dim: int = self.layers[0].self_attn.o_proj.in_features // self.num_heads

    def o_proj(self, layer: int) -> nn.Linear:
        """Projects all heads' outputs `[H * head_dim]` into the residual stream; its weight is `[D, H * head_dim]`."""
        return self.layers[layer].self_attn.o_proj

    def site(self, layer: int, site: Site) -> Place:
        block = self.layers[layer]
        return {
            "block_in": Place(block, "input"),
            "attn_out": Place(block.self_attn, "output"),
            "mid": Place(block.post_attention_layernorm, "input"),
            "mlp_out": Place(block.mlp, "output"),
            "block_out": Place(block, "output"),
        }[site]

    def beside(self, layer: int) -> Tensor:
        """A weight of that layer: what is to be added there needs its device and dtype."""
        return self.layers[layer].input_layernorm.weight

    @property
    def final(self) -> Place:
        """The residual stream behind the final norm."""
        return Place(self.norm, "output")

    @property
    def shape(self) -> tuple[int, int]:
        """Layers and hidden size: the shape of a direction."""
        return len(self.layers), self.hidden_size


def layout_of(model: PreTrainedModel) -> Layout:
    """Where the parts of this model are; InputError if it is of no architecture that is known here."""
    return Layout(model)


def check_vectors(vectors: Tensor, shape: tuple[int, int]) -> None:
    """Refuse a direction that is not `[num_layers, hidden_size]` of the model."""
    if tuple(vectors.shape) != shape:
        raise InputError(
            f"the direction has shape {tuple(vectors.shape)}, the model [layers, hidden size] {shape}: the "
            "direction was made from another model"
        )


def _require(module: nn.Module, names: tuple[str, ...], owner: str) -> None:
    missing = [name for name in names if not hasattr(module, name)]
    if missing:
        raise InputError(
            f"{owner} has no {', '.join(missing)}: models of this architecture cannot be read or edited yet"
        )
