"""Every interval holds the truth as often as it says: data are simulated thousands of times from a known truth.

What docs/statistics.md tells of where they do, and of where they do not, is what is asserted here.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from scipy.stats import binom, norm

from thinksteer import intervals
from thinksteer.agreement import OVERALL, Agreement, kappas
from thinksteer.calibration import BINS, _correlation, _error
from thinksteer.intervals import Estimate, auc, mean, mean_of_means, wilson
from thinksteer.level_effects import difference

WORLDS = 2000
LEAST, MOST = 0.93, 0.97


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """600 resamples for 2000: a third of the time, and ends that hold 0.3 % less."""
    monkeypatch.setattr(intervals, "RESAMPLES", 600)
    intervals.resamples.cache_clear()
    yield
    intervals.resamples.cache_clear()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def held(found: Sequence[Estimate | None], truth: float) -> float:
    """The share of intervals that hold the truth."""
    return float(np.mean([one is not None and one.low <= truth <= one.high for one in found]))


def ids_of(n: int, samples: int) -> list[str]:
    return np.repeat(np.arange(n), samples).astype(str).tolist()


def verdicts(rng: np.random.Generator, n: int, samples: int, share: float) -> np.ndarray:
    """Right or wrong, `[n * samples]`; samples of one question agree more than those of two."""
    ease = rng.beta(2 * share, 2 * (1 - share), size=n)
    return (rng.random(n * samples) < np.repeat(ease, samples)).astype(float)


def changes(rng: np.random.Generator, n: int, samples: int, gained: float, lost: float) -> np.ndarray:
    """Wrong to right 1, right to wrong -1, else 0, `[n * samples]`; also a matter of the question."""
    chances = rng.dirichlet([4 * gained, 4 * lost, 4 * (1 - gained - lost)], size=n)
    up, either = np.repeat(chances[:, 0], samples), np.repeat(chances[:, :2].sum(axis=1), samples)
    drawn = rng.random(n * samples)
    return (drawn < up) - 1.0 * ((drawn >= up) & (drawn < either))


def lengths(rng: np.random.Generator, n: int, samples: int, spread: float) -> np.ndarray:
    """Log-normal with mean 1, `[n * samples]`; half of the variance of the logarithm is the questions'."""
    logs = np.repeat(rng.normal(size=n), samples) + rng.normal(size=n * samples)
    return np.exp(spread * logs / 2**0.5 - spread**2 / 2)


@pytest.mark.parametrize("n", [100, 300, 1000])
def test_wilsons_interval_of_one_sample_each_holds_on_average_over_shares_and_nearly_at_each(n):
    """Exactly, without simulation: how likely are the counts whose interval has the share in it?"""
    ends = np.array([wilson(successes, n) for successes in range(n + 1)])
    shares = np.linspace(0.01, 0.99, 491)
    inside = (ends[:, :1] <= shares) & (shares <= ends[:, 1:])
    each = (binom.pmf(np.arange(n + 1)[:, None], n, shares) * inside).sum(axis=0)
    assert 0.945 < each.mean() < 0.957 and each.min() > 0.90


@pytest.mark.parametrize(
    "n, samples, share", [(30, 4, 0.75), (100, 4, 0.5), (100, 2, 0.9), (100, 4, 0.9), (300, 2, 0.75), (300, 4, 0.97)]
)
def test_accuracies_of_several_samples(rng, n, samples, share):
    ids = ids_of(n, samples)
    found = [mean(ids, verdicts(rng, n, samples, share).tolist(), (0, 1)) for _ in range(WORLDS)]
    assert LEAST <= held(found, share) <= MOST


@pytest.mark.parametrize("share, least", [(0.98, 0.90), (0.99, 0.93)])
def test_of_few_wrong_answers_resampled_questions_would_hold_less(rng, share, least):
    """Why accuracies have Wilson's interval. At 98 % two or three of the questions have a wrong answer."""
    ids, everything = ids_of(100, 4), np.ones((400, 1), dtype=bool)
    drawn = [verdicts(rng, 100, 4, share) for _ in range(WORLDS)]
    resampled = held([mean_of_means(ids, one, everything, (0, 1)) for one in drawn], share)
    assert least < held([mean(ids, one.tolist(), (0, 1)) for one in drawn], share) <= MOST
    assert resampled < 0.9


@pytest.mark.parametrize(
    "n, samples, gained, lost", [(100, 1, 0.1, 0.1), (100, 1, 0.1, 0.02), (100, 4, 0.12, 0.04), (300, 1, 0.03, 0.03)]
)
def test_paired_changes_of_accuracy(rng, n, samples, gained, lost):
    ids = ids_of(n, samples)
    found = [mean(ids, changes(rng, n, samples, gained, lost).tolist(), (-1, 1)) for _ in range(WORLDS)]
    assert LEAST <= held(found, gained - lost) <= MOST


@pytest.mark.parametrize("n, samples, spread", [(100, 1, 0.4), (100, 4, 0.6), (300, 1, 0.7), (300, 2, 0.9)])
def test_mean_lengths(rng, n, samples, spread):
    ids = ids_of(n, samples)
    found = [mean(ids, lengths(rng, n, samples, spread).tolist(), None) for _ in range(WORLDS)]
    assert LEAST <= held(found, 1) <= MOST


