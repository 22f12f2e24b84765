import random
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from tests.synthetic import evaluation, record
from thinksteer.analysis import Pair, identities, matching, outcomes, paired_difference, shortest
from thinksteer.outcomes import shared
from thinksteer.records import Record


def next_samples(records: Sequence[Record], pairs: Collection[Pair]) -> list[Record]:
    """For each of these pairs the response that stands in for it, under the pair's own number."""
    rows = zip(records, outcomes(records).next_samples, strict=True)
    found = [(one, row) for one, row in rows if (one.id, one.sample) in pairs and row >= 0]
    return [replace(records[row], sample=one.sample) for one, row in found]


def test_the_next_sample_stands_in_for_the_picked_one_and_goes_round():
    records = [record("a", 0, 10), record("a", 1, 20), record("a", 2, 30), record("b", 0, 40)]
    stand_ins = next_samples(records, {("a", 0), ("a", 2), ("b", 0)})
    assert {(one.id, one.sample): one.length for one in stand_ins} == {("a", 0): 20, ("a", 2): 10}


def test_next_samples_show_no_change_where_the_matched_pairs_show_a_step_back_to_the_mean():
    base, again = (evaluation(seed, n_questions=600, n_samples=4) for seed in (0, 1))
    picked = identities(shortest(base, 20))
    matched = paired_difference(matching(base, picked), matching(again, picked))
    held_out = paired_difference(next_samples(base, picked), next_samples(again, picked))
    assert matched.low is not None and matched.low > 0.1  # though both are the same model
    assert not held_out.apart_from_zero


def test_what_two_runs_share_is_found_whatever_the_order_and_the_numbers_of_their_questions():
    rng = random.Random(0)
    first, second = (
        [record(f"q{index}", sample) for index in range(30) for sample in range(-1, 4) if rng.random() < 0.6]
        for _ in range(2)
    )
    rng.shuffle(first)
    at, there = shared(outcomes(first), outcomes(second))
    pairs = [(first[row].id, first[row].sample) for row in at]
    assert pairs == [(second[row].id, second[row].sample) for row in there]
    assert set(pairs) == identities(first) & identities(second) and len(set(pairs)) == len(pairs)
    nothing = shared(outcomes(first), outcomes([record("other")]))
    assert [len(rows) for rows in nothing] == [0, 0]


def test_columns_hold_what_records_say_and_nothing_where_they_say_nothing():
    open_question = replace(record("b", 1, length=None), kind="open", correct=False)
    of = outcomes([record("b", 0, 30, correct=False), open_question, record("a", 0, 20, status="capped")], loops=True)
    assert of.ids.tolist() == ["a", "b"] and of.question.tolist() == [1, 1, 0] and of.sample.tolist() == [0, 1, 0]
    np.testing.assert_equal(of.verdict, [0, np.nan, 1])
    np.testing.assert_equal(of.length, [30, np.nan, 20])
    assert of.answered.tolist() == [True, True, False] and of.cut.tolist() == [False, False, True]
    assert of.lengths.tolist() == [30, 20] and of[of.question == 1].status.tolist() == ["closed", "no_think"]
    assert of.looped.tolist() == [False] * 3 and outcomes([record("a")]).looped is None
    assert of.mean(of.verdict, (0, 1)).n == 2 and of[of.question > 1].mean(of[of.question > 1].length, None) is None
