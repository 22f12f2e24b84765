"""Measures at the places of one chain against their definitions, and the file of them."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic import record

from thinksteer.records import InputError
from thinksteer.trajectories import TrajectoryLog, degenerate, read_trajectories, trajectory

NAMES = ("10", "11", "12")
PROBABILITIES = np.array([[0.2, 0.3, 0.1], [0.05, 0.8, 0.1], [0.9, 0.05, 0.01]])


def made(probabilities=PROBABILITIES, names=NAMES, reference=0, id="q", at=None, **changes):
    at = range(0, 8 * len(probabilities), 8) if at is None else at
    return trajectory(replace(record(id), **changes), at, np.log(probabilities), names, reference, 16)


def test_several_choices_follow_the_reference_against_the_rest():
    one = made()
    assert (one.choice, one.graded, one.thinking_end, one.at) == ("10", True, 16, (0, 8, 16))
    assert one.log_odds == pytest.approx([math.log(0.2 / 0.4), math.log(0.05 / 0.9), math.log(0.9 / 0.06)], abs=1e-6)
    assert one.mass == pytest.approx([0.6, 0.95, 0.96])
    assert one.probability == pytest.approx([0.2 / 0.6, 0.05 / 0.95, 0.9 / 0.96], abs=1e-6)
    assert one.likeliest == ("11", "11", "10") and one.right == (False, False, True)
    assert one.confidence == pytest.approx([0.3 / 0.6, 0.8 / 0.95, 0.9 / 0.96], abs=1e-6)


def test_without_a_reference_the_answer_in_the_end_is_followed():
    one = made(reference=None)
    assert (one.choice, one.graded) == ("10", False) and one.log_odds == made().log_odds
    assert made(PROBABILITIES[:2], reference=None).choice == "11"


def test_of_two_choices_the_odds_are_of_the_first_whichever_is_right():
    for reference in (0, 1, None):
        one = made(PROBABILITIES[:, :2], ("Yes", "No"), reference)
        odds = [math.log(0.2 / 0.3), math.log(0.05 / 0.8), math.log(0.9 / 0.05)]
        assert one.log_odds == pytest.approx(odds, abs=1e-6)
    assert made(PROBABILITIES[:, :2], ("Yes", "No"), 1).probability[0] == pytest.approx(0.6)


def test_the_score_is_the_weighted_mean_of_pandas():
    rng = np.random.default_rng(0)
    for n in (3, 40):
        one = made(rng.dirichlet(np.ones(4), size=n)[:, :3])
        values = pd.Series(one.log_odds) * pd.Series(one.mass)
        assert one.score == pytest.approx(values.ewm(span=25, min_periods=3).mean().iloc[-1])
    assert made(PROBABILITIES[:2]).score is None


def test_chains_to_which_the_choices_are_no_answer_are_flagged():
    assert not made().low_mass and not made().flagged  # 0.837 on average
    low = made(PROBABILITIES * 0.85)
    assert low.low_mass and low.flagged and not low.degenerate


def test_loops_are_flagged_however_short_and_ordinary_text_is_not():
    loop = "Wait, let me check. " * 12
    assert degenerate(loop) and made(response=loop).flagged
    prose = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    for length in (80, 200, 1000, 20000):
        assert not any(
            degenerate(prose[at : at + length]) for at in range(0, min(len(prose), 20000) - length + 1, length)
        )
    assert not degenerate("") and not degenerate("\\boxed{47}")


def test_lines_come_back_as_they_were_and_a_log_goes_on(tmp_path):
    path = tmp_path / "confidence.jsonl"
    with TrajectoryLog(path) as log:
        log.append(made(id="b"))
        log.append(made(reference=None, id="a"))
    with open(path, "a") as file:
        file.write('{"id": "torn')
    with TrajectoryLog(path) as log:
        assert log.done == {("a", 0), ("b", 0)}
        log.append(made(id="c"))
        with pytest.raises(InputError, match="'a' sample 0 occurs twice"):
            log.append(made(id="a"))
    assert read_trajectories(path) == [made(reference=None, id="a"), made(id="b"), made(id="c")]


@pytest.mark.parametrize(
    "change",
    [
        lambda line: "[1]\n",
        lambda line: line.replace('"mass"', '"Mass"'),
        lambda line: line.replace('"at": [0, ', '"at": ['),
        lambda line: json.dumps({key: [] if type(v) is list else v for key, v in json.loads(line).items()}) + "\n",
        lambda line: line * 2,
    ],
)
def test_a_broken_line_is_named(tmp_path, change):
    path = tmp_path / "confidence.jsonl"
    with TrajectoryLog(path) as log:
        log.append(made())
    path.write_text(change(path.read_text()))
    with pytest.raises(InputError, match=r"confidence\.jsonl:[12]: "):
        read_trajectories(path)
