"""How well a model's states tell labels apart: linear probes in each layer, silhouettes, views in two dimensions.

A probe is logistic regression on standardised states that weighs every label alike. It is judged on questions that it
has not seen: the spans of one question are all in one of five folds, so that what a probe knows of a question's subject
helps it nowhere. Figures come with intervals over questions; the folds and the examples chosen are taken as given.
States that are all alike (those that enter the first block, read at a token that every prompt has) tell nothing apart.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from thinksteer.intervals import Estimate, auc, mean, mean_of_means
from thinksteer.records import InputError, Passage

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline
    from torch import Tensor

    from thinksteer.directions import Terms

FOLDS = 5

Names = NDArray[np.str_]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Splits = list[tuple[NDArray[np.intp], NDArray[np.intp]]]
"""(training, test) rows of each fold."""


@dataclass(frozen=True)
class Separation:
    """How well the labels are told apart in one layer; accuracies are of unseen questions, in [0, 1].

    `balanced` is the mean over labels of the share of each that is found: by guessing, one over their number.
    `shuffled` is the same where the labels are those of other questions. `sides` is the balanced accuracy of a probe
    that only tells the labels that the direction leads to from the others, `direction` that of one that sees nothing
    but where a state lies along the direction, which is made anew from each fold's training questions.

    `sides_auc` and `direction_auc` need no threshold: the share of the pairs of an example of either side in which the
    probe, or the place along the direction, is larger for the one that the direction leads to. Only pairs of one fold
    are compared, as each fold has its own probe and direction, with an origin of its own. `silhouette` is in [-1, 1]
    (Euclidean, standardised states), None where all states are alike.
    """

    accuracy: Estimate
    balanced: Estimate
    shuffled: Estimate
    sides: Estimate
    sides_auc: Estimate
    direction: Estimate
    direction_auc: Estimate
    silhouette: float | None


def choose(passages: Sequence[Passage], groups: Sequence[Sequence[str]], n_examples: int, seed: int) -> list[Passage]:
    """The passages with at most `n_examples` spans of each label, drawn evenly over responses; empty ones left out.

    Every response gives one span of a label before any gives a second. Of `groups` of labels, each is to be told from
    the others: a label of too few questions is left out, InputError if that leaves a group without any.
    """
    rng, chosen = random.Random(seed), set()
    passages = sorted(passages, key=lambda passage: (passage.id, passage.sample))
    for labels in groups:
        found = {}
        for label in labels:
            turns = []
            for index, passage in enumerate(passages):
                own = [place for place, span in enumerate(passage.spans) if span.label == label]
                turns += [(turn, rng.random(), index, place) for turn, place in enumerate(rng.sample(own, len(own)))]
            taken = [(index, place) for *_, index, place in sorted(turns)[:n_examples]]
            found[label] = len({passages[index].id for index, _ in taken})
            if found[label] >= FOLDS:
                chosen.update(taken)
        if max(found.values()) < FOLDS:
            counts = ", ".join(f"{label} in the responses to {count} questions" for label, count in found.items())
            raise InputError(f"{counts}: a probe needs {FOLDS} at least, generate responses to more questions")
    kept = [
        replace(passage, spans=tuple(span for place, span in enumerate(passage.spans) if (index, place) in chosen))
        for index, passage in enumerate(passages)
    ]
    return [passage for passage in kept if passage.spans]


def separations(states: Tensor, labels: Names, questions: Names, terms: Terms, seed: int) -> list[Separation]:
    """Of each layer of `states` `[N, L, D]`, whose labels and questions are `[N]`; `terms` are the direction's."""
    from sklearn.metrics import silhouette_score
    from sklearn.model_selection import StratifiedGroupKFold

    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    splits = list(folds.split(labels, labels, questions))
    fold = np.zeros(len(labels), dtype=int)
    for index, (_, test) in enumerate(splits):
        fold[test] = index
    others = shuffled(labels, questions, seed)
    toward = leads_to(labels, terms)

    def separation(layer: Tensor) -> Separation:  # [N, D]
        plain = layer.double().numpy()
        found, moved = (predict(plain, names, splits) for names in (labels, others))
        scores = decide(plain, toward, splits)
        along = [(layer.double() @ direction(layer[train], labels[train], terms)).numpy() for train, _ in splits]
        places = np.select([fold == index for index in range(FOLDS)], along)
        told = decide(plain, toward, splits, lambda index: along[index][:, None])
        return Separation(
            accuracy=_accuracy(questions, labels, found),
            balanced=_balanced(questions, labels, labels == found),
            shuffled=_balanced(questions, others, others == moved),
            sides=_balanced(questions, toward, toward == (scores > 0)),
            sides_auc=auc(questions.tolist(), scores, toward, fold),
            direction=_balanced(questions, toward, toward == (told > 0)),
            direction_auc=auc(questions.tolist(), places, toward, fold),
            silhouette=None if alike(plain) else float(silhouette_score(standardised(plain), labels)),
        )

    return [separation(layer) for layer in states.unbind(dim=1)]


