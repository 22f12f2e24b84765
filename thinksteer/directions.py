"""Directions: one vector per layer, `[num_layers, hidden_size]`. Tensors in, tensors out."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from thinksteer.records import InputError

Terms = Mapping[tuple[str, ...], float]
"""Labels whose examples are averaged together -> the factor of that mean in a direction."""


def contrast(means: Mapping[str, Tensor], counts: Mapping[str, int], terms: Terms) -> Tensor:
    """The direction `[L, D]` made of class means `[L, D]`; `counts` are the classes' sizes.

    Not normalised, as in ThinkEdit (section 3) and SEAL: with factors 1 and -1 a steering weight of 1 adds the whole
    difference of the means. Labels of one term are pooled, so that each example, not each class, weighs the same.
    """
    return torch.stack([factor * pooled_mean(means, counts, labels) for labels, factor in terms.items()]).sum(0)


def pooled_mean(means: Mapping[str, Tensor], counts: Mapping[str, int], labels: Sequence[str]) -> Tensor:
    """The mean `[L, D]` over the examples of several classes together, of which some may have none."""
    labels = [label for label in labels if counts.get(label)]
    shapes = {tuple(means[label].shape) for label in labels}
    if len(shapes) > 1:
        raise InputError(f"the class means differ in shape: {', '.join(map(str, sorted(shapes)))}")
    total = sum(counts[label] for label in labels)
    return torch.stack([means[label] * (counts[label] / total) for label in labels]).sum(0)


def unit(vectors: Tensor) -> Tensor:
    """Each vector along the last dimension divided by its length. A vector without a direction is an error."""
    norms = vectors.norm(dim=-1, keepdim=True)
    bad = (~torch.isfinite(norms) | (norms == 0)).flatten().nonzero().flatten().tolist()
    if bad:
        raise InputError(f"the direction is zero or not finite in row(s) {bad}: it cannot be made a unit vector")
    return vectors / norms


def rescaled(direction: Tensor, like: Tensor) -> Tensor:
    """A direction `[L, D]` made as long, layer by layer, as another vector `[L, D]`."""
    return unit(direction) * like.norm(dim=-1, keepdim=True)


def stretched(direction: Tensor, norms: Tensor) -> Tensor:
    """A direction `[L, D]` made as long as `norms` `[L]` in each layer. A layer without a direction keeps none."""
    lengths = direction.norm(dim=-1)
    return direction * torch.where(lengths > 0, norms.to(lengths) / lengths, lengths)[:, None]


def random_like(direction: Tensor, seed: int) -> Tensor:
    """The control for a direction `[L, D]`: random ones, independent between layers, each as long as the real one."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(direction.shape, generator=generator, dtype=torch.float64).to(direction)
    return rescaled(noise, direction)


def cosine(first: Tensor, second: Tensor) -> Tensor:
    """Cosine similarity `[L]` of two directions `[L, D]`, layer by layer."""
    return (unit(first) * unit(second)).sum(dim=-1)


def cosines(first: Tensor, second: Tensor) -> Tensor:
    """Cosine similarities `[L, A, B]`, layer by layer, of directions `[A, L, D]` with others `[B, L, D]`; NaN where one
    of the two is zero."""
    first, second = (one / one.norm(dim=-1, keepdim=True) for one in (first, second))
    return torch.einsum("ald,bld->lab", first, second)


def nearest(vectors: Tensor, rows: Tensor, k: int, chunk: int = 8192) -> tuple[Tensor, Tensor]:
    """The k rows of a matrix `[V, D]` at the smallest angles to each vector `[N, D]`: cosines and indices `[N, k]`.

    The largest cosine comes first; a row of zeros has 0. In float32, `chunk` rows at a time whatever the dtype of the
    matrix: beside it, 4 * chunk * (N + D) bytes.
    """
    units, found, places = unit(vectors.float()), [], []
    for start in range(0, len(rows), chunk):
        part = rows[start : start + chunk].float()
        values = units @ part.T / part.norm(dim=-1).clamp_min(torch.finfo(torch.float32).tiny)  # [N, chunk]
        values, indices = values.topk(min(k, len(part)))
        found.append(values)
        places.append(indices + start)
    best, order = torch.cat(found, dim=1).topk(min(k, len(rows)))
    return best, torch.cat(places, dim=1).gather(1, order)
