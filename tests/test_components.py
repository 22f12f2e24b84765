"""Control vectors against scikit-learn, numpy's SVD and plain formulas, in float64."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from thinksteer.components import VECTORS, component, right_side, signed
from thinksteer.records import InputError

PAIRS, LAYERS, WIDTH = 40, 3, 11
EXACT = 1e-9


def states(seed=0):
    """Positive and negative sides `[N, L, D]`: noise of different loudness by dimension, and an offset between them."""
    rng = np.random.default_rng(seed)
    scale = np.linspace(1, 3, WIDTH)
    positive, negative = rng.normal(size=(2, PAIRS, LAYERS, WIDTH)) * scale
    return positive + rng.normal(size=(LAYERS, WIDTH)), negative


POSITIVE, NEGATIVE = states()
DIFFERENCES = POSITIVE - NEGATIVE
LOG_PROBS = -np.random.default_rng(1).exponential(size=PAIRS)


def weights():
    return np.exp(LOG_PROBS) / np.exp(LOG_PROBS).sum()


def main_axis(scatter):
    """The eigenvector of the largest eigenvalue, and its share of their sum."""
    values, vectors = np.linalg.eigh(scatter)
    return vectors[:, -1], values[-1] / values.sum()


def uncentred(layer):
    return main_axis(DIFFERENCES[:, layer].T @ DIFFERENCES[:, layer])


def by_sklearn(rows):
    found = PCA(n_components=1, svd_solver="full").fit(rows)
    return found.components_[0], found.explained_variance_ratio_[0]


def centred(layer):
    return by_sklearn(DIFFERENCES[:, layer])


def pair_centred(layer):
    middle = (POSITIVE[:, layer] + NEGATIVE[:, layer]) / 2
    return by_sklearn(np.concatenate([POSITIVE[:, layer] - middle, NEGATIVE[:, layer] - middle]))


def mean(layer):
    v = DIFFERENCES[:, layer].mean(axis=0)
    v /= np.linalg.norm(v)
    return v, ((DIFFERENCES[:, layer] @ v) ** 2).sum() / (DIFFERENCES[:, layer] ** 2).sum()


def weighted(layer):
    _, singular, rows = np.linalg.svd(np.sqrt(weights())[:, None] * DIFFERENCES[:, layer])
    return rows[0], singular[0] ** 2 / (singular**2).sum()


def weighted_centred(layer):
    return main_axis(np.cov(DIFFERENCES[:, layer].T, aweights=2 * weights(), ddof=0))


TRUTHS = {
    "pca_diff": uncentred,
    "pca_diff_centred": centred,
    "pca_center": pair_centred,
    "pca_weighted": weighted,
    "pca_weighted_centred": weighted_centred,
    "mean": mean,
}


def test_there_is_a_truth_for_every_kind():
    assert set(TRUTHS) == set(VECTORS)


@pytest.mark.parametrize("kind", VECTORS)
def test_each_kind_is_its_formula(kind):
    found = component(torch.tensor(DIFFERENCES), kind, torch.tensor(LOG_PROBS))
    assert found.vectors.dtype == torch.float64 and found.vectors.shape == (LAYERS, WIDTH)
    for layer in range(LAYERS):
        vector, explained = TRUTHS[kind](layer)
        one = found.vectors[layer].numpy()
        assert abs(np.linalg.norm(one) - 1) < EXACT
        assert min(np.abs(one - vector).max(), np.abs(one + vector).max()) < EXACT
        assert abs(found.explained[layer].item() - explained) < EXACT


def test_the_kinds_are_different_vectors_but_for_the_two_that_are_one():
    made = {kind: component(torch.tensor(DIFFERENCES), kind, torch.tensor(LOG_PROBS)).vectors for kind in VECTORS}
    for first in VECTORS:
        for second in VECTORS:
            alike = torch.einsum("ld,ld->l", made[first], made[second]).abs().min() > 1 - 1e-6
            assert alike == (first == second or {first, second} == {"pca_diff", "pca_center"})


@pytest.mark.parametrize("kind", VECTORS)
def test_only_centring_loses_what_all_pairs_have_in_common(kind):
    """All pairs differ by the same along one axis, and by noise that is loudest along another."""
    rng = np.random.default_rng(2)
    differences = rng.normal(size=(200, 1, WIDTH)) * np.where(np.arange(WIDTH) == 1, 2.0, 0.3)
    differences[:, 0, 0] += 4
    found = component(torch.tensor(differences), kind, torch.tensor(rng.normal(size=200))).vectors[0].abs()
    if kind.endswith("_centred"):
        assert found[0] < 0.1 and found[1] > 0.99
    else:
        assert found[0] > 0.98


def test_pairs_that_the_model_finds_natural_weigh_more():
    differences = torch.eye(2, dtype=torch.float64)[:, None]  # one pair along each axis
    for log_probs, axis in (([-1.0, -3.0], 0), ([-3.0, -1.0], 1)):
        found = component(differences, "pca_weighted", torch.tensor(log_probs))
        assert found.vectors[0, axis].abs() == 1
        assert found.explained.item() == pytest.approx(np.exp(2) / (1 + np.exp(2)))


def test_the_positive_side_of_most_pairs_is_further_along_however_long_the_others_are():
    differences = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]], [[1.0, 0.0]], [[-50.0, 0.0]]])
    for vector in ([1.0, 0.0], [-1.0, 0.0]):
        found = signed(torch.tensor([vector]).double(), differences)
        assert found.tolist() == [[1.0, 0.0]] and right_side(found, differences).tolist() == [0.75]


def test_each_layer_has_its_own_sign_and_share():
    differences = torch.tensor([[[1.0], [-1.0], [1.0]], [[2.0], [-1.0], [-1.0]]])
    found = signed(torch.ones(3, 1).double(), differences)
    assert found.flatten().tolist() == [1, -1, 1] and right_side(found, differences).tolist() == [1, 1, 0.5]


@pytest.mark.parametrize("kind", ["mean", "pca_diff", "pca_diff_centred"])
def test_pairs_without_a_difference_to_speak_of_are_refused(kind):
    same = torch.zeros(5, 2, 4)
    if kind == "pca_diff_centred":
        same += torch.arange(4.0)  # the same everywhere: nothing is left about the mean
    same[:, 0] = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    with pytest.raises(InputError, match="in some layer all pairs differ alike, or not at all"):
        component(same, kind)