def leads_to(labels: Names, terms: Terms) -> Flags:
    """Which examples `[N]` have a label that the direction leads to."""
    return np.isin(labels, [label for names, factor in terms.items() if factor > 0 for label in names])


def direction(states: Tensor, labels: Names, terms: Terms) -> Tensor:
    """The direction `[..., D]` of examples `[N, ..., D]`, in float64."""
    from thinksteer.directions import contrast

    rows = {label: np.flatnonzero(labels == label) for label in np.unique(labels)}
    means = {label: states[own].double().mean(dim=0) for label, own in rows.items()}
    return contrast(means, {label: len(own) for label, own in rows.items()}, terms)


def probe_direction(states: Tensor, toward: Flags) -> Tensor:
    """Along what the probe of all examples, `[N, L, D]`, tells the two sides apart: `[L, D]` in float64, zero where all
    states are alike. It is the gradient of the probe's decision in the space of the states, as they are read."""
    import torch

    def gradient(plain: Floats) -> Floats:  # [N, D]
        scaler, regression = _probe().fit(plain, toward).named_steps.values()
        return regression.coef_[0] / scaler.scale_

    return torch.tensor(np.stack([gradient(layer.double().numpy()) for layer in states.unbind(dim=1)]))


def shuffled(labels: Names, questions: Names, seed: int) -> Names:
    """The labels that another question has, in another order: questions keep what they have in common."""
    rng, order = np.random.default_rng(seed), np.argsort(questions, kind="stable")
    starts = np.unique(questions[order], return_index=True)[1][1:]
    blocks = [rng.permutation(block) for block in np.split(labels[order], starts)]
    result = np.empty_like(labels)
    result[order] = np.concatenate([blocks[index] for index in rng.permutation(len(blocks))])
    return result


def predict(states: Floats, labels: Names, splits: Splits) -> Names:
    """The label of each example by the probe that has not seen its question."""
    result = np.empty_like(labels)
    for train, test in splits:
        result[test] = _probe().fit(states[train], labels[train]).predict(states[test])
    return result


def decide(states: Floats, toward: Flags, splits: Splits, features: Callable[[int], Floats] | None = None) -> Floats:
    """The log-odds of one side by the probe that has not seen the question, `[N]`.

    `features` gives what the probe of a fold sees, `[N, F]`; by default it sees the states.
    """
    result = np.empty(len(states))
    for index, (train, test) in enumerate(splits):
        seen = states if features is None else features(index)
        result[test] = _probe().fit(seen[train], toward[train]).decision_function(seen[test])
    return result


def alike(states: Floats) -> bool:
    """Whether all of `[N, D]` are one state."""
    return bool((states == states[0]).all())


def principal(states: Floats) -> tuple[Floats, Floats]:
    """Standardised states `[N, D]` along two principal components: `[N, 2]`, and their shares of the variance."""
    if alike(states):
        return np.zeros((len(states), 2)), np.zeros(2)
    from sklearn.decomposition import PCA

    pca = PCA(2, svd_solver="full")
    return pca.fit_transform(standardised(states)), pca.explained_variance_ratio_


def tsne(states: Floats, seed: int) -> Floats:
    """Standardised states `[N, D]` laid out in the plane `[N, 2]` by t-SNE, which starts from their PCA."""
    if alike(states):
        return np.zeros((len(states), 2))
    from sklearn.manifold import TSNE

    perplexity = perplexity_for(len(states))
    return TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(standardised(states))


def perplexity_for(n_examples: int) -> int:
    """How many neighbours t-SNE keeps together: the usual 30, for want of examples a third of them."""
    return min(30, n_examples // 3)


def standardised(states: Floats) -> Floats:
    from sklearn.preprocessing import StandardScaler

    return StandardScaler().fit_transform(states)


def _probe() -> Pipeline:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))


def _accuracy(questions: Names, labels: Names, found: Names) -> Estimate:
    estimate = mean(questions.tolist(), (labels == found).astype(float).tolist(), (0, 1))
    assert estimate is not None  # there are examples
    return estimate


def _balanced(questions: Names, labels: Names | Flags, right: Flags) -> Estimate:
    members = labels[:, None] == np.unique(labels)[None]  # [N, K]
    return mean_of_means(questions.tolist(), right.astype(float), members, (0, 1))
