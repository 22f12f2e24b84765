import sys

import numpy as np
import pytest

from scripts import questions_needed as script
from tests.synthetic import evaluation
from thinksteer import intervals, store
from thinksteer.intervals import mean
from thinksteer.power import LEAST, Spread, questions_needed, spread
from thinksteer.records import InputError


def ids_of(n: int, samples: int) -> list[str]:
    return np.repeat(np.arange(n), samples).astype(str).tolist()


def changes(rng: np.random.Generator, n: int, samples: int, gained: float, lost: float) -> np.ndarray:
    """1, -1 or 0 for each sample, at rates that differ from question to question."""
    chances = rng.dirichlet([3 * gained, 3 * lost, 3 * (1 - gained - lost)], size=n)
    up, either = np.repeat(chances[:, 0], samples), np.repeat(chances[:, :2].sum(axis=1), samples)
    drawn = rng.random(n * samples)
    return (drawn < up) - 1.0 * ((drawn >= up) & (drawn < either))


def truth(gained: float, lost: float) -> Spread:
    """Of `changes`: a quarter of the variance is the questions' (Dirichlet with concentration 3)."""
    whole = gained + lost - (gained - lost) ** 2
    return Spread(whole / 4, whole * 3 / 4)


def test_the_spread_of_a_pilot_is_that_of_its_world():
    rng = np.random.default_rng(0)
    found = spread(ids_of(8000, 3), changes(rng, 8000, 3, 0.12, 0.04).tolist())
    assert found.between == pytest.approx(truth(0.12, 0.04).between, rel=0.08)
    assert found.within == pytest.approx(truth(0.12, 0.04).within, rel=0.04)


def test_the_spread_is_the_same_where_questions_have_unlike_numbers_of_samples():
    rng = np.random.default_rng(1)
    question = np.repeat(np.arange(4000), rng.integers(1, 6, size=4000))
    values = rng.normal(0, 2, size=4000)[question] + rng.normal(0, 3, size=len(question))
    found = spread(question.astype(str).tolist(), values.tolist())
    assert (found.between, found.within) == (pytest.approx(4, rel=0.08), pytest.approx(9, rel=0.05))


def test_the_variance_of_few_questions_is_shared_out_by_their_numbers_of_samples():
    found = spread(list("abbccccc"), [9.0, 1.0, 3.0, 4.0, 4.0, 4.0, 4.0, 9.0])
    within = (2 + 20) / 5  # squares around 2 and around 5, degrees of freedom
    among = ((9 - 4.75) ** 2 + 2 * (2 - 4.75) ** 2 + 5 * (5 - 4.75) ** 2) / 2
    assert found.within == pytest.approx(within)
    assert found.between == pytest.approx((among - within) / ((8 - (1 + 4 + 25) / 8) / 2))


def test_questions_without_a_share_of_the_variance_have_none_and_a_pilot_of_one_sample_is_refused():
    alternating = spread(ids_of(50, 2), [0.0, 1.0] * 50)
    assert alternating == Spread(0.0, 0.5)
    for ids in (ids_of(50, 1), ["q"] * 4):
        with pytest.raises(InputError, match="generate two of each"):
            spread(ids, [0.0] * len(ids))


@pytest.mark.parametrize("samples", [1, 3])
def test_so_many_questions_show_the_change_in_eight_of_ten_studies(samples, monkeypatch):
    monkeypatch.setattr(intervals, "RESAMPLES", 400)
    intervals.resamples.cache_clear()
    rng, n = np.random.default_rng(2), questions_needed(truth(0.10, 0.05), 0.05, samples)
    found = [mean(ids_of(n, samples), changes(rng, n, samples, 0.10, 0.05).tolist(), (-1, 1)) for _ in range(1500)]
    intervals.resamples.cache_clear()
    assert n > LEAST and 0.77 < np.mean([one.low > 0 for one in found]) < 0.83


def test_runs_on_questions_of_their_own_need_as_many_as_their_spreads_add_up_to():
    rng, each = np.random.default_rng(3), Spread(0.05, 0.1375)  # of beta questions with mean 0.75: 0.75 x 0.25 in all
    n = questions_needed(each + each, 0.08, 2)
    concentration = (0.1875 - 0.05) / 0.05
    shown = []
    for _ in range(4000):
        before, after = (
            rng.binomial(2, rng.beta(concentration * share, concentration * (1 - share), size=n)) / 2
            for share in (0.75, 0.83)
        )
        error = (before.var(ddof=1) / n + after.var(ddof=1) / n) ** 0.5
        shown.append(after.mean() - before.mean() > 1.96 * error)
    assert 0.78 < np.mean(shown) < 0.87  # a little more: there is less to vary at 83 %


def test_more_samples_help_as_far_as_samples_differ_and_never_below_the_least():
    assert questions_needed(Spread(0.0, 0.08), 0.02, 4) == pytest.approx(
        questions_needed(Spread(0.0, 0.08), 0.02, 1) / 4, abs=1
    )
    assert questions_needed(Spread(0.08, 0.0), 0.02, 4) == questions_needed(Spread(0.08, 0.0), 0.02, 1) == 1570
    assert questions_needed(Spread(0.08, 0.0), 0.02, 1, power=0.9) == 2102
    assert questions_needed(Spread(0.01, 0.0), 0.1, 1) == LEAST


def evaluated(root, model, records):
    path = store.evaluation_path(root, model, "arithmetic", "")
    path.parent.mkdir(parents=True, exist_ok=True)
    with store.run(path, {"model": model}, [], overwrite=False), store.RecordLog(path) as log:
        for one in records:
            log.append(one)


def called(monkeypatch, root):
    monkeypatch.setattr(sys, "argv", ["questions_needed.py", "--model", "m", "e", "--artifacts", str(root)])
    script.main()


def test_the_script_plans_from_a_model_and_its_edit(tmp_path, monkeypatch, capsys):
    base, edit = evaluation(0, 120, 2), evaluation(1, 120, 2, gain=0.1)
    evaluated(tmp_path, "m", base)
    evaluated(tmp_path, "e", edit)
    called(monkeypatch, tmp_path)
    assert "x samples of each" in capsys.readouterr().out
    rows = store.read_json(tmp_path / "reports/arithmetic.m.e.questions_needed.json")["rows"]
    assert [row["points"] for row in rows] == ["1", "2", "5", "10"]
    paired = spread(
        [one.id for one in base],
        [after.correct - float(before.correct) for before, after in zip(base, edit, strict=True)],
    )
    apart = script.of_accuracy(base) + script.of_accuracy(edit)
    assert rows[1]["paired x 4"] == questions_needed(paired, 0.02, 4)
    assert rows[2]["unpaired x 1"] == questions_needed(apart, 0.05, 1) > rows[2]["unpaired x 10"]


def test_the_script_names_models_without_a_common_question(tmp_path, monkeypatch):
    evaluated(tmp_path, "m", evaluation(0, 5, 2))
    evaluated(tmp_path, "e", [one for one in evaluation(0, 10, 2) if int(one.id[1:]) > 4])
    with pytest.raises(InputError, match="m and e share no"):
        called(monkeypatch, tmp_path)
