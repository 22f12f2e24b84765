"""What the pass of find_short_heads.py costs: every head's contribution along the direction, in all layers."""

import argparse
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from scripts.benchmarks import passes
from scripts.benchmarks.measuring import Measured
from thinksteer.layout import Layout
from thinksteer.localize import head_scores
from thinksteer.models import ModelRef
from thinksteer.places import Place
from thinksteer.records import Passage

NAME, TITLE = "head_scores", "Scores of all heads"


def measure(args: argparse.Namespace, ref: ModelRef) -> Measured:
    return passes.measure(args, NAME, TITLE, ("short",), ways)


def ways(model: PreTrainedModel, passages: Sequence[Passage], batch_tokens: int) -> Mapping[str, passes.Work]:
    direction = torch.randn(Layout(model).shape, generator=torch.Generator().manual_seed(0))
    return {
        NAME: lambda: head_scores(model, passages, direction, batch_tokens),
        passes.PLAIN: lambda: plain(model, passages, direction),
    }


@torch.inference_mode()
def plain(model: PreTrainedModel, passages: Sequence[Passage], direction: Tensor) -> Tensor:
    """As upstream: one example at a time, what each head adds to each token stored, then averaged: `[L, H]`."""
    layout, scores = Layout(model), []
    projections = [layout.o_proj(layer) for layer in range(len(direction))]
    weights = [one.weight.view(-1, layout.num_heads, layout.head_dim) for one in projections]
    toward = -torch.nn.functional.normalize(direction, dim=-1).to(model.device)  # [L, D]
    for passage in passages:
        inputs: list[Tensor] = []
        hooks = [Place(one, "input").watch(inputs.append) for one in projections]
        model.base_model(input_ids=torch.tensor([passage.ids], device=model.device), use_cache=False)
        for hook in hooks:
            hook.remove()
        added = [  # [T, H, D] of each layer
            torch.einsum("thk,dhk->thd", heads[0].view(-1, layout.num_heads, layout.head_dim), weight)
            for heads, weight in zip(inputs, weights, strict=True)
        ]
        (span,) = passage.spans
        means = torch.stack([one[span.start : span.end].mean(dim=0) for one in added])  # [L, H, D]
        scores.append(torch.einsum("lhd,ld->lh", means, toward).cpu())
    return torch.stack(scores).mean(dim=0)
