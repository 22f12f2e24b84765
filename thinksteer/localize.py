"""Which attention heads write a direction into the residual stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from thinksteer.activations import span_means
from thinksteer.directions import unit
from thinksteer.layout import Layout, Place, check_vectors
from thinksteer.records import Head, InputError, Passage

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def head_scores(
    model: PreTrainedModel,
    passages: Sequence[Passage],
    direction: Tensor,
    max_batch_tokens: int | None,
    label: str = "short",
) -> Tensor:
    """How much each head writes against a direction, on the spans of one label: `[num_layers, num_heads]`.

    ThinkEdit, section 4.1: the score of head h in layer l is the mean over examples of <C, -v>, where C is the mean
    over the span of the head's contribution `A_h W_o^h` to the residual stream and v the layer's unit direction. As
    this is linear in the head's output A_h, it equals <mean A_h, u_h> with `u_h = W_o^h (-v)`; no contribution is made.

    `direction`: `[num_layers, hidden_size]`, pointing to long thinking; a head of high score shortens it.
    """
    layout = Layout(model)
    check_vectors(direction, layout.shape)
    kept = [replace(p, spans=tuple(span for span in p.spans if span.label == label)) for p in passages]
    kept = [passage for passage in kept if passage.spans]
    if not kept:
        raise InputError(f'no passage has a span labelled "{label}": heads cannot be scored')
    places = [Place(layout.o_proj(layer), "input") for layer in range(layout.shape[0])]
    outputs = span_means(model, kept, {"heads": places}, max_batch_tokens)["heads"][label]  # [L, H * head_dim]

    rows = []
    for layer, toward in enumerate(-unit(direction.to("cpu", outputs.dtype))):
        weight = layout.o_proj(layer).weight.detach().to("cpu", outputs.dtype)  # [D, H * head_dim]
        rows.append((outputs[layer] * (toward @ weight)).view(layout.num_heads, layout.head_dim).sum(dim=-1))
    return torch.stack(rows)


def top_heads(scores: Tensor, k: int) -> list[Head]:
    """The k heads of highest score, highest first; of equal scores the lower layer, then the lower head, is first."""
    if not torch.isfinite(scores).all():
        raise InputError("the head scores hold a value that is not finite")
    if not 1 <= k <= scores.numel():
        raise InputError(f"--n_heads {k}: the model has {scores.numel()} heads to choose from")
    order = scores.flatten().sort(descending=True, stable=True).indices[:k].tolist()
    return [Head(*divmod(index, scores.shape[1]), scores.flatten()[index].item()) for index in order]


def overlap_at_k(first: Sequence[tuple[int, int]], second: Sequence[tuple[int, int]], k: int) -> float:
    """Share of the first k (layer, head) of one ranking that are among the first k of another."""
    if not 1 <= k <= min(len(first), len(second)):
        raise InputError(f"rankings of {len(first)} and {len(second)} heads have no first {k}")
    return len(set(first[:k]) & set(second[:k])) / k
