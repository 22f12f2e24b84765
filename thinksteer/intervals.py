"""Means of responses with 95 % intervals that know which question each response belongs to.

Samples of one question are not independent of each other, so the unit is the question: intervals are percentile
intervals of a cluster bootstrap over questions (2000 resamples, one fixed seed). A share of yes and no has Wilson's
interval instead, for as many independent responses as it is worth (`effective`; all of them, with one sample each).
Where no resample differs from the data (nothing changed, say), the bootstrap would claim certainty; there the
half-width is Wilson's for that many unanimous questions.

How often they hold the truth is measured in tests/test_coverage.py and told in docs/statistics.md: 93 to 97 % of the
time from 100 questions on, if ten of them have the rarer outcome and no few values carry the mean; else, as with 30
questions, the bootstrap's hold it 90 to 94 % of the time.

Upstream reports the spread over ten runs of the same questions, which leaves out the questions' own uncertainty.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
SEED = 0
Z = 1.959964  # the normal distribution's 97.5 % point

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` responses with its 95 % interval; None where a single question gives nothing to resample."""

    value: float
    low: float | None
    high: float | None
    n: int

    @property
    def apart_from_zero(self) -> bool:
        """Whether the interval lies wholly on one side of zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def wilson(successes: float, n: float) -> tuple[float, float]:
    """Wilson's 95 % score interval of a share (Wilson 1927)."""
    share, spread = successes / n, Z**2 / n
    centre = (share + spread / 2) / (1 + spread)
    half = Z / (1 + spread) * (share * (1 - share) / n + spread / (4 * n)) ** 0.5
    # Where all or none are successes, one end is the share itself; rounding could put it on the wrong side.
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def effective(sums: Floats, counts: Floats) -> float:
    """How many independent responses would tell as much of a share as these, from each question's right and all
    responses, both `[Q]`: share (1 - share) over the variance between questions (Korn and Graubard 1998).

    Never more than there are; where all questions have the same share, one for each of them.
    """
    share = sums.sum() / counts.sum()
    variance = ((sums - share * counts) ** 2).sum() / counts.sum() ** 2
    worth = share * (1 - share) / variance if variance > 1e-12 else np.count_nonzero(counts)
    return float(min(worth, counts.sum()))


@lru_cache(maxsize=4)
def resamples(n_questions: int) -> Floats:
    """How often each question is drawn in each resample: `[RESAMPLES, n_questions]`. The same for every model."""
    return _drawn(n_questions, RESAMPLES).astype(np.float64)


@lru_cache(maxsize=64)
def _drawn(n_questions: int, size: int) -> NDArray[np.uint8]:
    """As bytes, so that many are kept: they take longer to draw than anything that is done with them."""
    shares = np.full(n_questions, 1 / n_questions)
    return np.random.default_rng(SEED).multinomial(n_questions, shares, size=size).astype(np.uint8)


def estimates(
    ids: Sequence[str], values: Floats, members: NDArray[np.bool_], bounds: tuple[float, float] | None
) -> list[Estimate | None]:
    """The mean of `values` `[N]` in each of K groups, `members` `[N, K]`; None for an empty group.

    `bounds` are the least and largest possible value (None: unbounded); (0, 1) is for shares of yes and no only.
    Questions are put in the order of their ids, so the result does not depend on the order of the records.
    """
    sums, counts = _per_question(ids, values, members)
    return [
        None if not counts[:, group].any() else _estimate(sums[:, group], counts[:, group], bounds)
        for group in range(members.shape[1])
    ]


def mean_of_means(
    ids: Sequence[str], values: Floats, members: NDArray[np.bool_], bounds: tuple[float, float]
) -> Estimate:
    """The mean of the K groups' means, each with the same weight (balanced accuracy, say); no group may be empty."""
    sums, counts = _per_question(ids, values, members)
    weights = resamples(len(counts))
    drawn = weights @ counts  # [RESAMPLES, K]
    whole = (drawn > 0).all(axis=1)
    means = ((weights @ sums)[whole] / drawn[whole]).mean(axis=1)
    value = float((sums.sum(axis=0) / counts.sum(axis=0)).mean())
    return _interval(value, means, len(ids), len(counts), bounds)


def auc(ids: Sequence[str], scores: Floats, positive: NDArray[np.bool_], groups: NDArray[np.intp]) -> Estimate:
    """The area under the ROC curve, from pairs of one group only: of all pairs of a positive and a negative example
    with the same entry of `groups`, the share in which the positive one has the higher of `scores` (ties: half).

    All arguments are `[N]`; scores of different groups need no common scale.
    """
    _, question = np.unique(np.asarray(ids, dtype=str), return_inverse=True)
    n_questions = int(question.max()) + 1
    weights = np.concatenate([np.ones((1, n_questions)), resamples(n_questions)])  # first, the data as they are
    won, pairs = np.zeros(len(weights)), np.zeros(len(weights))
    for group in np.unique(groups):
        up, down = (np.flatnonzero((groups == group) & (positive == side)) for side in (True, False))
        above = scores[up][:, None] - scores[down][None]
        drawn = weights[:, question[up]], weights[:, question[down]]  # [1 + RESAMPLES, examples]
        won += (drawn[0] @ ((above > 0) + 0.5 * (above == 0)) * drawn[1]).sum(axis=1)
        pairs += drawn[0].sum(axis=1) * drawn[1].sum(axis=1)
    shares = won[pairs > 0] / pairs[pairs > 0]
    return _interval(float(shares[0]), shares[1:], len(scores), n_questions, (0, 1))


def _per_question(ids: Sequence[str], values: Floats, members: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """The sums of `values` `[N]` in each group, `members` `[N, K]`, and the groups' sizes: both `[Q, K]`."""
    names, question = np.unique(np.asarray(ids), return_inverse=True)
    sums, counts = (
        np.stack([np.bincount(question, column, len(names)) for column in columns.T], axis=1)
        for columns in (members * values[:, None], members)
    )
    return sums, counts


def _estimate(sums: Floats, counts: Floats, bounds: tuple[float, float] | None) -> Estimate:
    """The mean over all responses from per-question `sums` and `counts`, both `[Q]`."""
    n, n_questions = int(counts.sum()), int(np.count_nonzero(counts))
    value = float(sums.sum() / n)
    if bounds == (0, 1):
        worth = n if counts.max() == 1 else effective(sums, counts)
        return Estimate(value, *wilson(value * worth, worth), n)
    weights = resamples(len(counts))
    drawn = weights @ counts
    means = (weights @ sums)[drawn > 0] / drawn[drawn > 0]
    return _interval(value, means, n, n_questions, bounds)


def _interval(value: float, means: Floats, n: int, n_questions: int, bounds: tuple[float, float] | None) -> Estimate:
    """The percentile interval of resampled `means`; where they do not differ, see the module's text."""
    low, high = (float(edge) for edge in np.percentile(means, [2.5, 97.5]))
    if high - low < 1e-12 and bounds is not None:
        half = Z**2 / (n_questions + Z**2)
        return Estimate(value, max(bounds[0], value - half), min(bounds[1], value + half), n)
    if n_questions == 1:
        return Estimate(value, None, None, n)
    return Estimate(value, low, high, n)


def mean(ids: Sequence[str], values: Sequence[float], bounds: tuple[float, float] | None) -> Estimate | None:
    """The mean of one value per response, None without any; `bounds` as in `estimates`."""
    everything = np.ones((len(ids), 1), dtype=bool)
    return estimates(ids, np.asarray(values, dtype=np.float64), everything, bounds)[0] if len(ids) else None
