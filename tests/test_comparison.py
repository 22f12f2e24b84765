import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.synthetic import evaluation, record
from thinksteer.comparison import Family, Member, differences, summaries
from thinksteer.records import InputError, Record


def family(*members: Member) -> Family:
    return Family("gsm8k", members)


def hand_made() -> Family:
    """Twenty questions; the base's shortest 10 % are q0 and q1, both wrong; the edit's own shortest are q18 and q19."""
    base = [record(f"q{index:02d}", length=10 + index, correct=index >= 2) for index in range(20)]
    edited = [record(f"q{index:02d}", length=100 - index, correct=index != 1) for index in range(20)]
    return family(Member("base", "base", base, 300), Member("edit", "edited", edited, 300))


def test_the_matched_form_looks_at_the_bases_shortest_pairs_in_every_model():
    base, edited = summaries(hand_made())
    own, matched, length = edited.shortest[10], edited.matched[10], edited.matched_length[10]
    assert own is not None and matched is not None and length is not None
    assert own.value == 1.0  # q18 and q19
    assert matched.value == 0.5 and matched.n == 2  # q0 right, q1 wrong
    assert length.value == 99.5  # (100 + 99) / 2
    assert base.matched == base.shortest and base.matched_length == base.shortest_length


def test_differences_are_paired_and_matched_by_hand():
    (change,) = differences(hand_made())
    assert (change.group, change.reference, change.model) == ("edit", "base", "edit")
    assert change.accuracy.value == pytest.approx(1 / 20)
    assert change.p == 1.0  # one gained, none lost
    matched = change.matched[10]
    assert matched is not None and (matched.value, matched.n) == (0.5, 2)
    assert change.held_out[10] is None  # there is no second sample


def test_controls_stand_beside_the_effect_and_are_subtracted_from_it():
    made = family(
        Member("base", "base", evaluation(0, 100, 2), 500),
        Member("edit", "edited", evaluation(1, 100, 2, gain=0.2), 500),
        Member("random", "control", evaluation(2, 100, 2), 500),
    )
    found = [(one.group, one.model, one.reference) for one in differences(made)]
    assert found == [("edit", "edit", "base"), ("control", "random", "base"), ("edit minus control", "edit", "random")]


def test_without_a_base_nothing_is_compared_and_nothing_matched():
    alone = family(Member("edit", "edited", evaluation(0, 40, 1), 500))
    assert differences(alone) == []
    assert set(summaries(alone)[0].matched.values()) == {None}


def test_models_evaluated_on_other_questions_are_named():
    members = (Member("one", "base", [record("a")], 9), Member("two", "edited", [record("b")], 9))
    with pytest.raises(InputError, match="gsm8k: one and two share no"):
        differences(family(*members))


def test_models_with_other_numbers_of_samples_are_compared_on_what_both_have():
    """The base has four samples of each question, the edit two, of half of the questions and of some others."""
    base = evaluation(0, 40, 4)
    edited = [one for one in evaluation(1, 60, 2, gain=0.3) if int(one.id[1:]) >= 20]
    made = family(Member("base", "base", base, 500), Member("edit", "edited", edited, 500))
    both = [one for one in base if one.sample < 2 and int(one.id[1:]) >= 20]
    same = [one for one in edited if int(one.id[1:]) < 40]
    assert [(one.id, one.sample) for one in both] == [(one.id, one.sample) for one in same]
    equal = family(Member("base", "base", both, 500), Member("edit", "edited", same, 500))

    (found,), (wanted,) = differences(made), differences(equal)
    assert (found.n, found.before, found.after) == (40, wanted.before, wanted.after)
    assert (found.accuracy, found.p, found.length) == (wanted.accuracy, wanted.p, wanted.length)
    before, after = summaries(made)
    assert (before.metrics["n_responses"], after.metrics["n_responses"]) == (160, 80)
    assert (before.n_in_all, after.n_in_all) == (40, 40)
    for percent in (5, 10, 20):
        pairs = [one and one.n for one in (before.matched[percent], after.matched[percent], found.matched[percent])]
        assert len(set(pairs)) == 1  # the same pairs in every row
    assert before.matched[20].n < before.shortest[20].n
    assert found.held_out[20].n == found.matched[20].n  # the other one of two samples, in both models


def test_held_out_samples_are_the_same_ones_in_both_models():
    """Sample 1 of the base is always right; the edit lacks it, and is as right as the base on the samples of both."""
    base = [
        record(f"q{n:02d}", sample, length=10 + n + sample, correct=sample == 1)
        for n in range(20)
        for sample in range(3)
    ]
    edited = [one for one in base if one.sample != 1]
    (found,) = differences(family(Member("base", "base", base, 99), Member("edit", "edited", edited, 99)))
    assert found.held_out[20].value == 0
    assert found.before == found.after


def messy(seed: int) -> list[Record]:
    """Out of order, with responses missing, without thinking, cut, and to open questions."""
    rng = random.Random(seed)
    made = []
    for one in evaluation(seed, 60, 3):
        kind = rng.random()
        if kind < 0.1:
            one = record(one.id, one.sample, None, one.correct)
        elif kind < 0.2:
            one = record(one.id, one.sample, 500, False, status="capped", response="again " * 900)
        made.append(replace(one, kind="open", correct=False) if int(one.id[1:]) % 9 == 0 else one)
    kept = [one for one in made if rng.random() < 0.9]
    return rng.sample(kept, len(kept))


def mean_of(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def test_every_figure_equals_the_plain_loop_over_records():
    base, edited = messy(0), messy(1)
    made = family(Member("base", "base", base, 500), Member("edit", "edited", edited, 500))
    after = {(one.id, one.sample): one for one in edited}

    def following(run: Sequence[Record], one: Record) -> Record | None:
        """The next response to the same question (the first after the last)."""
        others = sorted((other for other in run if other.id == one.id), key=lambda other: other.sample)
        return others[(others.index(one) + 1) % len(others)] if len(others) > 1 else None

    def change(pairs: Sequence[tuple[Record, Record]], value: str) -> float | None:
        ends = [(getattr(one, value), getattr(other, value)) for one, other in pairs]
        return mean_of([None if None in end else end[1] - end[0] for end in ends])

    (found,) = differences(made)
    summary = summaries(made)[1]
    pairs = [(one, after[one.id, one.sample]) for one in base if (one.id, one.sample) in after]
    assert found.accuracy.value == pytest.approx(change(pairs, "verdict"))
    assert found.length.value == pytest.approx(change(pairs, "length"))
    assert summary.accuracy.value == pytest.approx(mean_of([one.verdict for one in edited]))
    for percent in (5, 10, 20):
        chosen = []
        for sample in range(3):
            run = sorted((one.length, one.id) for one in base if one.sample == sample and one.length is not None)
            chosen += [(id, sample) for _, id in run[: len(run) * percent // 100]]
        picked = [pair for pair in pairs if (pair[0].id, pair[0].sample) in chosen]
        again = [(following([one for one, _ in pairs], before)) for before, _ in picked]
        again = [(one, after[one.id, one.sample]) for one in again if one is not None]
        assert found.matched[percent].value == pytest.approx(change(picked, "verdict"))
        assert found.held_out[percent].value == pytest.approx(change(again, "verdict"))
        assert summary.matched_length[percent].value == pytest.approx(mean_of([other.length for _, other in picked]))
    assert summary.metrics["degenerate_rate"] == sum("again again" in one.response for one in edited) / len(edited) > 0
    assert summary.metrics["n_responses"] == len(edited)
