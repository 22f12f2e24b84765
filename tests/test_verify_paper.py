"""Synthetic results in upstream's layout, imported as its own are, against the published numbers."""

import json
import sys
from itertools import pairwise

import pytest

from scripts import verify_paper
from tests.synthetic import evaluation
from thinksteer import store, verification_figures
from thinksteer.intervals import Estimate
from thinksteer.published import published
from thinksteer.records import InputError
from thinksteer.upstream import import_upstream
from thinksteer.verification import Check

MODEL, DATASET, QUESTIONS, RUNS = "deepseek-qwen-1.5b", "MATH-500", 500, 10
RIGHT = (
    206,
    449,
    934,
    4111,
)  # of the shortest 5, 10, 20 % and of all: what README prints as 82.40, 89.80, 93.40, 82.22


def results(right=RIGHT, predicted="4"):
    """Ten runs of 500 answers, of which so many are right, all lengths different, in an order of its own."""
    firsts = [0, 25, 50, 100, QUESTIONS]
    left = [now - before for before, now in zip((0, *right), right, strict=False)]
    sizes = [now - before for before, now in pairwise(firsts)]
    samples = []
    for run in range(RUNS):
        verdicts = []
        for total, size in zip(left, sizes, strict=True):
            own = total // RUNS + (run < total % RUNS)
            verdicts += [place < own for place in range(size)]
        order = [(place * 7 + run) % QUESTIONS for place in range(QUESTIONS)]
        samples.append(
            {
                "think_lengths": [100 + place for place in order],
                "response_texts": [f"\\boxed{{{predicted if verdicts[place] else 5}}}" for place in order],
                "correctness": [verdicts[place] for place in order],
                "predicted": [predicted if verdicts[place] else "5" for place in order],
            }
        )
    return {"sample_results": samples, "answers": ["4"] * QUESTIONS, "aggregate_stats": {}, "instruction": ""}


def upstream(folder, **files):
    for model, value in files.items():
        path = folder / f"ThinkEdit_model_evaluation_results/{DATASET}/{model}/instruction_/results_samples10.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(value))
    import_upstream(folder, folder / "art")
    return folder / "art"


def verify(monkeypatch, root, *flags):
    monkeypatch.setattr(sys, "argv", ["verify_paper.py", "--artifacts", str(root), *flags])
    verify_paper.main()
    rows = store.read_json(root / "reports/published.json")["rows"]
    return {
        (row["model"], row["data set"], row["measure"]): row for row in rows if row["table"].startswith("thinkedit")
    }


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """One model as published, and its edit, of which the shortest twentieth is not."""
    edit = results((215, 460, 942, 4112))
    return upstream(tmp_path_factory.mktemp("up"), **{MODEL: results(), f"ThinkEdit-{MODEL}": edit})


def test_numbers_agree_differ_or_have_no_records(root, monkeypatch, capsys):
    rows = verify(monkeypatch, root)
    found = {
        measure: rows[MODEL, DATASET, measure]
        for measure in ("accuracy", "shortest 5 %", "shortest 10 %", "shortest 20 %")
    }
    assert {row["verdict"] for row in found.values()} == {"agree"} and {row["records"] for row in found.values()} == {
        "upstream"
    }
    assert [round(row["upstream's definition"]["value"], 2) for row in found.values()] == [82.22, 82.4, 89.8, 93.4]
    assert found["accuracy"]["ours"]["low"] < 82.22 < found["accuracy"]["ours"]["high"]
    spread = rows[MODEL, DATASET, "spread of runs"]  # runs here are all alike
    assert spread["verdict"] == "differ" and spread["upstream's definition"]["value"] < 0.4 and spread["ours"] is None
    edited = {measure: rows[f"ThinkEdit-{MODEL}", DATASET, measure]["verdict"] for measure in found}
    assert edited == {"accuracy": "agree", "shortest 5 %": "differ", "shortest 10 %": "agree", "shortest 20 %": "agree"}
    assert {row["verdict"] for key, row in rows.items() if key[1] != DATASET} == {"no records"}
    out = capsys.readouterr().out
    assert "thinkedit.shortest: 5 agree, 1 differ, 114 no records" in out
    assert f"ThinkEdit-{MODEL} on {DATASET}, shortest 5 %: published 90.8, by its definition 86.00" in out
    assert (root / "reports/published.thinkedit.shortest.png").stat().st_size > 10_000
    assert "differ" in (root / "reports/published_stated.md").read_text()
    assert "| 82.22 | 82.22 |" in (root / "reports/published.md").read_text()


