"""Means of effects by layer: over the spans of each response, then over responses, of all spans or of one label's."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from thinksteer.attribution import MEASURES, Effects, agreement
from thinksteer.intervals import mean
from thinksteer.records import Passage

SIZES = ("kl", "random", "excess", "gradient", "integrated", "upstream", "log_odds", "random_log_odds")
MEANS = (*SIZES, "signed_gradient", "signed_log_odds")
"""What is averaged: `excess` is kl - random, `gradient` and `log_odds` are sizes."""


def summary(passages: Sequence[Passage], found: Sequence[Effects]) -> dict[str, Any]:
    """The means over spans of each response, their means over responses by layer, and what these come to.

    `strongest` is the layer with the largest `excess`, `argmax` that of each measure; `integration_error` the mean
    distance of the integrated gradients from `kl`, relative to the mean `kl`.
    """
    layers = layer_means(passages, found)
    argmax = {name: max(layers, key=lambda one: one[name]["value"])["layer"] for name in SIZES}
    kl, integrated = (torch.cat([getattr(one, name) for one in found]) for name in ("kl", "integrated"))
    each = [
        {"id": passage.id, "sample": passage.sample, "n_spans": len(passage.spans)} | by_layer(effects)
        for passage, effects in zip(passages, found, strict=True)
    ]
    return {
        "strongest": argmax["excess"],
        "argmax": argmax,
        "agreement": agreement(found),
        "integration_error": float((integrated - kl).abs().mean() / kl.mean()),
        "layers": layers,
        "responses": each,
    }


def label_means(passages: Sequence[Passage], found: Sequence[Effects]) -> dict[str, list[dict[str, Any]]]:
    """The means by layer of each label's spans alone."""
    means = {}
    for label in sorted({span.label for passage in passages for span in passage.spans}):
        chosen = [torch.tensor([span.label == label for span in passage.spans]) for passage in passages]
        own = [
            (passage, Effects(*(getattr(effects, name)[spans] for name in MEASURES)))
            for passage, effects, spans in zip(passages, found, chosen, strict=True)
            if spans.any()
        ]
        means[label] = layer_means([passage for passage, _ in own], [effects for _, effects in own])
    return means


def layer_means(passages: Sequence[Passage], found: Sequence[Effects]) -> list[dict[str, Any]]:
    """The means over responses, each response alike, by layer."""
    ids, responses = [passage.id for passage in passages], [by_layer(one) for one in found]
    return [
        {"layer": layer} | {name: asdict(mean(ids, [one[name][layer] for one in responses], None)) for name in MEANS}
        for layer in range(len(responses[0]["kl"]))
    ]


def by_layer(effects: Effects) -> dict[str, list[float]]:
    """The means over a response's spans: of each of MEANS, one per layer."""
    kept = {name: getattr(effects, name) for name in MEASURES} | {"excess": effects.kl - effects.random}
    for name in ("gradient", "log_odds"):
        kept |= {name: kept[name].abs(), f"signed_{name}": kept[name]}
    return {name: kept[name].double().mean(dim=0).tolist() for name in MEANS}
