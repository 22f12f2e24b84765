import numpy as np
import pytest
from scipy.stats import binomtest, norm
from sklearn.metrics import roc_auc_score

from thinksteer.intervals import Estimate, auc, effective, estimates, mean, mean_of_means, wilson


def test_wilson_agrees_with_scipy():
    for successes, n in ((0, 7), (3, 10), (50, 50), (812, 1319)):
        truth = binomtest(successes, n).proportion_ci(method="wilson")
        assert wilson(successes, n) == pytest.approx((truth.low, truth.high), abs=1e-6)


def test_wilsons_interval_holds_the_share_itself_whatever_the_rounding():
    for n in range(1, 400):
        for successes in (0, 1, n - 1, n):
            low, high = wilson(successes, n)
            assert low <= successes / n <= high


def test_a_share_with_one_sample_per_question_has_wilsons_interval():
    estimate = mean([f"q{index}" for index in range(10)], [1.0] * 3 + [0.0] * 7, (0, 1))
    assert estimate == Estimate(0.3, *wilson(3, 10), 10)


def test_samples_that_agree_are_worth_one_and_independent_ones_are_worth_themselves():
    rng, counts = np.random.default_rng(0), np.full(3000, 4.0)
    right = rng.random((3000, 4)) < 0.7
    assert effective(4.0 * right[:, 0], counts) == pytest.approx(3000)
    assert effective(right.sum(axis=1), counts) == pytest.approx(12000, rel=0.05)
    # Beta(2, 2) questions: a fifth of the variance is theirs, so four samples have 1 + 3 / 5 of the variance.
    ease = rng.beta(2, 2, size=3000)
    assert effective(rng.binomial(4, ease), counts) == pytest.approx(12000 / 1.6, rel=0.05)


def test_samples_are_never_worth_more_than_they_are():
    alternating = np.tile([1.0, 2.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0], 10)  # of two: less spread than by chance
    assert effective(alternating, np.full(100, 2.0)) == 100 * 2
    assert effective(np.full(20, 2.0), np.full(20, 4.0)) == 20  # and where none differ, one per question
    assert effective(np.array([3.0, 0.0, 3.0]), np.array([3.0, 0.0, 3.0])) == 2


def test_a_share_of_several_samples_has_wilsons_interval_of_what_they_are_worth():
    values = [1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0]
    ids = [f"q{question}" for question in range(4) for _ in range(3)]
    share, variance = 7 / 12, sum((right - 7 / 4) ** 2 for right in (3, 2, 0, 2)) / 12**2
    worth = share * (1 - share) / variance
    found = mean(ids, values, (0, 1))
    assert found is not None and (found.value, found.n) == (pytest.approx(share), 12)
    assert (found.low, found.high) == pytest.approx(wilson(share * worth, worth))


def test_the_bootstrap_interval_matches_the_clusters_standard_error():
    rng = np.random.default_rng(0)
    means = rng.normal(100, 20, size=300)
    values = np.repeat(means, 5) + rng.normal(0, 1, size=1500)
    estimate = mean([f"q{index // 5}" for index in range(1500)], values.tolist(), None)
    assert estimate is not None and estimate.low is not None and estimate.high is not None
    error = values.reshape(300, 5).mean(axis=1).std(ddof=1) / 300**0.5
    assert estimate.value == pytest.approx(values.mean())
    assert (estimate.high - estimate.low) / 2 == pytest.approx(1.96 * error, rel=0.06)


def test_intervals_cover_the_truth_in_about_95_of_100_worlds_though_samples_are_dependent():
    rng = np.random.default_rng(1)
    ids = [f"q{index // 4}" for index in range(60 * 4)]
    covered = naive = 0
    for _ in range(400):
        chances = np.repeat(rng.beta(1, 1, size=60), 4)  # the mean over all questions there are is 0.5
        values = (rng.random(240) < chances).astype(float)
        estimate = mean(ids, values.tolist(), (0, 1))
        assert estimate is not None and estimate.low is not None and estimate.high is not None
        covered += estimate.low <= 0.5 <= estimate.high
        low, high = wilson(round(values.sum()), 240)
        naive += low <= 0.5 <= high
    assert 0.915 <= covered / 400 <= 0.98  # 0.95 +- 3 standard errors of 400 draws, a little less for 60 clusters
    assert naive / 400 < 0.88  # what ignoring the dependence would give


def test_unanimous_questions_do_not_claim_certainty():
    ids = [f"q{index // 5}" for index in range(100)]
    all_right = mean(ids, [1.0] * 100, (0, 1))
    assert all_right is not None
    assert (all_right.low, all_right.high) == pytest.approx((wilson(20, 20)[0], 1.0))
    unchanged = mean(ids, [0.0] * 100, (-1, 1))
    assert unchanged is not None and unchanged.low == pytest.approx(-wilson(0, 20)[1]) and not unchanged.apart_from_zero


