import pytest

from tests.synthetic import evaluation, record
from thinksteer.comparison import Family, Member, differences, summaries
from thinksteer.records import InputError


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
