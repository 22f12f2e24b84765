"""What trajectories show together: accuracy if stopped early, whether confidence is calibrated, what steering does.

Only chains that are not flagged count. Intervals are of 95 %, by a bootstrap over questions (see `intervals`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from thinksteer.intervals import SEED, Estimate, Floats, estimates, mean, resamples
from thinksteer.trajectories import Trajectory

SHARES = tuple(tenth / 10 for tenth in range(11))
PLACES = 20
BINS, DRAWS = 10, 500

Statistic = Callable[[Floats, Floats], Floats]
"""Sums of values over chains `[R, K]` and how many chains they are `[R]` -> what is estimated, `[R]`."""


@dataclass(frozen=True)
class Exit:
    """All chains stopped at one `place`: after `tokens` of the response on average, with how many right and what
    probability of the followed choice. `accuracy` is None where no chain is graded."""

    place: float
    tokens: float
    accuracy: Estimate | None
    probability: Estimate


@dataclass(frozen=True)
class Bin:
    """Final answers of like confidence: their mean confidence, and how many are right."""

    confidence: float
    accuracy: Estimate


@dataclass(frozen=True)
class Reliability:
    """Confidence in the final answers against how many are right.

    `error`: expected calibration error, the mean distance of the two over bins of equal width. It is above 0 for a
    perfectly calibrated model too; `error_if_calibrated` is its mean had each answer been right with the probability
    stated. `brier`: mean squared distance of the confidence from 1 where right, 0 where wrong.
    """

    confidence: Estimate
    accuracy: Estimate
    error: Estimate
    error_if_calibrated: float
    brier: Estimate
    bins: tuple[Bin, ...]


def used(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    return [one for one in trajectories if not one.flagged]


def counts(trajectories: Sequence[Trajectory]) -> dict[str, int]:
    """How many chains there are, how many are flagged for what, and how many of the rest are too short for a score."""
    kept = used(trajectories)
    return {
        "chains": len(trajectories),
        "degenerate": sum(one.degenerate for one in trajectories),
        "low_mass": sum(one.low_mass for one in trajectories),
        "used": len(kept),
        "graded": sum(one.graded for one in kept),
        "without_score": sum(one.score is None for one in kept),
    }


def exits(trajectories: Sequence[Trajectory]) -> tuple[list[Exit], list[Exit]]:
    """By share, and by tokens at places spread evenly up to the end of the longest chain."""
    last = max(one.at[-1] for one in trajectories)
    places = sorted({last * step // PLACES for step in range(PLACES + 1)})
    return exits_by_share(trajectories), exits_by_tokens(trajectories, places)


def exits_by_share(trajectories: Sequence[Trajectory]) -> list[Exit]:
    """Stopped when so much of a chain is done, from its first place (0) to its last (1)."""
    ends = [(one.at[0], one.at[-1] - one.at[0]) for one in trajectories]
    return [_exit(trajectories, share, [start + share * length for start, length in ends]) for share in SHARES]


def exits_by_tokens(trajectories: Sequence[Trajectory], places: Sequence[int]) -> list[Exit]:
    """Stopped after so many tokens of the response; a chain that has ended keeps its last answer."""
    return [_exit(trajectories, place, [place] * len(trajectories)) for place in places]


def _exit(trajectories: Sequence[Trajectory], place: float, tokens: Sequence[float]) -> Exit:
    """Each chain at its last place within so many tokens, else at its first."""
    stops = [max(0, np.searchsorted(one.at, limit + 1e-9) - 1) for one, limit in zip(trajectories, tokens, strict=True)]
    pairs = list(zip(trajectories, stops, strict=True))
    right = [(one.id, float(one.right[stop])) for one, stop in pairs if one.graded]
    probability = mean([one.id for one, _ in pairs], [one.probability[stop] for one, stop in pairs], None)
    assert probability is not None
    accuracy = mean([id for id, _ in right], [value for _, value in right], (0, 1))
    return Exit(place, float(np.mean([one.at[stop] for one, stop in pairs])), accuracy, probability)


def reliability(trajectories: Sequence[Trajectory]) -> Reliability | None:
    """Of the graded chains, at their last places; None without any."""
    graded = [one for one in trajectories if one.graded]
    if not graded:
        return None
    ids = [one.id for one in graded]
    confidence = np.array([one.confidence[-1] for one in graded])
    right = np.array([float(one.right[-1]) for one in graded])
    members = np.minimum((confidence * BINS).astype(int), BINS - 1)[:, None] == np.arange(BINS)  # [N, BINS]
    # Of shares alone the intervals are those of counts.
    pairs = zip(estimates(ids, confidence, members, None), estimates(ids, right, members, (0, 1)), strict=True)
    drawn = np.random.default_rng(SEED).random((DRAWS, len(ids))) < confidence
    gaps = np.abs((drawn - confidence) @ members).sum(axis=1) / len(ids)  # [DRAWS]
    accuracy = mean(ids, right.tolist(), (0, 1))
    sure, brier = (mean(ids, values.tolist(), None) for values in (confidence, (confidence - right) ** 2))
    assert accuracy and sure and brier
    error = _error(ids, (confidence - right)[:, None] * members)
    bins = tuple(Bin(one.value, share) for one, share in pairs if one is not None and share is not None)
    return Reliability(sure, accuracy, error, float(gaps.mean()), brier, bins)


@dataclass(frozen=True)
class Change:
    """The mean of a measure over chains, and by how much it differs from weight 0 on the pairs of chains that have it
    in both. None: there are none."""

    value: Estimate | None
    change: Estimate | None


@dataclass(frozen=True)
class Strength:
    """All chains steered with one weight. `score`: see `Trajectory`; in the end: `probability` of the followed choice,
    `confidence` in the likeliest, `accuracy` (None: no chain is graded); `tokens` before the last place."""

    weight: float
    counts: dict[str, int]
    score: Change
    probability: Change
    confidence: Change
    accuracy: Change
    tokens: Change


MEASURES: dict[str, Callable[[Trajectory], float | None]] = {
    "score": lambda one: one.score,
    "probability": lambda one: one.probability[-1],
    "confidence": lambda one: one.confidence[-1],
    "accuracy": lambda one: float(one.right[-1]) if one.graded else None,
    "tokens": lambda one: one.at[-1],
}


def strength(weight: float, trajectories: Sequence[Trajectory], plain: Sequence[Trajectory]) -> Strength:
    """`plain`: the chains of weight 0."""
    changes = {}
    for name in MEASURES:
        before, after = values_of(plain if weight else (), name), values_of(trajectories, name)
        pairs = [key for key in after if key in before]
        share = name == "accuracy"
        changes[name] = Change(
            mean([id for id, _ in after], list(after.values()), (0, 1) if share else None),
            mean([id for id, _ in pairs], [after[key] - before[key] for key in pairs], (-1, 1) if share else None),
        )
    return Strength(weight, counts(trajectories), **changes)


def values_of(trajectories: Sequence[Trajectory], measure: str) -> dict[tuple[str, int], float]:
    """One of `MEASURES` by (id, sample) of each chain that is not flagged and has it."""
    found = {(one.id, one.sample): MEASURES[measure](one) for one in used(trajectories)}
    return {key: value for key, value in found.items() if value is not None}


def correlations(by_weight: Mapping[float, Sequence[Trajectory]], within: float | None) -> dict[str, Estimate] | None:
    """Pearson's and Spearman's correlation of score and weight over chains, of weights up to `within` either way; None
    where weights or scores do not vary."""
    found = [
        (id, weight, score)
        for weight, trajectories in by_weight.items()
        if within is None or abs(weight) <= within
        for (id, _), score in values_of(trajectories, "score").items()
    ]
    ids, weights, values = zip(*found, strict=True) if found else ((), (), ())
    if len(set(weights)) < 2 or len(set(values)) < 2:
        return None
    from scipy.stats import rankdata

    ranked = rankdata(weights), rankdata(values)
    return {"pearson": _correlation(ids, weights, values), "spearman": _correlation(ids, *ranked)}


def _correlation(ids: Sequence[str], xs: ArrayLike, ys: ArrayLike) -> Estimate:
    x, y = (np.asarray(one) - np.mean(one) for one in (xs, ys))
    return _resampled(ids, np.stack([x, y, x * x, y * y, x * y], axis=1), _pearson)


def _pearson(sums: Floats, n: Floats) -> Floats:
    x, y, xx, yy, xy = (sums / n[:, None]).T
    with np.errstate(invalid="ignore", divide="ignore"):  # a resample in which nothing varies has none
        return (xy - x * y) / np.sqrt((xx - x * x) * (yy - y * y))


def _error(ids: Sequence[str], gaps: Floats) -> Estimate:
    """The expected calibration error, from each chain's signed gap in its bin, `[N, BINS]`.

    Chance makes the error of few chains too large, and resampling them larger still: a percentile interval would lie
    above a small true error. So its lower end is as far below the value as the upper is above (the basic bootstrap),
    and 0 where resampled gaps stray as far from those found as these are from none.
    """
    sums, n = _drawn(ids, gaps)
    errors = np.abs(sums).sum(axis=1) / n
    value, high = float(errors[0]), float(np.percentile(errors[1:], 97.5))
    if len(set(ids)) == 1:
        return Estimate(value, None, None, len(ids))
    strayed = np.abs(sums[1:] / n[1:, None] - sums[0] / n[0]).sum(axis=1)
    low = 0.0 if value <= np.percentile(strayed, 97.5) else max(0.0, 2 * value - high)
    return Estimate(value, low, high, len(ids))


def _resampled(ids: Sequence[str], values: Floats, statistic: Statistic) -> Estimate:
    """A statistic of sums of `values` `[N, K]`, with its percentile interval over questions."""
    found = statistic(*_drawn(ids, values))
    if len(set(ids)) == 1:
        return Estimate(float(found[0]), None, None, len(ids))
    low, high = np.nanpercentile(found[1:], [2.5, 97.5])
    return Estimate(float(found[0]), float(low), float(high), len(ids))


def _drawn(ids: Sequence[str], values: Floats) -> tuple[Floats, Floats]:
    """Sums of `values` `[N, K]` over chains, `[1 + RESAMPLES, K]`, and how many chains they are: of the data as they
    are, then of resamples of their questions."""
    names, question = np.unique(np.asarray(ids, dtype=str), return_inverse=True)
    members = question == np.arange(len(names))[:, None]  # [Q, N]
    weights = np.concatenate([np.ones((1, len(names))), resamples(len(names))])
    return weights @ (members @ values), weights @ members.sum(axis=1)
