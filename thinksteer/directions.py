"""Directions: one vector per layer, `[num_layers, hidden_size]`. Tensors in, tensors out."""

import torch
from torch import Tensor

from thinksteer.records import InputError


def mean_difference(positive: Tensor, negative: Tensor) -> Tensor:
    """The direction from one class to another: `positive - negative`, both class means `[L, D]`.

    Not normalised, as in ThinkEdit (section 3): a steering weight of 1 adds the whole difference of the means.
    """
    if positive.shape != negative.shape:
        raise InputError(f"the class means differ in shape: {tuple(positive.shape)} and {tuple(negative.shape)}")
    return positive - negative


def unit(vectors: Tensor) -> Tensor:
    """Each vector along the last dimension divided by its length. A vector without a direction is an error."""
    norms = vectors.norm(dim=-1, keepdim=True)
    bad = (~torch.isfinite(norms) | (norms == 0)).flatten().nonzero().flatten().tolist()
    if bad:
        raise InputError(f"the direction is zero or not finite in row(s) {bad}: it cannot be made a unit vector")
    return vectors / norms


def random_like(direction: Tensor, seed: int) -> Tensor:
    """The control for a direction `[L, D]`: random ones, independent between layers, each as long as the real one."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(direction.shape, generator=generator, dtype=torch.float64).to(direction)
    return unit(noise) * direction.norm(dim=-1, keepdim=True)


def cosine(first: Tensor, second: Tensor) -> Tensor:
    """Cosine similarity `[L]` of two directions `[L, D]`, layer by layer."""
    return (unit(first) * unit(second)).sum(dim=-1)
