import json
import random
import time
import zlib
from dataclasses import replace

import pytest
from scipy.stats import binom

from tests.synthetic import evaluation, record
from thinksteer.analysis import (
    accuracy,
    accuracy_below,
    accuracy_by_length,
    degenerate,
    identities,
    mcnemar_p,
    mean_length,
    mean_tokens,
    metrics,
    oddities,
    paired_change,
    paired_difference,
    paired_length_difference,
    shortest,
)
from thinksteer.records import InputError


def test_accuracy_counts_every_response_and_without_any_there_is_nothing_to_say():
    assert accuracy([record("a", correct=True), record("b", correct=False), record("c", length=None)]).value == 2 / 3
    assert accuracy([]) is None
    with pytest.raises(InputError, match="no records"):
        metrics([], None)


def test_lengths_leave_out_those_that_never_think_and_count_capped_ones_as_far_as_they_got():
    records = [record("a", length=50), record("b", length=None), record("c", length=250, status="capped")]
    estimate = mean_length(records)
    assert estimate is not None and estimate.value == 150 and estimate.n == 2
    assert mean_length([record("a", length=None)]) is None


def test_tokens_are_those_of_the_whole_response_also_where_nothing_was_thought():
    forced = replace(record("a", length=100, status="capped"), response_tokens=120, forced_at=100)
    estimate = mean_tokens([forced, replace(record("b", length=None), response_tokens=40)])
    assert estimate is not None and (estimate.value, estimate.n) == (80, 2)
    assert mean_tokens([]) is None


def test_the_shortest_are_taken_per_run_and_never_from_those_that_do_not_think():
    run = [record(f"q{index:02d}", sample, length=10 * index + sample) for index in range(1, 21) for sample in (0, 1)]
    chosen = shortest([*run, record("never", 0, length=None)], 10)
    assert identities(chosen) == {("q01", 0), ("q02", 0), ("q01", 1), ("q02", 1)}
    assert shortest(run[:30], 5) == []  # 15 responses a run: 5 % is less than one


def test_ties_are_broken_by_id_whatever_the_order_of_the_file():
    records = [record(f"q{index:02d}", length=100) for index in range(40)]
    random.Random(0).shuffle(records)
    assert sorted(one.id for one in shortest(records, 5)) == ["q00", "q01"]


def test_a_planted_change_is_found_and_no_change_is_not():
    base = evaluation(0, 400, 3)
    gained = paired_difference(base, evaluation(1, 400, 3, gain=0.15))
    same = paired_difference(base, evaluation(2, 400, 3))
    assert gained.low is not None and gained.high is not None and 0.05 < gained.low < 0.13 < gained.high + 0.02
    assert not same.apart_from_zero
    longer = paired_length_difference(base, evaluation(0, 400, 3, longer=30))
    assert longer is not None and longer.value == 30


def test_differences_use_only_the_pairs_both_have():
    base = [record("a", correct=False), record("b", correct=True, length=None), record("c", correct=True)]
    other = [record("a", length=130), record("b", correct=True), record("z", correct=False)]
    change = paired_difference(base, other)
    assert (change.value, change.n) == (0.5, 2)
    length = paired_length_difference(base, other)
    assert length is not None and (length.value, length.n) == (30, 1)
    with pytest.raises(InputError, match="share no"):
        paired_difference(base, [record("z")])


def test_a_change_of_any_value_counts_the_pairs_that_have_it_in_both():
    base = [record("a", length=10), record("b", length=20), record("c", length=None)]
    other = [record("a", length=13), record("b", length=25), record("c", length=7), record("d", length=9)]
    found = paired_change(base, other, lambda one: one.length)
    assert found is not None and (found.value, found.n) == (4, 2)
    assert paired_change(base, other, lambda one: None) is None


def test_pairing_makes_the_interval_of_a_difference_narrower():
    base = evaluation(0, 300, 1)
    other = [record(one.id, 0, one.length, one.correct or one.id.endswith("7")) for one in base]
    change, alone = paired_difference(base, other), accuracy(other)
    assert change.high is not None and change.low is not None and alone.high is not None and alone.low is not None
    assert change.high - change.low < (alone.high - alone.low) / 1.5


def test_mcnemar_is_the_exact_binomial_of_the_discordant_pairs():
    base = [record(f"q{index}", correct=index >= 9) for index in range(30)]  # 9 wrong
    other = [record(f"q{index}", correct=index < 7 or index >= 11) for index in range(30)]  # gains 7, loses 2
    assert mcnemar_p(base, other) == pytest.approx(2 * binom.cdf(2, 9, 0.5))
    assert mcnemar_p(base, base) == 1.0
    several = [record(id, sample, correct=False) for id in "abc" for sample in range(4)]
    right = [record(id, sample, correct=True) for id in "abc" for sample in range(4)]
    assert mcnemar_p(several, right) == pytest.approx(2 * 0.5**3)  # of three questions, not of twelve samples
    some = [
        record(id, sample, correct=sample < count)
        for id, count in zip("abc", (3, 1, 1), strict=True)
        for sample in range(4)
    ]
    back = [record(one.id, one.sample, correct=one.id == "c" and not one.correct) for one in some]
    assert mcnemar_p(some, back) == pytest.approx(6 / 8)  # changes of -3, -1 and +2: six of eight signs give 2 or more


