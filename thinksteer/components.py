"""Control vectors of pairs of states: principal components, or the mean, of their differences. Tensors in, tensors out.

With differences d_i = positive_i - negative_i `[N, D]` in a layer:

- "mean": their mean.
- "pca_diff": the unit v along which sum_i <d_i, v>^2 is largest. It keeps the mean difference.
- "pca_diff_centred": the same of d_i less their mean. This is what repeng calls "pca_diff" and takes by default
  (repeng/extract.py: scikit-learn's PCA centres). What all differences have in common, which is the effect that is
  looked for, is removed, and v is the axis along which they vary most.
- "pca_center": PCA of all states, each less its pair's midpoint: repeng's other method. These are the d_i / 2 and their
  negatives, whose mean is zero already, so that v is that of "pca_diff".
- "pca_weighted", "pca_weighted_centred": the same sums with weights w_i = 2 softmax(mean log-probability of pair i's
  suffix), for pairs that the model finds natural. Centred, about the weighted mean, it is "pca_diff_weighted" of
  wassname's fork of repeng. (2 is upstream's and does not matter.)

A component has no sign: that is chosen for which more pairs have a larger projection on their positive side.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from thinksteer.directions import unit
from thinksteer.records import InputError

CENTRED = {
    "pca_diff": False,
    "pca_diff_centred": True,
    "pca_center": False,
    "pca_weighted": False,
    "pca_weighted_centred": True,
}
WEIGHTED = ("pca_weighted", "pca_weighted_centred")
VECTORS = (*CENTRED, "mean")


@dataclass(frozen=True, eq=False)
class Component:
    """Unit vectors `[L, D]`, and which share of the differences' sum of squares lies along each, `[L]`. In float64."""

    vectors: Tensor
    explained: Tensor


def component(differences: Tensor, kind: str, log_probs: Tensor | None = None) -> Component:
    """The vectors of one of `VECTORS` from differences `[N, L, D]`; `log_probs` `[N]` weight the pairs of `WEIGHTED`.

    `explained` is of the differences as that kind has them: centred, weighted. InputError where nothing differs.
    """
    differences, count = differences.double(), len(differences)
    weights = differences.new_full((count,), 1 / count)
    if kind in WEIGHTED:
        assert log_probs is not None
        weights = log_probs.double().softmax(dim=0)
    rounding = 1e-24 * differences.square().sum(dim=(0, 2))  # what centring may leave of what is all alike
    if CENTRED.get(kind):
        differences = differences - torch.einsum("n,nld->ld", weights, differences)
    rows = (differences * weights.sqrt()[:, None, None]).transpose(0, 1)  # [L, N, D]
    total = rows.square().sum(dim=(1, 2))
    if not (total > rounding).all():
        raise InputError(f"{kind}: in some layer all pairs differ alike, or not at all: give others, or another vector")
    if kind == "mean":
        vectors = unit(differences.mean(dim=0))
    else:
        vectors = torch.stack([torch.linalg.svd(one, full_matrices=False).Vh[0] for one in rows])
    explained = torch.einsum("lnd,ld->ln", rows, vectors).square().sum(dim=1) / total
    return Component(vectors, explained)


def signed(vectors: Tensor, differences: Tensor) -> Tensor:
    """Vectors `[L, D]`, turned round where most of the differences `[N, L, D]` point the other way."""
    more = projections(vectors, differences).sign().sum(dim=0)
    return torch.where(more < 0, -1.0, 1.0)[:, None] * vectors


def right_side(vectors: Tensor, differences: Tensor) -> Tensor:
    """The share of pairs whose positive side lies further along each of the vectors `[L, D]`: `[L]`."""
    return (projections(vectors, differences) > 0).double().mean(dim=0)


def projections(vectors: Tensor, differences: Tensor) -> Tensor:
    """`[N, L]`: the differences `[N, L, D]` along the vectors `[L, D]`."""
    return torch.einsum("nld,ld->nl", differences.double(), vectors)
