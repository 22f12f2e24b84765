from itertools import product

import numpy as np
import pytest
from scipy.stats import binomtest, false_discovery_control

from thinksteer.significance import holm, swap_p


def test_with_changes_of_one_it_is_mcnemars_exact_test():
    for gained, lost, same in ((0, 0, 5), (1, 0, 0), (7, 2, 30), (12, 12, 3), (150, 90, 1000)):
        truth = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
        assert swap_p([1] * gained + [-1] * lost + [0] * same) == pytest.approx(truth, rel=1e-9)


@pytest.mark.parametrize("changes", [[3, -1, 2, 0, 1], [4, 4, -4, 1], [-2, -2, -2, -5], [2, -2]])
def test_of_several_samples_it_counts_every_way_of_swapping_whole_questions(changes):
    sums = [abs(sum(sign * change for sign, change in zip(signs, changes, strict=True)))
            for signs in product((1, -1), repeat=len(changes))]  # fmt: skip
    assert swap_p(changes) == pytest.approx(np.mean(np.array(sums) >= abs(sum(changes))))


def test_samples_of_one_question_count_together():
    assert swap_p([4, 4, 4]) == pytest.approx(0.25) and swap_p([1] * 12) == pytest.approx(2 * 0.5**12)


def test_p_is_small_no_more_often_than_it_says_though_samples_are_dependent():
    rng = np.random.default_rng(0)
    small = naive = 0
    for _ in range(2000):
        ease = rng.beta(0.5, 0.5, size=80)
        before, after = (rng.binomial(4, ease) for _ in range(2))
        small += swap_p((after - before).tolist()) <= 0.05
        moved = rng.choice([-4, 4], size=20)  # all samples of a question change at once
        naive += binomtest(int((moved > 0).sum()) * 4, 80).pvalue <= 0.05
    assert 0.035 < small / 2000 < 0.062
    assert naive / 2000 > 0.2  # what counting samples would give


def test_holms_correction_is_that_of_the_least_p_first():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1, 1] and holm([0.03]) == [0.03] and holm([]) == []
    values = np.random.default_rng(0).random(30) ** 3
    corrected = np.array(holm(values.tolist()))
    assert (np.diff(corrected[np.argsort(values)]) >= 0).all()
    assert (corrected >= values).all() and (corrected <= np.minimum(1, 30 * values) + 1e-12).all()
    assert (corrected >= false_discovery_control(values) - 1e-12).all()  # which promises less


def test_among_many_settings_that_do_nothing_the_least_corrected_p_is_rarely_small():
    """24 settings of the same 200 questions: without correction one of them is small in most sweeps."""
    rng = np.random.default_rng(1)
    least, corrected = [], []
    for _ in range(400):
        base = rng.random(200) < 0.7
        steered = np.where(rng.random((24, 200)) < 0.15, rng.random((24, 200)) < 0.7, base)
        p_values = [swap_p((run.astype(int) - base).tolist()) for run in steered]
        least.append(min(p_values))
        corrected.append(min(holm(p_values)))
    assert np.mean(np.array(corrected) <= 0.05) <= 0.06 and np.mean(np.array(least) <= 0.05) > 0.3
