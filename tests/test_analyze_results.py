"""The stage as a user runs it, on planted evaluations."""

import json
import sys
from pathlib import Path

import pytest

import analyze_results
from tests.synthetic import evaluation
from thinksteer import store
from thinksteer.records import InputError, Record
from thinksteer.sweep import points_of

NAMES = ("tiny-reasoner", "ThinkEdit-tiny-reasoner", "ThinkEdit-tiny-reasoner-random")


def analyze(monkeypatch: pytest.MonkeyPatch, root: Path, *flags: str) -> None:
    monkeypatch.setattr(sys, "argv", ["analyze_results.py", "--artifacts", str(root), *flags])
    analyze_results.main()


def save(root: Path, model: str, records: list[Record]) -> None:
    write(store.evaluation_path(root, model, "arithmetic", ""), records)


def write(path: Path, records: list[Record]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with store.run(path, {"max_length": 500, "seed": 3}, [], overwrite=False), store.RecordLog(path) as log:
        for one in records:
            log.append(one)


def steer(root: Path, model: str, control: str = "thinking_length_attn") -> None:
    """The records and the summary of a direction in all layers and in two single ones."""
    runs = {
        (layer, weight): (evaluation(seed, 60, 1), 500)
        for seed, (weight, layer) in enumerate([(0.0, None), (-0.1, None), (0.1, None), (0.1, 0), (0.1, 1)])
    }
    for (layer, weight), (records, _) in runs.items():
        write(store.steering_path(root, model, "arithmetic", control, weight, layer), records)
    summary = {"model": model, "dataset": "arithmetic", "control": control, "adds_to": "layers"}
    path = store.steering_summary_path(root, model, "arithmetic", control)
    store.write_json(path, summary | {"points": points_of(runs)})


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
    steer(tmp_path, NAMES[0])
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
    assert "tiny-reasoner.arithmetic.tokens.png" in figures
    text = (reports / "report.html").read_text(encoding="utf-8")
    assert text.count("data:image/png;base64,") == 6 and "max_length 500, seed 3" in text


def test_a_finished_report_is_left_until_its_inputs_change(root: Path, monkeypatch, capsys):
    analyze(monkeypatch, root)
    analyze(monkeypatch, root)
    assert "up to date" in capsys.readouterr().out
    save(root, "other", evaluation(9, 100, 2))
    with pytest.raises(InputError, match="--overwrite"):
        analyze(monkeypatch, root)
    analyze(monkeypatch, root, "--models", "other", "--base", "tiny-reasoner", "--overwrite")
    assert "other does not clearly differ from tiny-reasoner" in capsys.readouterr().out


def test_an_evaluation_that_was_stopped_is_not_averaged(root: Path, monkeypatch):
    """Its responses are those that ended first, the short ones."""
    path = store.evaluation_path(root, "half", "arithmetic", "")
    path.parent.mkdir(parents=True)
    with (
        pytest.raises(KeyboardInterrupt),
        store.run(path, {"max_length": 500}, [], False),
        store.RecordLog(path) as log,
    ):
        for one in evaluation(5, 20, 2):
            log.append(one)
        raise KeyboardInterrupt
    with pytest.raises(InputError, match=r"half/arithmetic/default\.jsonl"):
        analyze(monkeypatch, root)
    analyze(monkeypatch, root, "--models", *NAMES)


def test_other_numbers_of_samples_are_told_of_on_the_page_and_at_the_terminal(root: Path, monkeypatch, capsys):
    save(root, "fewer", evaluation(9, 100, 1))
    analyze(monkeypatch, root, "--models", "fewer", "--base", NAMES[0])
    told = "not all models have the same responses (tiny-reasoner 200, fewer 100; 100 in all of them)"
    assert told in capsys.readouterr().out
    assert told in (store.reports_path(root) / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(("flag", "value"), [("--models", "nobody"), ("--instruction", "Be brief.")])
def test_what_was_not_evaluated_is_named(flag: str, value: str, root: Path, monkeypatch):
    with pytest.raises(InputError, match="nobody" if flag == "--models" else flag):
        analyze(monkeypatch, root, flag, value)


def test_steering_alone_makes_a_report_of_its_own(tmp_path: Path, monkeypatch, capsys):
    steer(tmp_path, "steered-only")
    analyze(monkeypatch, tmp_path)
    assert "report.html" in capsys.readouterr().out
    reports = store.reports_path(tmp_path)
    names = {f"steered-only.arithmetic.{table}.md" for table in ("steering", "steering_ends")}
    assert {path.name for path in reports.glob("*.md")} == names
    text = (reports / "report.html").read_text(encoding="utf-8")
    assert "<h1>What steering did</h1>" in text and "H. Steering steered-only on arithmetic" in text
    with pytest.raises(InputError, match=r"not evaluated under .*: nobody .there is steered-only"):
        analyze(monkeypatch, tmp_path, "--models", "nobody")


def test_without_evaluations_and_steering_there_is_nothing_to_report(tmp_path: Path, monkeypatch):
    with pytest.raises(InputError, match=r"not evaluated under .*: any model"):
        analyze(monkeypatch, tmp_path)


def test_a_steered_model_that_was_not_evaluated_is_shown_beside_those_that_were(root: Path, monkeypatch):
    steer(root, "steered-only")
    analyze(monkeypatch, root)
    text = (store.reports_path(root) / "report.html").read_text(encoding="utf-8")
    assert "What the edits did" in text and "H. Steering steered-only on arithmetic" in text
    analyze(monkeypatch, root, "--models", *NAMES, "--overwrite")
    assert "steered-only" not in (store.reports_path(root) / "report.html").read_text(encoding="utf-8")


def test_a_report_is_made_again_when_steered_records_that_are_compared_change(tmp_path: Path, monkeypatch, capsys):
    steer(tmp_path, "m")
    steer(tmp_path, "m", "thinking_length_attn.random0")
    analyze(monkeypatch, tmp_path)
    rows = json.loads((store.reports_path(tmp_path) / "m.arithmetic.steering_beyond.json").read_text())["rows"]
    assert {(row["weight"], row["accuracy change"]["value"]) for row in rows} == {("-0.1", 0.0), ("0.1", 0.0)}
    path = store.steering_path(tmp_path, "m", "arithmetic", "thinking_length_attn", 0.1, None)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(InputError, match="--overwrite"):
        analyze(monkeypatch, tmp_path)


def test_figures_of_the_stages_before_are_shown_in_their_order(root: Path, monkeypatch):
    order = ("responses", "directions", "heads", "layers", "levels")
    for stage in reversed(order):
        (root / stage / NAMES[0]).mkdir(parents=True)
        (root / stage / NAMES[0] / "one.png").write_bytes(b"png")
    analyze(monkeypatch, root)
    text = (store.reports_path(root) / "report.html").read_text(encoding="utf-8")
    places = [text.index(f"<figcaption>{stage}/tiny-reasoner/one") for stage in order]
    assert places == sorted(places)


def test_the_figures_of_a_steered_model_of_the_hub_are_found(tmp_path: Path, monkeypatch):
    steer(tmp_path, "Qwen/Qwen3-8B")
    folder = tmp_path / "directions" / "Qwen--Qwen3-8B"
    folder.mkdir(parents=True)
    (folder / "one.png").write_bytes(b"png")
    analyze(monkeypatch, tmp_path, "--models", "Qwen/Qwen3-8B")
    text = (store.reports_path(tmp_path) / "report.html").read_text(encoding="utf-8")
    assert "H. Steering Qwen/Qwen3-8B on arithmetic" in text and "<figcaption>directions/Qwen--Qwen3-8B/one" in text
