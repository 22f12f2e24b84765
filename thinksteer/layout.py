"""Where the parts of a model are, and how to look at what passes through them: ask the model, never assume."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn

from thinksteer.places import Place
from thinksteer.records import InputError, Site
from thinksteer.recurrent import RecurrentLayout, is_recurrent

if TYPE_CHECKING:
    from transformers import PreTrainedModel


PARTS = ("input_layernorm", "self_attn", "post_attention_layernorm", "mlp")
SCALES = ("residual_multiplier", "scale_depth")  # of Granite's and of MiniCPM's configs
UNKNOWN = "models of this architecture cannot be read, steered or edited; to generate alone, use --engine vllm"
At = tuple[int, Site] | Literal["final"]
TRIAL = ((1, 2, 3, 1), (1, 2, 3, 2))  # texts of tokens that every vocabulary has, which differ in the last


class Layout:
    """The parts of a decoder whose layers are `mid = x + attention(norm(x)); block_out = mid + mlp(norm(mid))`.

    Llama, Mistral, Qwen2 and Qwen3 are built so. What is built otherwise is refused, by what its modules are named here
    and by what passes through them in `check_runs`: the same names can stand for other places of the residual stream.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        if is_recurrent(model):
            raise InputError(
                f"{type(model).__name__} runs the same blocks at many depth steps: its states can be read and steered, "
                "but no layer or head of its own be scored or edited"
            )
        name, decoder = type(model).__name__, model.base_model
        if missing := [part for part in ("layers", "norm") if getattr(decoder, part, None) is None]:
            raise InputError(f"{name}'s decoder has no {', '.join(missing)}: {UNKNOWN}")
        if kinds := sorted(set(_length_dependent(model.config))):
            raise InputError(
                f"the rotary embedding of {name} is {', '.join(kinds)}: its angles change with the longest text of a "
                "batch, so no text can be read or steered by itself; to generate alone, use --engine vllm"
            )
        self.layers: nn.ModuleList = decoder.layers
        self.norm: nn.Module = decoder.norm
        for index, layer in enumerate(self.layers):
            if strange := oddity(layer, model.config):
                raise InputError(f"layer {index} of {name} {strange}: {UNKNOWN}")
        shapes = [_linear_shape(layer.self_attn.o_proj) for layer in self.layers]
        if unlike := [index for index, shape in enumerate(shapes) if shape is None or shape != shapes[0]]:
            raise InputError(f"layer {unlike[0]} of {name} has an o_proj of another kind or shape: {UNKNOWN}")
        self.hidden_size, width = shapes[0]
        self.num_heads: int = model.config.num_attention_heads
        # Not hidden_size // num_heads: Qwen3 and Mistral-Nemo choose their head_dim freely.
        self.head_dim: int = width // self.num_heads

    def o_proj(self, layer: int) -> nn.Linear:
        """Projects all heads' outputs `[H * head_dim]` into the residual stream; its weight is `[D, H * head_dim]`.

        InputError: its weight is not stored as it is used (quantized, or with an adapter).
        """
        found = self.layers[layer].self_attn.o_proj
        if type(found) is not nn.Linear or not found.weight.is_floating_point():
            raise InputError(
                f"o_proj of layer {layer} is stored in another form ({type(found).__name__}): heads are scored and "
                "edited in plain weights only; give the checkpoint without quantization and adapters"
            )
        return found

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
    if missing := [part for part in PARTS if getattr(layer, part, None) is None]:
        return f"has no {', '.join(missing)}"
    if not hasattr(layer.self_attn, "o_proj"):
        return "has no self_attn.o_proj"
    modules = [name for name, module in layer.named_children() if next(module.parameters(), None) is not None]
    modules += [name for name, _ in layer.named_parameters(recurse=False)]
    if more := [name for name in modules if name not in PARTS]:
        return f"has also {', '.join(more)}"
    if scaled := [f"{key} {value}" for key in SCALES if (value := getattr(config, key, 1.0)) != 1.0]:
        return f"scales what its parts add to the stream ({', '.join(scaled)})"
    return None


def _linear_shape(module: nn.Module) -> tuple[int, int] | None:
    """Width of the output and of the input."""
    return (module.out_features, module.in_features) if isinstance(module, nn.Linear) else None


