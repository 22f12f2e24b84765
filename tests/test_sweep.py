import json
import random
from dataclasses import replace
from typing import Any

import pytest
from scipy.stats import binomtest

from tests.synthetic import evaluation, record
from thinksteer.records import InputError, Record
from thinksteer.sweep import Change, Point, by_layer, change, change_of, curves, place, points_of, steered_beside


def point(weight: float, layer: int | None = None, control: str = "c", **more: Any) -> Point:
    return {"control": control, "adds_to": "layers", "weight": weight, "layer": layer, **more}


def unsteered() -> list[Record]:
    """Forty questions; the unsteered responses to the first ten are capped, all wrong; of the others half are right."""
    capped = [record(f"q{index:02d}", length=300, correct=False, status="capped") for index in range(10)]
    return capped + [record(f"q{index}", length=100, correct=index % 2 == 0) for index in range(10, 40)]


def test_a_gain_among_the_capped_alone_shows_there_alone():
    finished_now = [record(f"q{index:02d}", length=200, correct=index < 8) for index in range(10)]
    found = change(unsteered(), finished_now + unsteered()[10:])
    assert found.accuracy_if_capped is not None and found.accuracy_if_finished is not None
    assert (found.accuracy_if_capped.value, found.accuracy_if_capped.n) == (0.8, 10)
    assert found.accuracy_if_capped.low is not None and found.accuracy_if_capped.low > 0.4
    assert (found.accuracy_if_finished.value, found.accuracy_if_finished.n) == (0, 30)
    assert found.accuracy.value == pytest.approx(8 / 40)


def test_a_gain_among_the_finished_shows_there_whoever_is_capped_when_steered():
    steered = unsteered()[:10] + [record(f"q{index}", length=300, status="capped") for index in range(10, 40)]
    found = change(unsteered(), steered)
    assert found.accuracy_if_capped is not None and found.accuracy_if_finished is not None
    assert (found.accuracy_if_capped.value, found.accuracy_if_finished.value) == (0, 0.5)


def test_the_parts_leave_out_who_has_no_twin_and_are_none_where_nobody_is():
    found = change(unsteered()[10:], [record("q10", correct=False), record("q11"), record("elsewhere")])
    assert found.accuracy_if_capped is None
    assert found.accuracy_if_finished is not None and found.accuracy_if_finished.n == 2


def test_changes_of_tokens_of_thinking_and_of_loops_are_paired_means():
    base = [record("a", length=100), record("b", length=50), record("c", length=None)]
    looping = replace(record("b", length=80), response="wait " * 400, response_tokens=400)
    found = change(base, [looping, record("a", length=90), replace(record("c", length=None), response_tokens=6)])
    assert (found.tokens.value, found.tokens.n) == (((100 - 110) + (400 - 60) + (6 - 0)) / 3, 3)
    assert found.length is not None and (found.length.value, found.length.n) == (((90 - 100) + (80 - 50)) / 2, 2)
    assert found.degenerate.value == pytest.approx(1 / 3)


def test_mcnemar_p_is_scipys():
    base = [record(f"q{index}", correct=index >= 9) for index in range(30)]
    other = [record(f"q{index}", correct=index < 7 or index >= 11) for index in range(30)]  # gains 7, loses 2
    assert change(base, other).mcnemar_p == pytest.approx(binomtest(7, 9, 0.5).pvalue)


def test_points_do_not_depend_on_the_order_of_records_and_survive_json():
    base, other = evaluation(0, 80, 2), evaluation(1, 80, 2, gain=0.2, longer=-20)
    runs = {(None, 0.0): (base, 500), (3, 1.0): (other, 500)}
    shuffled = {key: (random.Random(1).sample(records, len(records)), 500) for key, (records, _) in runs.items()}
    points = points_of(runs)
    assert points == points_of(dict(reversed(shuffled.items())))
    read = json.loads(json.dumps(points, allow_nan=False))
    assert read == points
    assert change_of(read[1]) == change(base, other)


def test_the_unsteered_and_what_has_no_unsteered_of_its_budget_are_not_compared():
    base, other = evaluation(0, 40, 1), evaluation(1, 40, 1)
    points = points_of({(None, 0.0): (base, 500), (2, 1.0): (other, 500), (2, 2.0): (other, 900)})
    assert [(one["weight"], one["layer"], one["max_length"]) for one in points] == [
        (0.0, None, 500),
        (1.0, 2, 500),
        (2.0, 2, 900),
    ]
    assert [change_of(one) is None for one in points] == [True, False, True]
    found = change_of(points[1])
    assert isinstance(found, Change)
    assert points[1]["accuracy_change"] == [found.accuracy.value, found.accuracy.low, found.accuracy.high]
    assert points[0]["accuracy_change"] is None
    assert change_of(points_of({(2, 1.0): (other, 500)})[0]) is None


def test_settings_of_other_questions_are_refused():
    with pytest.raises(InputError, match="share no"):
        points_of({(None, 0.0): ([record("a")], 9), (None, 1.0): ([record("b")], 9)})


def test_a_random_control_is_known_by_its_name_as_is_what_it_stands_beside():
    names = ["seal.random0", "my.random.random12", "seal", "random0", "seal.randomly", "seal.random"]
    assert [steered_beside(name) for name in names] == ["seal", "my.random", None, None, None, None]


def test_a_place_is_all_layers_one_of_them_the_logits_or_nowhere():
    penalty = {**point(-3), "adds_to": "logits"}
    assert [place(one) for one in (point(0), point(1), point(1, 0), penalty)] == [
        "–",
        "all layers",
        "layer 0",
        "logits",
    ]


def drawn(points: list[Point]) -> list[tuple[str, str, list[float]]]:
    return [(curve.label, curve.kind, [one["weight"] for one in curve.points]) for curve in curves(points)]


def test_weight_zero_belongs_to_every_curve_and_curves_go_by_weight():
    points = [point(weight, 3, "seal") for weight in (2, -1, 1)] + [point(0, None, "seal"), point(1, 4, "seal")]
    points += [point(0, None, "other"), point(0.4, None, "other"), {**point(-3, None, "p"), "adds_to": "logits"}]
    assert drawn(points) == [
        ("seal, layer 3", "one layer", [-1, 0, 1, 2]),
        ("seal, layer 4", "one layer", [0, 1]),
        ("other", "all layers", [0, 0.4]),
        ("p", "logits", [-3]),
    ]


def test_layers_that_outnumber_their_weights_are_curves_against_the_layer_only():
    each = [point(weight, layer) for layer in range(6) for weight in (-1, 1)]
    points = [point(0), point(0.2), *each, *(point(weight, 3) for weight in (0.5, 2))]
    assert [label for label, _, _ in drawn(points)] == ["c", "c, layer 3"]
    by = by_layer(points)
    assert {(one["weight"], one["layer"]) for one in by if one["weight"]} == {
        (w, at) for at in range(6) for w in (-1, 1)
    }
    assert point(0) in by and point(0.2) not in by


def test_one_layer_or_none_makes_no_curve_against_the_layer_and_nothing_steered_none_at_all():
    assert by_layer([point(0), point(1, 3), point(2, 3)]) == []
    assert by_layer([point(0), point(1)]) == []
    assert curves([point(0)]) == []