def test_accuracy_below_a_threshold_is_cumulative_and_strict():
    records = [
        record("a", length=10, correct=False),
        record("b", length=20),
        record("c", length=30),
        record("d", length=None),
    ]
    below = accuracy_below(records, [10, 20, 21, 1000])
    assert below[0] is None
    assert [one and (one.value, one.n) for one in below[1:]] == [(0.0, 1), (0.5, 2), (pytest.approx(2 / 3), 3)]


def test_length_groups_are_equally_large_and_ordered():
    records = [record(f"q{index}", length=index, correct=index >= 10) for index in range(1, 41)]
    groups = accuracy_by_length(list(reversed(records)), groups=4)
    assert [length for length, _ in groups] == [5.5, 15.5, 25.5, 35.5]
    assert [(estimate.value, estimate.n) for _, estimate in groups] == [(0.1, 10), (1.0, 10), (1.0, 10), (1.0, 10)]
    assert accuracy_by_length([record("a", length=None)]) == []


def test_loops_are_degenerate_and_working_is_not():
    rng = random.Random(0)
    steps = [f"Day {day}: {rng.randrange(60)} and {rng.randrange(9)} makes {rng.randrange(60)}." for day in range(200)]
    assert not degenerate(" ".join(steps))
    assert not degenerate("yes " * 20)
    assert degenerate(" ".join(steps[:50]) + " Wait, let me check that again." * 200)
    assert degenerate("".join(steps[:50]) + "哈" * 5000)


def test_a_loop_is_told_as_by_counting_everything():
    def plainly(text: str) -> bool:
        tail = text[-4000:]
        raw, words = tail.encode("utf-8", "backslashreplace"), tail.split()
        triples = [tuple(words[at : at + 3]) for at in range(len(words) - 2)]
        few = len(triples) >= 30 and len(set(triples)) < 0.2 * len(triples)
        return len(raw) >= 400 and (few or len(zlib.compress(raw)) < 0.1 * len(raw))

    rng, told = random.Random(0), []
    for _ in range(400):
        kinds = rng.choice((2, 3, 5, 8, 30, 300))
        words = [rng.choice("abcdefghijklmnopqrstuvwxyz\ud800哈") * rng.randrange(1, 9) for _ in range(kinds)]
        text = rng.choice((" ", "\n\n", "\u3000")).join(rng.choices(words, k=rng.randrange(20, 900)))
        text += (words[0] + " ") * rng.choice((0, 0, 50, 200))
        told.append(degenerate(text))
        assert told[-1] == plainly(text)
    assert 50 < sum(told) < 350


def test_metrics_have_the_keys_that_stages_write_and_survive_json():
    records = [
        record("a", 0, 100),
        record("a", 1, 300, correct=False, status="capped"),
        record("b", 0, 200),
        record("b", 1, None),
    ]
    found = metrics(records, max_length=300)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["n_questions"], found["n_samples"], found["max_length"]) == (2, 2, 300)
    assert (found["n_responses"], found["accuracy"], found["mean_length"]) == (4, 0.75, 200)
    assert found["mean_tokens"] == (110 + 300 + 210 + 0) / 4
    assert (found["cap_rate"], found["no_answer_rate"], found["degenerate_rate"]) == (0.25, 0.25, 0)
    assert found["status"] == {"closed": 0.5, "capped": 0.25, "eos_open": 0, "empty": 0, "no_think": 0.25}
    assert (found["forced_rate"], found["forced_tokens"], found["reopened_rate"]) == (0, None, None)


def test_forced_answers_that_open_the_thinking_again_are_counted():
    asked = "<think>Hm\n</think>\n\nYeah, I think that's right.\n\n**Final Answer**\n"
    cut = replace(record("a", 0, 20, status="capped"), response_tokens=30, forced_at=20)
    records = [replace(cut, response=f"{asked}7"), replace(cut, sample=1, response=f"{asked}<think>Hm"), record("b")]
    found = metrics(records, 20, "<think>")
    assert (found["forced_rate"], found["forced_tokens"], found["reopened_rate"]) == (2 / 3, 10, 0.5)
    assert metrics(records, 20)["reopened_rate"] == 0  # no delimiter to look for
    again = replace(cut, response=f"{asked}<think>Hm</think> **Final Answer** 7")  # which says the words once more
    assert metrics([again], 20, "<think>")["reopened_rate"] == 1
    assert oddities(found, 20) == [
        "67% reached the limit of 20 tokens: raise --max_length",
        "50% of the forced answers open the thinking again instead of answering",
    ]


def test_what_is_odd_about_responses_is_said():
    def said(*records):
        return " ".join(oddities(metrics(records, 50, "<think>"), 50))

    assert said(record("a"), record("b", length=None)) == ""
    assert "no response thinks" in said(record("a", length=None), replace(record("b"), status="empty"))
    idle = [record(name, length=None) for name in "abc"]
    assert "75% of the responses do not think (0% empty)" in said(*idle, record("d"))
    assert "no response states an answer" in said(replace(record("a"), prediction=None))
    assert "100.0% end in a loop" in said(record("a", response="again " * 900))


def test_metrics_of_responses_without_thinking_have_no_length():
    found = metrics([record("a", length=None)], max_length=10)
    assert found["mean_length"] is None and found["mean_length_interval"] is None


def test_thirteen_thousand_records_take_seconds():
    base, other = (evaluation(seed, 1319, 10) for seed in (0, 1))
    start = time.process_time()
    accuracy(base)
    paired_difference(base, other)
    accuracy_below(base, list(range(40, 400, 12)))
    assert time.process_time() - start < 5