@pytest.mark.parametrize("n, samples, spread", [(30, 2, 0.6), (100, 1, 1.0)])
def test_mean_lengths_of_few_questions_or_of_some_very_long_chains_hold_less(rng, n, samples, spread):
    ids = ids_of(n, samples)
    found = [mean(ids, lengths(rng, n, samples, spread).tolist(), None) for _ in range(WORLDS)]
    assert 0.89 < held(found, 1) < 0.93


def test_paired_changes_of_length(rng):
    ids, found = ids_of(100, 2), []
    for _ in range(WORLDS):
        before = 400 * lengths(rng, 100, 2, 0.7)
        found.append(mean(ids, (20 + before * rng.normal(0, 0.2, size=200)).tolist(), None))
    assert LEAST <= held(found, 20) <= MOST


@pytest.mark.parametrize("n, samples, rare", [(100, 1, 0.5), (300, 2, 0.2)])
def test_balanced_accuracies(rng, n, samples, rare):
    ids, found = ids_of(n, samples), []
    for _ in range(WORLDS):
        label = np.repeat(rng.random(n) < rare, samples)
        found.append(mean_of_means(ids, verdicts(rng, n, samples, 0.75), np.stack([label, ~label], axis=1), (0, 1)))
    assert LEAST <= held(found, 0.75) <= MOST


def test_mean_shares_of_tokens(rng):
    """As of behaviours: a number from 0 to 1 of each response, most of them small."""
    ids, everything, found = ids_of(150, 2), np.ones((300, 1), dtype=bool), []
    for _ in range(WORLDS):
        own = np.repeat(rng.beta(1, 9, size=150), 2)
        found.append(mean_of_means(ids, rng.binomial(20, own) / 20, everything, (0, 1)))
    assert LEAST <= held(found, 0.1) <= MOST


def test_areas_under_the_roc_curve(rng):
    ids, fold = ids_of(100, 2), np.repeat(np.arange(100) % 2, 2)
    found = []
    for _ in range(WORLDS):
        positive = rng.random(200) < 0.4
        noise = np.repeat(rng.normal(size=100), 2) + rng.normal(size=200)
        found.append(auc(ids, positive + noise / 2**0.5, positive, fold))
    assert LEAST <= held(found, norm.cdf(2**-0.5)) <= MOST


@pytest.mark.parametrize("n, samples, excess", [(100, 1, 0.0), (100, 2, 0.05), (300, 1, 0.05), (100, 2, 0.2)])
def test_calibration_errors(rng, n, samples, excess):
    """Confidence is `excess` above what is right; where that is little, the interval may hold more than it says."""
    ids, found = ids_of(n, samples), []
    for _ in range(WORLDS):
        sure = np.repeat(rng.uniform(0.4, 1, size=n), samples)
        right = rng.random(n * samples) < sure - excess
        members = np.minimum((sure * BINS).astype(int), BINS - 1)[:, None] == np.arange(BINS)
        found.append(_error(ids, (sure - right)[:, None] * members))
    assert LEAST <= held(found, excess) <= 0.985
    assert np.mean([one.low > 0 for one in found]) < 0.07 or excess > 0


@pytest.mark.parametrize("n, samples", [(100, 1), (100, 4)])
def test_brier_scores(rng, n, samples):
    ids, found = ids_of(n, samples), []
    for _ in range(WORLDS):
        sure = np.repeat(rng.uniform(0.4, 1, size=n), samples)
        right = rng.random(n * samples) < sure
        found.append(mean(ids, ((sure - right) ** 2).tolist(), None))
    assert LEAST <= held(found, 0.7 - 0.52) <= MOST


def test_correlations_of_score_and_weight(rng):
    ids, weight = ids_of(100, 3), np.tile([-(1.5**0.5), 0, 1.5**0.5], 100)  # of variance 1
    found = []
    for _ in range(WORLDS):
        noise = 0.6 * np.repeat(rng.normal(size=100), 3) + 0.8 * rng.normal(size=300)
        found.append(_correlation(ids, weight, 0.3 * weight + (1 - 0.3**2) ** 0.5 * noise))
    assert LEAST <= held(found, 0.3) <= MOST


def test_kappas_of_annotators(rng):
    """Two annotators give a character one label at a rate that differs from response to response, or else each draws
    its own from the same shares: kappa is the mean of that rate."""
    shares, ids, found = np.array([0.6, 0.3, 0.1]), tuple(ids_of(100, 1)), []
    apart = np.outer(shares, shares).ravel()
    for _ in range(WORLDS):
        same = rng.binomial(60, rng.beta(4, 2, size=100))
        counts = rng.multinomial(60 - same, apart).reshape(100, 3, 3)
        counts[:, range(3), range(3)] += rng.multinomial(same, shares)
        found.append(kappas(Agreement(("a", "b", "c"), ids, counts.astype(float))))
    for label in (OVERALL, "a", "c"):
        assert LEAST <= held([one[label] for one in found], 4 / 6) <= MOST


def test_the_change_of_one_kind_of_questions_minus_that_of_another(rng):
    ids, found = ids_of(150, 1), []
    for _ in range(WORLDS):
        one, other = (mean(ids, changes(rng, 150, 1, *of).tolist(), (-1, 1)) for of in ((0.03, 0.22), (0.04, 0.06)))
        found.append(difference(one, other))
    assert LEAST <= held(found, -0.19 + 0.02) <= MOST
