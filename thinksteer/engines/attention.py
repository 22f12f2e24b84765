"""The attention of a model, replaced by one of ours; refused where that would not be the attention that it has."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from transformers import PreTrainedModel
from transformers.cache_utils import CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import AttentionInterface

from thinksteer.layout import layout_of
from thinksteer.records import InputError

Attention = Callable[..., tuple[Tensor, None]]
"""As transformers calls it: module, query, key, value, mask, and keywords."""
PLAIN = (DynamicLayer, DynamicSlidingWindowLayer)  # no other kinds of them: those keep more than keys and values


@contextmanager
def replaced(model: PreTrainedModel, name: str, attention: Attention) -> Iterator[list[CacheLayerMixin]]:
    """Inside the `with` the model attends with `attention`, known to transformers by that name; gives what each layer
    caches of one token.

    InputError: no layout is known of the model, it has attention of its own, with soft-capping or with sinks, or it
    caches something else than keys and values.
    """
    depth, who, asked = layout_of(model).shape[0], type(model).__name__, set()
    own = f"{who} does not let its attention be replaced; use --engine vllm"

    def ask(module: Module, *tensors: Tensor, **settings: Any) -> tuple[Tensor, None]:
        if settings.get("softcap") is not None or settings.get("s_aux") is not None:
            raise InputError(f"the attention of {who} has soft-capping or sinks; use --engine vllm")
        asked.add(module.layer_idx)
        return sdpa_attention_forward(module, *tensors, **settings)

    AttentionInterface.register(name, ask)
    before = model.config._attn_implementation
    try:
        model.set_attn_implementation(name)
    except ValueError as error:  # of a model that has eager attention alone
        raise InputError(own) from error
    if model.config._attn_implementation != name:
        raise InputError(own)
    try:
        try:
            layers = _cached(model)
        except InputError:
            raise
        except Exception as error:  # of any code, whatever it happens to stumble over
            raise InputError(own) from error
        for index, layer in enumerate(layers):
            if type(layer) not in PLAIN:
                raise InputError(f"layer {index} of {who} caches more than keys and values; use --engine vllm")
        if asked != set(range(depth)):
            raise InputError(own)
        AttentionInterface.register(name, attention)
        yield layers
    finally:
        model.set_attn_implementation(before)


@torch.inference_mode()
def _cached(model: PreTrainedModel) -> list[CacheLayerMixin]:
    ids = torch.zeros(1, 1, dtype=torch.long, device=model.device)
    mask = torch.zeros(1, 1, 1, 1, dtype=model.dtype, device=model.device)  # some read it themselves
    return model(input_ids=ids, attention_mask=mask, use_cache=True).past_key_values.layers
