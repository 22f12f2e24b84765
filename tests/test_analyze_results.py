"""The stage as a user runs it, on planted evaluations."""

import json
import sys
from pathlib import Path

import pytest

import analyze_results
from tests.synthetic import evaluation
from thinksteer import store
from thinksteer.records import InputError, Record

NAMES = ("tiny-reasoner", "ThinkEdit-tiny-reasoner", "ThinkEdit-tiny-reasoner-random")


def analyze(monkeypatch: pytest.MonkeyPatch, root: Path, *flags: str) -> None:
    monkeypatch.setattr(sys, "argv", ["analyze_results.py", "--artifacts", str(root), *flags])
    analyze_results.main()


def save(root: Path, model: str, records: list[Record]) -> None:
    path = store.evaluation_path(root, model, "arithmetic", "")
    path.parent.mkdir(parents=True)
    with store.run(path, {"max_length": 500, "seed": 3}, [], overwrite=False), store.RecordLog(path) as log:
        for one in records:
            log.append(one)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A base, an edit that gains 20 points, a random control without effect, and a steering summary."""
    for seed, (model, gain) in enumerate(zip(NAMES, (0.0, 0.2, 0.0), strict=True)):
        save(tmp_path, model, evaluation(seed, 100, 2, gain=gain))
    for model, control in zip(NAMES[1:], (None, "random"), strict=True):
        folder = store.model_path(tmp_path, model)
        folder.mkdir(parents=True)
        edit = {"base_model": NAMES[0], "control_heads": control, "control_direction": None}
        store.write_json(folder / "edit.json", edit)
    path = store.steering_summary_path(tmp_path, NAMES[0], "arithmetic", "thinking_length_attn")
    path.parent.mkdir(parents=True)
    interval = {"accuracy_interval": [0.6, 0.8], "mean_length_interval": [90, 110]}
    points = [
        {"weight": weight, "layer": layer, "accuracy": 0.7, "mean_length": 100, **interval}
        for weight in (-0.1, 0.0, 0.1)
        for layer in (None, 0, 1)
    ]
    summary = {"model": NAMES[0], "dataset": "arithmetic", "control": "thinking_length_attn", "points": points}
    store.write_json(path, summary)
    return tmp_path


def test_one_command_makes_tables_figures_and_the_page(root: Path, monkeypatch, capsys):
    analyze(monkeypatch, root)
    assert "ThinkEdit-tiny-reasoner answers more correctly than tiny-reasoner" in capsys.readouterr().out
    reports = store.reports_path(root)
    rows = json.loads((reports / "difference_overall.json").read_text())["rows"]
    assert [row["group"] for row in rows] == ["edit", "control", "edit minus control"]
    assert rows[0]["accuracy, points"]["low"] > 0.05 > rows[1]["accuracy, points"]["low"]
    figures = {path.name for path in reports.glob("*.png")}
    assert {"tiny-reasoner.arithmetic.deciles.png", "tiny-reasoner.arithmetic.steering.png"} <= figures
    assert "tiny-reasoner.arithmetic.thinking_length_attn.layers.png" in figures
    text = (reports / "report.html").read_text(encoding="utf-8")
    assert text.count("data:image/png;base64,") == 5 and "max_length 500, seed 3" in text


def test_a_finished_report_is_left_until_its_inputs_change(root: Path, monkeypatch, capsys):
    analyze(monkeypatch, root)
    analyze(monkeypatch, root)
    assert "up to date" in capsys.readouterr().out
    save(root, "other", evaluation(9, 100, 2))
    with pytest.raises(InputError, match="--overwrite"):
        analyze(monkeypatch, root)
    analyze(monkeypatch, root, "--models", "other", "--base", "tiny-reasoner", "--overwrite")
    assert "other does not clearly differ from tiny-reasoner" in capsys.readouterr().out


@pytest.mark.parametrize(("flag", "value"), [("--models", "nobody"), ("--instruction", "Be brief.")])
def test_what_was_not_evaluated_is_named(flag: str, value: str, root: Path, monkeypatch):
    with pytest.raises(InputError, match="nobody" if flag == "--models" else flag):
        analyze(monkeypatch, root, flag, value)
