"""Changes by kind against what follows by hand, their difference against worlds with a known one, and the script."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from synthetic import record

from scripts.level_effects import main
from thinksteer import store
from thinksteer.intervals import Estimate, Z, wilson
from thinksteer.level_effects import Run, contrasts, difference, effects, levels_in, verdict
from thinksteer.level_tables import contrasts_table, effects_table
from thinksteer.records import InputError
from thinksteer.tables import as_json, markdown

LEVELS = ("reasoning", "memory")


def answers(level, right, n, sample=0, length=100, none=0):
    """`n` questions of a kind, the first `right` of them answered rightly, the last `none` not at all."""
    made = [record(f"{level}{i:03d}", sample, length, correct=i < right) for i in range(n)]
    return [replace(one, level=level, prediction=None if i >= n - none else "1") for i, one in enumerate(made)]


def run_of(reasoning, memory, control="c", weight=0.0, n=40, **about):
    """A setting with so many right answers of each kind, of `n` questions each."""
    records = answers("reasoning", reasoning, n, **about) + answers("memory", memory, n, **about)
    return Run(control, None, weight, records)


def effect(found, level, weight, control="c"):
    [one] = [e for e in found if (e.level, e.run.weight, e.run.control) == (level, weight, control)]
    return one


def test_each_kind_has_its_own_accuracy_change_and_p_by_hand():
    base, steered = run_of(20, 30), run_of(5, 36, weight=-1.0, length=60, none=8)
    found = effects([base, steered], LEVELS)
    lost, gained = effect(found, "reasoning", -1.0), effect(found, "memory", -1.0)
    assert lost.n_questions == 40 and lost.means["accuracy"] == Estimate(5 / 40, *wilson(5, 40), 40)
    assert lost.changes["accuracy"].value == pytest.approx(-15 / 40) and lost.mcnemar_p == pytest.approx(2 * 0.5**15)
    assert gained.changes["accuracy"].value == pytest.approx(6 / 40) and gained.mcnemar_p == pytest.approx(2 * 0.5**6)
    assert lost.means["no answer"].value == lost.changes["no answer"].value == pytest.approx(8 / 40)
    assert lost.means["tokens"].value == 70 and lost.changes["tokens"].value == pytest.approx(-40)
    none = effect(found, "reasoning", 0.0)
    assert none.means["accuracy"].value == 0.5 and none.changes == {} and none.mcnemar_p is None


def test_letters_are_read_more_strictly_too():
    said = ["The answer is (A).", "The answer is (A) or (B).", "The answer is Apples.", "The answer is (B)."]
    records = [replace(record("q"), id=text, kind="letter", level="memory", reference="A") for text in said]
    records = [replace(one, response=text, correct=text != said[3]) for one, text in zip(records, said, strict=True)]
    base = [replace(one, response=said[0], correct=True) for one in records]
    _, one = effects([Run("c", None, 0.0, base), Run("c", None, 1.0, records)], ["memory"])
    assert one.means["accuracy"].value == 0.75 and one.means["strict"].value == 0.25
    assert one.changes["strict"].value == -0.75
    assert "strict" in [column.title for column in effects_table("", "", [one]).columns]
    math = effects([run_of(20, 30)], LEVELS)
    assert math[0].means["strict"] is None
    assert "strict" not in [column.title for column in effects_table("", "", math).columns]


def test_changes_are_paired_and_samples_of_a_question_are_no_questions():
    base = Run("c", None, 0.0, [r for s in (0, 1) for r in answers("reasoning", 10, 20, s)])
    part = Run("c", None, 1.0, answers("reasoning", 16, 16, 1))  # sixteen questions, the second sample alone
    [_, one] = effects([base, part], ["reasoning"])
    assert one.n_questions == 16 and one.changes["accuracy"].n == 16
    assert one.changes["accuracy"].value == pytest.approx(6 / 16)  # the first ten were right before, too
    [of_base, _] = effects([base, part], ["reasoning"])
    assert of_base.n_questions == 20 and of_base.means["accuracy"].n == 40


def test_the_difference_of_the_changes_is_the_first_kinds_minus_the_seconds():
    [found] = contrasts([run_of(20, 30), run_of(5, 36, weight=-1.0)], LEVELS)
    assert found.minus.weight == 0 and found.difference.value == pytest.approx(-15 / 40 - 6 / 40)
    assert found.difference.high < 0 and found.difference.n == 80
    [turned] = contrasts([run_of(20, 30), run_of(5, 36, weight=-1.0)], LEVELS[::-1])
    assert (turned.difference.low, turned.difference.high) == (-found.difference.high, -found.difference.low)


def test_random_controls_are_held_against_their_own_control_at_the_same_weight():
    runs = [run_of(20, 30), run_of(5, 30, weight=-1.0), run_of(20, 30, weight=1.0), run_of(0, 0, "c.random3", 2.0)]
    runs += [run_of(18, 28, "c.random1", -1.0), run_of(20, 30, "other"), run_of(1, 1, "other.random1", -1.0)]
    found = contrasts(runs, LEVELS)
    assert [(one.run.weight, one.minus.control, one.minus.weight) for one in found] == [
        (-1.0, "c", 0.0),
        (-1.0, "c.random1", -1.0),
        (1.0, "c", 0.0),
    ]
    assert found[1].changes["reasoning"].value == pytest.approx(-13 / 40)
    assert found[1].difference.value == pytest.approx(-13 / 40 - 2 / 40)
    random = effect(effects(runs, LEVELS), "memory", -1.0, "c.random1")
    assert random.changes["accuracy"].value == pytest.approx(-2 / 40)  # from the control's own weight 0


def test_a_setting_is_apart_from_random_ones_only_if_it_is_from_all_and_on_one_side():
    base, steered = run_of(20, 30), run_of(5, 30, weight=-1.0)
    like = [run_of(20, 30, f"c.random{seed}", -1.0) for seed in (0, 1)]
    same, beyond = run_of(5, 30, "c.random2", -1.0), run_of(0, 40, "c.random3", -1.0)
    assert verdict(contrasts([base, steered], LEVELS)) is None
    assert verdict(contrasts([base, steered, *like], LEVELS)) is True
    assert verdict(contrasts([base, steered, *like, same], LEVELS)) is False
    assert verdict(contrasts([base, steered, *like, beyond], LEVELS)) is False  # reasoning fell further there


def test_the_difference_of_independent_normal_means_has_the_normal_interval():
    first, second = Estimate(3.0, 3 - 0.3 * Z, 3 + 0.3 * Z, 50), Estimate(1.0, 1 - 0.4 * Z, 1 + 0.4 * Z, 70)
    assert difference(first, second) == Estimate(2.0, pytest.approx(2 - 0.5 * Z), pytest.approx(2 + 0.5 * Z), 120)
    lopsided = difference(Estimate(0.0, -3.0, 1.0, 9), Estimate(0.0, -4.0, 2.0, 9))
    assert (lopsided.low, lopsided.high) == (-np.hypot(3, 2), np.hypot(1, 4))
    assert difference(first, None) is None and difference(None, first) is None
    assert difference(first, Estimate(1.0, None, None, 1)) == Estimate(2.0, None, None, 51)


def test_a_kind_in_which_nothing_changed_is_not_taken_for_certain():
    [found] = contrasts([run_of(20, 6, n=6), run_of(20, 6, n=6, weight=1.0)], LEVELS)
    assert found.difference.value == 0 and found.difference.high > 0.4
    half = contrasts([run_of(20, 30), run_of(5, 30, weight=1.0)], LEVELS)[0]
    assert half.difference.low < half.changes["reasoning"].low - 0.005


def worlds(seed, n, samples, chances):
    """An unsteered and a steered run of `n` questions of each kind with (before, after) chances of a right answer.

    Questions differ in ease, so the two answers to one go together.
    """
    rng, runs = np.random.default_rng(seed), ([], [])
    for level, (before, after) in zip(LEVELS, chances, strict=True):
        ease = rng.beta(4, 4, size=n)[:, None, None] - 0.5
        right = rng.random((n, samples, 2)) < np.array([before, after]) + ease
        for (question, sample, which), correct in np.ndenumerate(right):
            one = record(f"{level}{question}", sample, correct=bool(correct))
            runs[which].append(replace(one, level=level))
    return [Run("c", None, weight, records) for weight, records in zip((0.0, 1.0), runs, strict=True)]


@pytest.mark.parametrize("samples, chances", [(1, ((0.5, 0.4), (0.55, 0.5))), (2, ((0.5, 0.5), (0.5, 0.45)))])
def test_the_interval_of_the_difference_covers_the_truth_in_about_95_of_100_worlds(samples, chances):
    truth = (chances[0][1] - chances[0][0]) - (chances[1][1] - chances[1][0])
    found = [contrasts(worlds(seed, 40, samples, chances), LEVELS)[0].difference for seed in range(200)]
    covered = sum(one.low <= truth <= one.high for one in found) / 200
    assert 0.9 <= covered <= 0.99  # 0.95 +- 3 standard errors of 200 draws
    assert np.mean([one.value for one in found]) == pytest.approx(truth, abs=0.02)


def test_kinds_are_in_the_order_of_their_numbers_and_records_without_are_left_out():
    levels = ["10 days", "4 days", None, "memory", "12 days"]
    records = [replace(record(f"q{i}"), level=level) for i, level in enumerate(levels)]
    runs = [Run("c", None, 0.0, records), Run("c", None, 1.0, records)]
    assert levels_in(runs) == ["4 days", "10 days", "12 days", "memory"]
    assert [one.n_questions for one in effects(runs, levels_in(runs))] == [1] * 8
    assert contrasts(runs, levels_in(runs))[0].difference is None  # of two kinds only


def test_a_kind_that_one_setting_lacks_has_no_change_there():
    base, part = run_of(20, 30), Run("c", None, 1.0, answers("memory", 20, 40))
    assert effect(effects([base, part], LEVELS), "reasoning", 1.0).changes == {}
    [found] = contrasts([base, part], LEVELS)
    assert found.changes["reasoning"] is found.difference is None and found.changes["memory"].value == -0.25


def test_the_tables_tell_every_kind_of_every_setting_and_what_it_is_held_against():
    runs = [run_of(20, 30), run_of(5, 36, weight=-1.0), run_of(18, 28, "c.random1", -1.0)]
    table = effects_table("name", "m on d", effects(runs, LEVELS))
    assert [(row["control"], row["weight"], row["kind"]) for row in as_json(table)["rows"]] == [
        (run.control, f"{run.weight:g}", level) for run in runs for level in LEVELS
    ]
    assert as_json(table)["rows"][2]["accuracy change"]["value"] == pytest.approx(-15 / 40)
    assert "| c | all its layers | -1 | reasoning | 40 | 12.5 [5.5, 26.1] | -37.5 [" in markdown(table)
    assert "nothing is corrected" in table.note
    against = contrasts_table("name", "m on d", LEVELS, contrasts(runs, LEVELS))
    rows = as_json(against)["rows"]
    assert [row["minus"] for row in rows] == ["not steered", "c.random1"]
    assert rows[0]["reasoning minus memory"]["value"] == pytest.approx(-21 / 40)
    alone = as_json(contrasts_table("name", "m on d", LEVELS[:1], contrasts(runs, LEVELS[:1])))["rows"]
    assert list(alone[0]) == ["control", "added to", "weight", "minus", "reasoning"]


@pytest.fixture
def root(tmp_path):
    for run in (run_of(20, 30), run_of(5, 30, weight=-1.0), run_of(18, 29, "c.random0", -1.0)):
        write(tmp_path, "d", run)
    write(tmp_path, "d", run_of(0, 0, "c.random0"))  # the same as the control's own: not read
    return tmp_path


def write(root, dataset, run):
    path = store.steering_path(root, "tiny-reasoner", dataset, run.control, run.weight, run.layer)
    with store.run(path, {"max_length": 300}, [], False), store.RecordLog(path) as log:
        for one in run.records:
            log.append(one)


@pytest.fixture
def level_effects(root, monkeypatch, capsys):
    """Runs the script and hands out what it prints."""

    def call(*flags):
        given = ["level_effects", "--artifacts", root, "--dataset", "d", *flags]
        monkeypatch.setattr(sys, "argv", [str(one) for one in given])
        main()
        return capsys.readouterr().out

    return call


def test_the_script_writes_what_the_records_say(root, level_effects):
    out = level_effects("--levels", *LEVELS)
    path = store.level_effects_path(root, "tiny-reasoner", "d")
    rows = store.read_json(path)["rows"]
    changes = {(row["control"], row["weight"], row["kind"]): row["accuracy change"] for row in rows}
    assert len(rows) == 6 and changes["c", "-1", "reasoning"]["value"] == pytest.approx(-15 / 40)
    assert changes["c.random0", "-1", "memory"]["value"] == pytest.approx(-1 / 40)
    assert "c, all its layers, weight -1: reasoning -37.5 [" in out and "memory +0.0 [" in out
    assert "; difference -37.5 [" in out and "apart from the random controls': yes" in out
    beyond = store.read_json(path.with_name("d.contrasts.json"))["rows"][1]
    assert beyond["minus"] == "c.random0" and beyond["reasoning minus memory"]["value"] == pytest.approx(-14 / 40)
    assert store.figure_path(path).read_bytes().startswith(b"\x89PNG")
    assert len(store.read_json(store.manifest_path(path))["inputs"]) == 3
    before = path.stat().st_mtime_ns
    assert level_effects("--levels", *LEVELS) == out and path.stat().st_mtime_ns == before
    with pytest.raises(InputError, match="levels: "):
        level_effects("--levels", "memory")


def test_the_script_says_which_kinds_there_are_and_which_data_sets_have_any(root, level_effects):
    with pytest.raises(InputError, match="--levels hard: d has memory, reasoning"):
        level_effects("--levels", "memory", "hard")
    for weight in (0.0, 1.0):
        write(root, "plain", Run("c", None, weight, [record("q")]))
        write(root, "open", Run("c", None, weight, [replace(record("q"), level="easy", kind="open")]))
    with pytest.raises(InputError, match=r"plain tell no level: .* arithmetic_and_facts"):
        level_effects("--dataset", "plain")
    with pytest.raises(InputError, match="open are open: nothing is graded"):
        level_effects("--dataset", "open")
    assert not (root / "levels").exists()