def test_a_second_call_computes_nothing_and_regrading_is_another_run(root, monkeypatch):
    verify(monkeypatch, root, "--overwrite")
    monkeypatch.setattr(verify_paper, "check", None)
    verify(monkeypatch, root)
    with pytest.raises(InputError, match="regrade: false -> true"):
        verify(monkeypatch, root, "--regrade")


def test_with_our_grader_ours_is_of_what_the_texts_say(tmp_path, monkeypatch):
    wrong = results(predicted="5")  # upstream's verdicts, of texts that are all wrong
    row = verify(monkeypatch, upstream(tmp_path, **{MODEL: wrong}), "--regrade")[MODEL, DATASET, "accuracy"]
    assert row["verdict"] == "agree" and row["ours"]["value"] == 0 and row["upstream's definition"]["value"] > 80


def test_ones_own_records_are_judged_by_our_interval(tmp_path, monkeypatch):
    path = store.evaluation_path(tmp_path, MODEL, DATASET, "")
    path.parent.mkdir(parents=True)
    with store.run(path, {"model": MODEL}, [], overwrite=False), store.RecordLog(path) as log:
        for one in evaluation(0, 100, 1, gain=0.3):
            log.append(one)
    row = verify(monkeypatch, tmp_path)[MODEL, DATASET, "accuracy"]
    inside = row["ours"]["low"] <= 82.22 <= row["ours"]["high"]
    assert row["records"] == "own" and row["verdict"] == ("agree" if inside else "differ") and row["questions"] == 100


def test_without_records_the_commands_that_get_them_are_named(tmp_path, monkeypatch):
    with pytest.raises(
        InputError, match=r"import_upstream --url v2\n.*\n.*evaluate_models.py --model deepseek-qwen-1.5b"
    ):
        verify(monkeypatch, tmp_path)
    path = store.evaluation_path(tmp_path, MODEL, DATASET, "")
    path.parent.mkdir(parents=True)
    path.write_text("")  # begun, without a manifest
    with pytest.raises(InputError, match="no finished records"):
        verify(monkeypatch, tmp_path)


def test_the_figure_sets_rings_beside_dots(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(verification_figures, "save", lambda figure, path: drawn.append(figure))
    numbers = [one for one in published() if one.model == MODEL and one.dataset in ("gsm8k", DATASET) and one.percent]
    ours = Estimate(89.0, 85.0, 92.0, 100)
    checks = [Check(one, "own", (89.0, 89.0), ours, 100) for one in numbers]
    verification_figures.published_figure(checks, tmp_path / "f.png")
    (figure,) = drawn
    assert [panel.get_title() for panel in figure.axes] == ["gsm8k", DATASET]
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == [f"qwen-1.5b, {p} %" for p in (5, 10, 20)]
    bar, dot, ring = figure.axes[1].lines[:3]
    assert (list(bar.get_xdata()), dot.get_xdata()[0], ring.get_xdata()[0]) == ([85, 92], 89, 82.4)
    assert bar.get_color() == dot.get_color() == verification_figures.SHADES["differ"]
    assert figure.axes[1].lines[4].get_color() == verification_figures.SHADES["agree"]  # 89.80
    named = {text.get_text() for text in figure.legends[0].get_texts()}
    assert named == {"published", "recomputed, 95 % interval", "recomputed, differs"}
