"""Where the parts of a model are, and how to look at what passes through them: ask the model, never assume."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from thinksteer.places import Place
from thinksteer.records import InputError, Site
from thinksteer.recurrent import RecurrentLayout, is_recurrent

if TYPE_CHECKING:
    from transformers import PreTrainedModel


PARTS = ("input_layernorm", "self_attn", "post_attention_layernorm", "mlp")
SCALES = ("residual_multiplier", "scale_depth")  # of Granite's and of MiniCPM's configs
UNKNOWN = "models of this architecture cannot be read, steered or edited"


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
        name, decoder = type(model).__name__, model.base_model
        if missing := [part for part in ("layers", "norm") if not hasattr(decoder, part)]:
            raise InputError(f"{name}'s decoder has no {', '.join(missing)}: {UNKNOWN}")
        self.layers: nn.ModuleList = decoder.layers
        self.norm: nn.Module = decoder.norm
        for index, layer in enumerate(self.layers):
            if strange := oddity(layer, model.config):
                raise InputError(f"layer {index} of {name} {strange}: {UNKNOWN}")
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


def oddity(layer: nn.Module, config: Any) -> str | None:
    """What `Layout` does not know in a decoder layer, or misses, by the names of its modules, which are the same in
    transformers and vLLM, and by its model's config. None: nothing."""
    if missing := [part for part in PARTS if not hasattr(layer, part)]:
        return f"has no {', '.join(missing)}"
    if not hasattr(layer.self_attn, "o_proj"):
        return "has no self_attn.o_proj"
    modules = [name for name, module in layer.named_children() if next(module.parameters(), None) is not None]
    if more := [name for name in modules if name not in PARTS]:
        return f"has also {', '.join(more)}"
    if scaled := [f"{key} {value}" for key in SCALES if (value := getattr(config, key, 1.0)) != 1.0]:
        return f"scales what its parts add to the stream ({', '.join(scaled)})"
    return None


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
