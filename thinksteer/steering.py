"""What an edit does: added to activations at run time, or projected out of the weights of chosen heads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from thinksteer.directions import unit
from thinksteer.layout import Layout
from thinksteer.records import Edit, InputError, Site

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@contextmanager
def applied(model: PreTrainedModel, edits: Sequence[Edit]) -> Iterator[None]:
    """Within this block every forward pass of the model is steered, at all positions; edits of one place add up."""
    layout = Layout(model)
    with ExitStack() as hooks:
        for (layer, site), vector in _additions(layout, edits).items():
            # Cast and moved here, once: a hook runs at every decoding step.
            beside = layout.layers[layer].input_layernorm.weight
            vector = vector.to(beside.device, beside.dtype)
            hooks.callback(layout.site(layer, site).watch(partial(torch.add, vector)).remove)
        yield


def _additions(layout: Layout, edits: Sequence[Edit]) -> dict[tuple[int, Site], Tensor]:
    """The vector `[hidden_size]` that the edits together add at each (layer, site), in float64."""
    additions: dict[tuple[int, Site], Tensor] = {}
    for edit in edits:
        layout.check_vectors(edit.vectors)
        if edit.site == "mid":
            raise InputError(
                '"mid" is a place to read: steer at "attn_out", which is added to the same residual stream'
            )
        for layer in edit.layers:
            layout.check_layer(layer)
            vector = edit.coef * edit.vectors[layer].double().cpu()
            if not torch.isfinite(vector).all():
                raise InputError(f"the vector to add at {edit.site} of layer {layer} is not finite")
            place = (layer, edit.site)
            additions[place] = additions[place] + vector if place in additions else vector
    return additions


def project_out(weight: Tensor, heads: Sequence[int], head_dim: int, direction: Tensor, strength: float) -> Tensor:
    """An `o_proj` weight whose heads no longer write along a direction (ThinkEdit, section 4.2).

    A head's block W `[D, head_dim]` of the weight `[D, H * head_dim]` becomes `W - strength v v^T W` with the unit
    direction v. The sign of the direction does not matter: both components along it go, the short and the long.
    Computed in float32 at least, returned in the weight's dtype; the columns of other heads are the same bits.
    """
    columns = _columns(weight, heads, head_dim, direction)
    precision = torch.promote_types(weight.dtype, torch.float32)
    toward = unit(direction.to(weight.device, precision))
    edited = weight.clone()
    for block in columns:
        old = weight[:, block].to(precision)
        edited[:, block] = (old - strength * torch.outer(toward, toward @ old)).to(weight.dtype)
    return edited


def head_norms(weight: Tensor, heads: Sequence[int], head_dim: int, direction: Tensor) -> dict[int, float]:
    """Per head, how strongly it can write along the direction: `||v^T W||` of the weight as stored.

    After `project_out` in a 16-bit dtype this is not exactly zero: rounding the edited weight leaves a remainder.
    """
    columns = _columns(weight, heads, head_dim, direction)
    precision = torch.promote_types(weight.dtype, torch.float32)
    toward = unit(direction.to(weight.device, precision))
    norms = [(toward @ weight[:, block].to(precision)).norm().item() for block in columns]
    return dict(zip(heads, norms, strict=True))


def _columns(weight: Tensor, heads: Sequence[int], head_dim: int, direction: Tensor) -> list[slice]:
    if direction.shape != weight.shape[:1] or weight.shape[1] % head_dim:
        shapes = f"o_proj {tuple(weight.shape)}, direction {tuple(direction.shape)}, heads of {head_dim}"
        raise InputError(f"{shapes} do not fit together: the direction or the heads come from another model")
    num_heads = weight.shape[1] // head_dim
    for head in heads:
        if not 0 <= head < num_heads:
            raise InputError(f"there is no head {head}: the layer has {num_heads}, counted from 0")
    return [slice(head * head_dim, (head + 1) * head_dim) for head in heads]