def _length_dependent(config: Any) -> Iterator[str]:
    """The types of rotary embedding in a config whose angles depend on the length of what is read; layers of one kind
    may have one of their own."""
    stated = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    for one in (stated, *stated.values()):
        if isinstance(one, Mapping):
            kind = str(one.get("rope_type", one.get("type")))
            if "dynamic" in kind or kind == "longrope":
                yield kind


def layout_of(model: PreTrainedModel) -> Layout | RecurrentLayout:
    """Where the parts of this model are; InputError if it is of no architecture that is known here.

    What needs layers with weights and heads of their own takes a `Layout`.
    """
    return RecurrentLayout(model) if is_recurrent(model) else Layout(model)


@torch.inference_mode()
def check_runs(model: PreTrainedModel) -> None:
    """Let the model read a few tokens. InputError: it fails, its layers do not add up as its layout says, or a token
    sees those after it, as in models for embeddings: there neither padding nor a cache would be right."""
    layout, name = layout_of(model), type(model).__name__
    places: dict[At, Place] = {
        (layer, site): layout.site(layer, site) for layer in range(layout.shape[0]) for site in get_args(Site)
    }
    places["final"] = layout.final
    seen: dict[At, list[Tensor]] = {at: [] for at in places}
    with ExitStack() as hooks:
        for at, place in places.items():
            hooks.callback(place.watch(lambda hidden, at=at: seen[at].append(hidden.clone())).remove)
        try:
            model(input_ids=torch.tensor(TRIAL, device=model.get_input_embeddings().weight.device), use_cache=False)
        except InputError:
            raise
        except Exception as error:  # of any code, whatever it happens to stumble over
            what = " ".join(f"{type(error).__name__}: {error}".split())
            raise InputError(
                f"transformers fails to run {name} on a few tokens ({what:.300}); use --engine vllm"
            ) from error
    if any(len(visits) != 1 for visits in seen.values()):
        raise InputError(f"{name} does not run each part of its layers, and its final norm, once: {UNKNOWN}")
    if isinstance(layout, Layout) and (strange := _misfit({at: one for at, (one,) in seen.items()}, layout.shape[0])):
        raise InputError(f"{strange} in {name}: {UNKNOWN}")
    if _differ(*seen["final"][0][:, :-1].float()):
        raise InputError(
            f"{name} lets a token see those after it (is_causal or use_bidirectional_attention in its config.json): "
            "such a model answers nothing; give one that is trained to generate"
        )


def _misfit(seen: Mapping[At, Tensor], num_layers: int) -> str | None:
    """The first place where the residual stream is not the sum that `Layout` has there."""
    for layer in range(num_layers):
        block_in, attn_out, mid, mlp_out, block_out = (seen[layer, site] for site in get_args(Site))
        sums = [("mid", block_in, attn_out, mid), ("block_out", mid, mlp_out, block_out)]
        if layer:
            sums.append(("block_in", seen[layer - 1, "block_out"].to(block_in), torch.zeros_like(block_in), block_in))
        for site, stream, added, found in sums:
            rounding = 4 * torch.finfo(found.dtype).eps * (stream.abs() + added.abs())
            if (found - stream - added).abs().gt(rounding).any():
                return f"layer {layer} does not add up at {site}"
    return None


def _differ(one: Tensor, other: Tensor) -> bool:
    """Whether by more than 16 bits round; what is not finite is for others to find."""
    return bool((one - other).abs().gt(0.05 * other.std()).any())


@torch.inference_mode()
def output_head(model: PreTrainedModel) -> nn.Module:
    """What makes the logits of the states behind the final norm. InputError: the model then scales or bends them."""
    seen, head = [], model.get_output_embeddings()
    handle = layout_of(model).final.watch(seen.append)
    logits = model(input_ids=torch.tensor(TRIAL, device=model.get_input_embeddings().weight.device)).logits
    handle.remove()
    if _differ(head(seen[0]).to(logits), logits):
        raise InputError(f"{type(model).__name__} scales or bends its logits: they cannot be read off its states")
    return head


def check_vectors(vectors: Tensor, shape: tuple[int, int]) -> None:
    """Refuse a direction that is not `[num_layers, hidden_size]` of the model."""
    if tuple(vectors.shape) != shape:
        raise InputError(
            f"the direction has shape {tuple(vectors.shape)}, the model [layers, hidden size] {shape}: the "
            "direction was made from another model, or with another --mean_recurrence: make it with stage 2"
        )
