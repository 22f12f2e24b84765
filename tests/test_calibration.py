"""Accuracy along the chain, calibration and strength sweeps against planted truths."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from thinksteer.calibration import (
    correlations,
    counts,
    exits,
    exits_by_share,
    exits_by_tokens,
    reliability,
    strength,
    used,
)
from thinksteer.trajectories import Trajectory


def chain(id, right, at=None, confidence=None, odds=None, mass=1.0, **more):
    """A chain whose likeliest choice is the reference where `right` says so."""
    n = len(right)
    confidence = [0.5] * n if confidence is None else confidence
    one = Trajectory(
        id=id,
        sample=0,
        choice="r",
        graded=True,
        degenerate=False,
        thinking_end=None,
        at=tuple(range(0, 10 * n, 10)) if at is None else tuple(at),
        log_odds=(0.0,) * n if odds is None else tuple(odds),
        mass=(mass,) * n,
        probability=tuple(c if r else 1 - c for c, r in zip(confidence, right, strict=True)),
        likeliest=tuple("r" if one else "w" for one in right),
        confidence=tuple(confidence),
    )
    return replace(one, **more)


CHAINS = [
    chain("a", [False, False, True, True, True]),  # at 0 .. 40
    chain("b", [False, True], confidence=[0.5, 0.9]),  # at 0, 10
    chain("c", [False, False, False], at=[0, 10, 15]),
]


def values(line):
    return {round(at.place, 6): at.accuracy.value for at in line}


def test_a_chain_stopped_by_share_answers_as_at_its_last_place_until_then():
    line = exits_by_share(CHAINS)
    assert values(line) == pytest.approx(
        dict.fromkeys((0, 0.1, 0.2, 0.3, 0.4), 0) | dict.fromkeys((0.5, 0.6, 0.7, 0.8, 0.9), 1 / 3) | {1: 2 / 3}
    )
    assert line[0].tokens == 0 and line[-1].tokens == pytest.approx((40 + 10 + 15) / 3)
    assert line[-1].probability.value == pytest.approx((0.5 + 0.9 + 0.5) / 3)


def test_a_chain_that_has_ended_keeps_its_answer_by_tokens():
    line = exits_by_tokens(CHAINS, [0, 9, 10, 20, 100])
    assert values(line) == pytest.approx({0: 0, 9: 0, 10: 1 / 3, 20: 2 / 3, 100: 2 / 3})
    assert [at.tokens for at in line] == pytest.approx([0, 0, 10, 45 / 3, 65 / 3])
    assert exits(CHAINS)[1][-1].place == 40


def test_chains_without_a_reference_have_probabilities_but_no_accuracy():
    (stop,) = exits_by_tokens([replace(CHAINS[1], graded=False)], [10])
    assert stop.accuracy is None and stop.probability.value == 0.9
    assert reliability([replace(CHAINS[1], graded=False)]) is None
    assert exits_by_tokens([CHAINS[0], replace(CHAINS[1], graded=False)], [10])[0].accuracy.n == 1


def test_flagged_chains_are_counted_and_left_out():
    chains = [*CHAINS, chain("d", [True], mass=0.7), replace(CHAINS[0], id="e", degenerate=True)]
    assert [one.id for one in used(chains)] == ["a", "b", "c"]
    found = counts(chains)
    assert found == {"chains": 5, "degenerate": 1, "low_mass": 1, "used": 3, "graded": 3, "without_score": 1}


def stated(shift, n=1500, seed=0):
    """Answers that are right with the confidence stated, less `shift`."""
    rng = np.random.default_rng(seed)
    sure = rng.uniform(0.3, 1, size=n)
    right = rng.random(n) < sure - shift
    return [chain(str(at), [bool(r)], confidence=[float(c)]) for at, (c, r) in enumerate(zip(sure, right, strict=True))]


def test_a_calibrated_model_has_no_more_error_than_chance_gives_it():
    found = reliability(stated(0))
    assert found.error.value < 2 * found.error_if_calibrated < 0.08
    inside = [one.accuracy.low <= one.confidence <= one.accuracy.high for one in found.bins]
    assert sum(inside) >= len(inside) - 1 >= 6
    few = reliability(stated(0, 100))
    assert few.error_if_calibrated > 2 * found.error_if_calibrated


def test_an_error_that_chance_can_give_may_be_none_and_a_plain_one_is_held_on_both_sides():
    for seed in range(5):
        found = reliability(stated(0, 150, seed)).error
        assert found.low == 0 < found.value < found.high
        found = reliability(stated(0.25, 300, seed)).error
        assert 0.1 < found.low < 0.25 < found.high
        assert found.value - found.low >= found.high - found.value - 1e-9


def test_the_error_and_the_brier_score_are_their_definitions():
    chains = stated(0.2, 500)
    found = reliability(chains)
    sure, right = (np.array([getattr(one, name)[-1] for one in chains]) for name in ("confidence", "right"))
    bins = np.minimum((sure * 10).astype(int), 9)
    gaps = [abs(sure[bins == b].mean() - right[bins == b].mean()) * (bins == b).mean() for b in set(bins)]
    assert found.error.value == pytest.approx(sum(gaps)) and found.error.low < 0.2 < found.error.high
    assert found.brier.value == pytest.approx(np.mean((sure - right) ** 2))
    assert found.confidence.value == pytest.approx(sure.mean()) and found.accuracy.value == pytest.approx(right.mean())
    assert sum(one.accuracy.n for one in found.bins) == 500
    spread = sure.std() / 500**0.5
    assert found.confidence.high - found.confidence.low == pytest.approx(4 * spread, rel=0.15)
    assert [one.confidence for one in found.bins] == pytest.approx([sure[bins == b].mean() for b in sorted(set(bins))])
    assert found.error.value > 4 * found.error_if_calibrated


def swept(slope, n=60, seed=0):
    rng = np.random.default_rng(seed)
    ease = rng.normal(size=n)
    return {
        weight: [chain(f"q{q}", [True] * 3, odds=[slope * weight + 3 * ease[q] + rng.normal()] * 3) for q in range(n)]
        for weight in (-4.0, -1.0, 0.0, 1.0)
    }


def test_correlations_are_scipys_and_their_intervals_know_the_questions():
    by_weight = swept(1)
    pairs = [(weight, one.score) for weight, chains in by_weight.items() for one in chains]
    found = correlations(by_weight, None)
    assert found["pearson"].value == pytest.approx(pearsonr(*zip(*pairs, strict=True)).statistic)
    assert found["spearman"].value == pytest.approx(spearmanr(*zip(*pairs, strict=True)).statistic)
    assert all(one.low < one.value < one.high and one.apart_from_zero for one in found.values())
    none = correlations(swept(0), None)
    assert not any(one.apart_from_zero for one in none.values())


def test_a_limit_leaves_the_strong_weights_out_of_the_correlation():
    by_weight = swept(1)
    by_weight[-4.0] = [replace(one, log_odds=(50.0,) * 3) for one in by_weight[-4.0]]
    assert correlations(by_weight, None)["pearson"].value < -0.5
    within = correlations(by_weight, 1)
    assert within["pearson"].value > 0 and within["pearson"].n == 180
    assert correlations(by_weight, 0.5) is None and correlations({}, None) is None


def test_a_strength_is_compared_with_no_steering_on_the_same_chains():
    by_weight = swept(2)
    plain = by_weight[0.0]
    steered = [*by_weight[1.0][:-2], replace(by_weight[1.0][-2], degenerate=True), chain("new", [False] * 3)]
    found = strength(1.0, steered, plain)
    before = {one.id: one.score for one in plain}
    changes = [one.score - before[one.id] for one in steered[:-2]]
    score = found.score
    assert score.change.value == pytest.approx(np.mean(changes)) and score.change.n == len(changes) == 58
    widths = [one.high - one.low for one in (score.change, score.value)]
    assert score.change.low > 1 and score.change.high < 3 and 2 * widths[0] < widths[1]  # pairs share their question
    assert score.value.n == 59 and found.tokens.value.value == 20 and found.tokens.change.value == 0
    assert found.accuracy.value.value == pytest.approx(58 / 59) and found.accuracy.change.value == 0
    assert found.confidence.value.value == 0.5 and found.probability.value.n == 59
    assert found.counts["degenerate"] == 1 and strength(1.0, [], plain).score.value is None
    ungraded = [replace(one, graded=False) for one in steered]
    assert strength(1.0, ungraded, plain).accuracy.value is None


def test_final_confidence_and_the_probability_of_the_answer_are_those_of_the_last_place():
    plain = [chain("a", [True, True, True], confidence=[0.5, 0.6, 0.9])]
    found = strength(1.0, [chain("a", [True, True, False], confidence=[0.5, 0.9, 0.8])], plain)
    assert (found.confidence.value.value, found.confidence.change.value) == pytest.approx((0.8, -0.1))
    assert (found.probability.value.value, found.probability.change.value) == pytest.approx((0.2, -0.7))
    assert found.accuracy.change.value == -1