def test_one_question_gives_a_length_no_interval_and_no_response_gives_nothing():
    assert mean(["q", "q"], [10.0, 20.0], None) == Estimate(15.0, None, None, 2)
    assert mean([], [], None) is None


def test_groups_are_estimated_as_if_each_were_alone_and_an_empty_one_is_none():
    rng = np.random.default_rng(2)
    ids = [f"q{index}" for index in range(50)]
    values = (rng.random(50) < 0.6).astype(float)
    members = np.stack([np.arange(50) < 20, np.zeros(50, dtype=bool)], axis=1)
    first, empty = estimates(ids, values, members, (0, 1))
    assert first == mean(ids[:20], values[:20].tolist(), (0, 1)) and empty is None


def test_the_order_of_responses_does_not_matter():
    rng = np.random.default_rng(3)
    ids, values = [f"q{index % 30}" for index in range(90)], rng.normal(size=90).tolist()
    order = rng.permutation(90)
    shuffled = mean([ids[place] for place in order], [values[place] for place in order], None)
    straight = mean(ids, values, None)
    assert shuffled is not None and straight is not None
    assert (shuffled.low, shuffled.high) == pytest.approx((straight.low, straight.high))


def test_groups_weigh_alike_in_the_mean_of_their_means_and_resampled_sizes_do_not_matter():
    ids = [f"q{index}" for index in range(200)]
    members = np.stack([np.arange(200) < 190, np.arange(200) >= 190], axis=1)
    values = np.where(members[:, 0], 1.0, 0.0)  # certain within both groups
    estimate = mean_of_means(ids, values, members, (0, 1))
    assert estimate.value == 0.5 and estimate.n == 200
    assert estimate.low == pytest.approx(0.5 - 3.84 / 203.84, abs=1e-3)  # what 200 unanimous questions leave open


def test_the_rarer_group_makes_the_interval_of_a_mean_of_means():
    rng = np.random.default_rng(2)
    ids = [f"q{index}" for index in range(1000)]
    members = np.stack([np.arange(1000) < 900, np.arange(1000) >= 900], axis=1)
    values = (rng.random(1000) < 0.5).astype(float)
    estimate = mean_of_means(ids, values, members, (0, 1))
    shares = values[:900].mean(), values[900:].mean()
    error = 0.5 * sum(share * (1 - share) / n for share, n in zip(shares, (900, 100), strict=True)) ** 0.5
    assert estimate.value == pytest.approx(sum(shares) / 2)
    assert estimate.low is not None and estimate.high is not None
    assert (estimate.high - estimate.low) / 2 == pytest.approx(1.96 * error, rel=0.08)


def test_the_auc_is_that_of_the_groups_weighed_by_their_pairs():
    rng = np.random.default_rng(0)
    groups, positive = rng.integers(0, 3, size=200), rng.random(200) < 0.3
    scores = np.round(rng.normal(size=200) + positive, 1) + 100 * groups  # with ties
    one_by_one = [roc_auc_score(positive[groups == one], scores[groups == one]) for one in range(3)]
    pairs = [positive[groups == one].sum() * (~positive[groups == one]).sum() for one in range(3)]
    estimate = auc([f"q{index}" for index in range(200)], scores, positive, groups)
    assert estimate.value == pytest.approx(np.average(one_by_one, weights=pairs)) and estimate.n == 200
    assert 0.5 < estimate.low < estimate.value < estimate.high < 1


def test_the_interval_of_an_auc_is_as_wide_as_questions_make_it_vary():
    """Of two normal distributions a standard deviation apart the AUC is Phi(1 / sqrt 2); samples of a question share
    half of their variance."""
    rng, truth = np.random.default_rng(0), norm.cdf(2**-0.5)
    question = np.repeat(np.arange(100), 4)
    positive, groups, found, naive = question % 2 == 0, question % 5, [], []
    for _ in range(150):
        scores = positive + (rng.normal(size=100)[question] + rng.normal(size=400)) / 2**0.5
        found.append(auc(question.astype(str).tolist(), scores, positive, groups))
        naive.append(auc(np.arange(400).astype(str).tolist(), scores, positive, groups))
    spread = np.std([one.value for one in found])
    widths = [np.mean([one.high - one.low for one in those]) / 2 / 1.96 for those in (found, naive)]
    assert 0.85 < widths[0] / spread < 1.15 and widths[1] / spread < 0.8
    assert 0.88 <= np.mean([one.low <= truth <= one.high for one in found]) <= 0.99


def test_the_auc_of_what_is_apart_claims_no_certainty_and_of_equal_scores_is_one_half():
    ids, positive, groups = [f"q{index}" for index in range(20)], np.arange(20) % 2 == 0, np.arange(20) % 5 // 4
    apart = auc(ids, positive.astype(float), positive, groups)
    assert apart.value == apart.high == 1 and 0.8 < apart.low < 0.9
    assert auc(ids, np.zeros(20), positive, groups).value == 0.5
