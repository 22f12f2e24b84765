"""Steering at every position as biases of an ordinary checkpoint, which runs at full speed in any engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from thinksteer.records import EVERYWHERE, Edit, InputError, Site
from thinksteer.steering import changes

# What writes into the residual stream at a site: a module, its projections (the last one writes), and the setting that
# gives all of them a bias.
BRANCHES: dict[Site, tuple[str, tuple[str, ...], str]] = {
    "attn_out": ("self_attn", ("q_proj", "k_proj", "v_proj", "o_proj"), "attention_bias"),
    "mlp_out": ("mlp", ("gate_proj", "up_proj", "down_proj"), "mlp_bias"),
}
LLAMA_LIKE = ("llama", "mistral", "qwen2")  # a Llama with biases is all of them
# Settings that a Llama does not have: vLLM would obey `layer_types` there too, and `auto_map` names code of its own.
NOT_LLAMAS = ("sliding_window", "use_sliding_window", "max_window_layers", "layer_types", "auto_map")


@dataclass(frozen=True)
class Baked:
    """What turns a checkpoint into a steered one: its config.json, new tensors, and functions of those that change."""

    config: dict[str, Any]
    added: dict[str, Tensor]
    changed: dict[str, Callable[[Tensor], Tensor]]


def bake(config: Mapping[str, Any], stored: Mapping[str, Tensor], edits: Sequence[Edit]) -> Baked:
    """The edits as biases of a checkpoint with this config.json and these tensors (read are their shapes and dtypes).

    A constant added to the output of a module is a bias of its last projection. Where one projection of a module has a
    bias all have: the others get zeros. New biases are float32 at least, which loading casts to the model's dtype; one
    that is there already keeps its own. InputError: an architecture that has no such biases, an edit that does not act
    everywhere or acts elsewhere, does not fit the model, or is too large for the checkpoint's dtype.
    """
    if any(not edit.constant or edit.site not in BRANCHES for edit in edits):
        raise InputError(f"only what is added everywhere, at {' or '.join(BRANCHES)}, can become a bias")
    steered = {edit.site for edit in edits}
    baked = Baked(_architecture(config, steered), {}, {})
    if not config.get("dtype") and not config.get("torch_dtype"):  # loaders might go by the biases
        dtype = _find(stored, "model.layers.0.self_attn.o_proj.weight").dtype
        baked.config["torch_dtype"] = str(dtype).removeprefix("torch.")
    shape = config["num_hidden_layers"], config["hidden_size"]
    vectors = {place: parts[EVERYWHERE].added for place, parts in changes(edits, shape).items()}
    for site, (module, projections, setting) in BRANCHES.items():
        places = [(layer, part) for layer in range(shape[0]) for part in projections]
        names = [f"model.layers.{layer}.{module}.{part}" for layer, part in places]
        if site not in steered and not any(f"{name}.bias" in stored for name in names):
            continue
        baked.config[setting] = True
        for (layer, part), name in zip(places, names, strict=True):
            vector = vectors.get((layer, site)) if part == projections[-1] else None
            if f"{name}.bias" not in stored:
                baked.added[f"{name}.bias"] = _bias(_find(stored, f"{name}.weight"), vector)
            elif vector is not None:
                baked.changed[f"{name}.bias"] = partial(_plus, vector=vector, loaded=stored[f"{name}.bias"].dtype)
    return baked


def _architecture(config: Mapping[str, Any], steered: set[Site]) -> dict[str, Any]:
    """The config.json of the same model in an architecture that has the biases."""
    family = config.get("model_type")
    if family == "qwen3" and "mlp_out" not in steered:
        # vLLM's own Qwen3 drops a bias of o_proj without a word (0.32); under this name it runs that of transformers.
        own = {name: value for name, value in config.items() if name != "auto_map"}
        return {**own, "architectures": ["TransformersForCausalLM"]}
    if family == "qwen3":
        raise InputError("a Qwen3 has no biases in its MLP: bake attn_out alone, or steer at run time (steer_eval.py)")
    if family not in LLAMA_LIKE:
        known = ", ".join((*LLAMA_LIKE, "qwen3"))
        raise InputError(f"a model of type {family} cannot be baked, only {known}: steer at run time (steer_eval.py)")
    return llama_config(config, "steer at run time (steer_eval.py)")


def llama_config(config: Mapping[str, Any], cure: str) -> dict[str, Any]:
    """The config.json of the same model as a Llama. InputError, which ends in the cure, where it is none."""
    from transformers import AutoConfig, LlamaConfig

    if config.get("model_type") not in LLAMA_LIKE:
        raise InputError(f"a model of type {config.get('model_type')} is no Llama with biases: {cure}")
    base = AutoConfig.for_model(**deepcopy(config))  # which writes into the dicts it is given
    if getattr(base, "sliding_window", None) is not None:
        raise InputError(f"sliding-window attention has no form as a Llama: {cure}")
    # What the file leaves out is the family's default (of the rotary embedding too), not Llama's.
    own = {name: value for name, value in base.to_dict().items() if name in LlamaConfig.__annotations__}
    said = {name: value for name, value in config.items() if name not in NOT_LLAMAS}
    return {**own, **said, "architectures": ["LlamaForCausalLM"], "model_type": "llama"}


def _find(stored: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in stored:
        raise InputError(f"the checkpoint has no floating-point {name}: take the one that is not quantised")
    return stored[name]


def _bias(weight: Tensor, vector: Tensor | None) -> Tensor:
    """A bias `[out]` for a weight `[out, in]`; in 16 bits it would not be what steering adds in float32."""
    zero = torch.zeros(weight.shape[0], dtype=torch.promote_types(weight.dtype, torch.float32))
    return zero if vector is None else _plus(zero, vector, weight.dtype)


def _plus(bias: Tensor, vector: Tensor, loaded: torch.dtype) -> Tensor:
    """In the dtype of the bias, and finite in the one that it is loaded in."""
    total = (bias.double() + vector).to(bias.dtype)
    if not torch.isfinite(total.to(loaded)).all():
        raise InputError(f"the vector to add is too large for {loaded}: lower --direction_weight")
    return total
