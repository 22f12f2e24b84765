"""Where the parts of a model are, and how to look at what passes through them: ask the model, never assume."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from thinksteer.places import Place
from thinksteer.records import InputError, Site
from thinksteer.recurrent import RecurrentLayout, is_recurrent

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Layout:
    """The parts of a decoder whose layers are `mid = x + attention(norm(x)); block_out = mid + mlp(norm(mid))`.

    Llama, Mistral, Qwen2 and Qwen3 are built so. What is built otherwise is refused: there the same names of modules
    can stand for other places of the residual stream.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        if is_recurrent(model):
            raise InputError(
                f"{type(model).__name__} runs the same blocks at many depth steps: its states can be read and steered, "
                "but no layer or head of its own be scored or edited"
            )
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


def layout_of(model: PreTrainedModel) -> Layout | RecurrentLayout:
    """Where the parts of this model are; InputError if it is of no architecture that is known here.

    What needs layers with weights and heads of their own takes a `Layout`.
    """
    return RecurrentLayout(model) if is_recurrent(model) else Layout(model)


def check_vectors(vectors: Tensor, shape: tuple[int, int]) -> None:
    """Refuse a direction that is not `[num_layers, hidden_size]` of the model."""
    if tuple(vectors.shape) != shape:
        raise InputError(
            f"the direction has shape {tuple(vectors.shape)}, the model [layers, hidden size] {shape}: the "
            "direction was made from another model, or with another --mean_recurrence: make it with stage 2"
        )


def _require(module: nn.Module, names: tuple[str, ...], owner: str) -> None:
    missing = [name for name in names if not hasattr(module, name)]
    if missing:
        raise InputError(
            f"{owner} has no {', '.join(missing)}: models of this architecture cannot be read or edited yet"
        )
