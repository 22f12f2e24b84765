"""What the pass of extract_directions.py costs: the means of both sites in all layers."""

import argparse
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from scripts.benchmarks import passes
from scripts.benchmarks.measuring import Measured
from thinksteer.activations import class_means
from thinksteer.layout import Layout
from thinksteer.models import ModelRef
from thinksteer.records import Passage, Site

NAME, TITLE = "class_means", "Means of activations over spans, at two sites of every layer"
SITES: tuple[Site, ...] = ("mid", "block_out")  # what the two directions of ThinkEdit are read at


def measure(args: argparse.Namespace, ref: ModelRef) -> Measured:
    return passes.measure(args, NAME, TITLE, ("long", "short"), ways)


def ways(model: PreTrainedModel, passages: Sequence[Passage], batch_tokens: int) -> Mapping[str, passes.Work]:
    return {
        NAME: lambda: class_means(model, passages, SITES, batch_tokens),
        passes.PLAIN: lambda: plain(model, passages),
    }


@torch.inference_mode()
def plain(model: PreTrainedModel, passages: Sequence[Passage]) -> dict[tuple[Site, str], Tensor]:
    """As upstream: one example at a time, every layer's activations of all its tokens stored, then averaged."""
    layout, means = Layout(model), {}
    for passage in passages:
        stored: dict[Site, list[Tensor]] = {site: [] for site in SITES}
        hooks = [
            layout.site(layer, site).watch(stored[site].append) for site in SITES for layer in range(layout.shape[0])
        ]
        model.base_model(input_ids=torch.tensor([passage.ids], device=model.device), use_cache=False)
        for hook in hooks:
            hook.remove()
        (span,) = passage.spans
        for site, outputs in stored.items():
            states = torch.cat(outputs)  # [L, T, D]
            means.setdefault((site, span.label), []).append(states[:, span.start : span.end].mean(dim=1).cpu())
    return {key: torch.stack(of_all).mean(dim=0) for key, of_all in means.items()}
