"""Open questions have no answer to compare: nothing is graded, and wherever an accuracy is shown, they do not count."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import analyze_results
import evaluate_models
import generate_responses
import steer_eval
from tests.synthetic import evaluation, record
from tests.test_figures import pixels
from thinksteer import analysis, card, store
from thinksteer.classes import Labelled, groups
from thinksteer.comparison import Family, Member, differences, summaries
from thinksteer.data import Columns, load
from thinksteer.grading import Grader, extract
from thinksteer.headlines import headlines
from thinksteer.page import examples
from thinksteer.records import Graded, InputError, Problem, Record
from thinksteer.report import tables
from thinksteer.sweep import change, curves, points_of, with_accuracy
from thinksteer.sweep_figures import layerwise_figure, steering_figure
from thinksteer.sweep_tables import sweep_tables
from thinksteer.tables import markdown

GRADED = [record(f"q{n}", length=100 + n, correct=n % 4 > 0) for n in range(8)]
LATER = [record(f"q{n}", length=150 + n, correct=True) for n in range(8)]
SEAL = {"control": "seal", "adds_to": "layers"}


def opened(records: list[Record]) -> list[Record]:
    """The same responses, had their questions been open ones."""
    return [
        replace(one, id=f"open-{one.id}", kind="open", reference="", prediction=None, correct=False) for one in records
    ]


OPEN, OPEN_LATER = opened(GRADED), opened(LATER)


def test_no_answer_is_read_and_nothing_is_right_or_wrong():
    assert extract(r"<think>5</think> \boxed{6}", "open") is None
    with Grader() as grader:
        assert grader.grade(r"<think>5</think> \boxed{6}", "", "open") == Graded(None, False)
    assert (OPEN[1].verdict, GRADED[0].verdict, GRADED[1].verdict) == (None, False, True)


def test_a_row_of_a_file_says_that_it_is_open(tmp_path: Path):
    rows = [
        {"id": "a", "question": "Why?", "level": "causes", "kind": "open"},
        {"id": "b", "question": "1 + 1?", "answer": 2},
    ]
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert load("mine", "train", data_file=file, columns=Columns(id="id")) == [
        Problem("a", "Why?", "", "open", "causes"),
        Problem("b", "1 + 1?", "2"),
    ]
    file.write_text(json.dumps({"question": "Why?", "answer": "", "kind": "math"}) + "\n")
    with pytest.raises(InputError, match="answer is empty"):
        load("mine", "train", data_file=file)


def test_tasks_of_our_own_are_a_data_set():
    first = load("reasoning_tasks", "train", 30)
    assert first == load("reasoning_tasks", "train")[:30] and {one.kind for one in first} == {"math", "open"}
    with pytest.raises(InputError, match=r"train: has 500 questions of reasoning_tasks, not 501 \(--n_questions\)"):
        load("reasoning_tasks", "train", 501)
    with pytest.raises(InputError, match="reasoning_tasks has train, test"):
        load("reasoning_tasks", "dev")
    with pytest.raises(InputError, match="name the file's with --dataset"):
        load("reasoning_tasks", "train", data_file=Path("a.jsonl"))


def test_an_accuracy_counts_graded_responses_alone():
    mixed = analysis.metrics([*OPEN, *GRADED], 500)
    alone = analysis.metrics(GRADED, 500)
    for key in ("accuracy", "accuracy_interval", "no_answer_rate", "n_graded"):
        assert mixed[key] == alone[key], key
    assert (mixed["n_responses"], mixed["n_graded"], mixed["accuracy"]) == (16, 8, 0.75)
    nothing = analysis.metrics(OPEN, 500)
    assert [nothing[key] for key in ("accuracy", "accuracy_interval", "no_answer_rate", "n_graded")] == [None] * 3 + [0]
    assert nothing["mean_length"] == alone["mean_length"]
    assert analysis.describe(OPEN).startswith(
        "8 responses, accuracy –, 103.5 thinking tokens"
    ) and "open" in analysis.describe(OPEN)
    assert "accuracy 75.0% [" in analysis.describe([*OPEN, *GRADED])


def test_a_change_counts_graded_pairs_alone():
    both, later = [*GRADED, *OPEN], [*LATER, *OPEN_LATER]
    assert analysis.paired_difference(both, later) == analysis.paired_difference(GRADED, LATER)
    assert analysis.mcnemar_p(both, later) == analysis.mcnemar_p(GRADED, LATER)
    assert analysis.paired_difference(OPEN, OPEN_LATER) is None and analysis.mcnemar_p(OPEN, OPEN_LATER) is None
    assert analysis.accuracy_below(both, [104, 999]) == analysis.accuracy_below(GRADED, [104, 999])
    assert analysis.accuracy_by_length(both, 2) == analysis.accuracy_by_length(GRADED, 2)
    assert analysis.accuracy_below(OPEN, [999]) == [None] and analysis.accuracy_by_length(OPEN) == []


def test_neither_the_correct_nor_the_incorrect_are_open():
    found = groups([Labelled(one, (), ()) for one in [*GRADED, *OPEN]])
    assert [(name, len(members)) for _, name, members in found] == [("all", 16), ("correct", 6), ("incorrect", 2)]


def sweep(base: list[Record], steered: list[Record]) -> list[dict]:
    runs = {(None, 0.0): (base, 500), (None, 1.0): (steered, 500), (1, 2.0): (steered, 500), (2, 2.0): (base, 500)}
    return [SEAL | point for point in points_of(runs)]


def test_a_sweep_over_open_questions_has_lengths_and_no_accuracies(tmp_path: Path):
    points = sweep(OPEN, OPEN_LATER)
    assert [(one["accuracy"], one["accuracy_change"]) for one in points] == [(None, None)] * 4
    found = change(OPEN, OPEN_LATER)
    assert (found.accuracy, found.mcnemar_p, found.accuracy_if_capped, found.accuracy_if_finished) == (None,) * 4
    assert found.length is not None and found.length.value == 50
    levels, ends = sweep_tables("m on d", "m.d", json.loads(json.dumps(points)), [])
    assert not [one.title for one in (*levels.columns, *ends.columns) if "accuracy" in one.title or "twin" in one.title]
    assert "+50.0" in markdown(levels)
    assert with_accuracy(curves(points)) == []
    for draw, what in ((steering_figure, curves(points)), (layerwise_figure, points)):
        draw(what, tmp_path / "open.png")
        draw(curves(sweep(GRADED, LATER)) if draw is steering_figure else sweep(GRADED, LATER), tmp_path / "graded.png")
        assert pixels(tmp_path / "open.png").shape[0] < pixels(tmp_path / "graded.png").shape[0]


def test_a_sweep_over_both_kinds_counts_the_graded_ones_and_says_how_many():
    points = sweep([*OPEN, *GRADED], [*OPEN_LATER, *LATER])
    levels, ends = sweep_tables("m on d", "m.d", points, [])
    row = dict(zip([one.title for one in levels.columns], levels.rows[1], strict=True))
    assert (row["n"], row["accuracy"].n, row["accuracy"].value, row["tokens"].n) == (16, 8, 1.0, 16)
    assert row["accuracy change"].value == 0.25 and row["accuracy change"].n == 8
    endings = dict(zip([one.title for one in ends.columns], ends.rows[1], strict=True))
    assert (endings["twin capped: n"], endings["twin finished: n"]) == (0, 8)
    half = [{**one, "accuracy": None if one["weight"] else one["accuracy"]} for one in points]
    assert [[one["weight"] for one in curve.points] for curve in with_accuracy(curves(half))] == [[0.0]]


def test_models_are_compared_without_a_word_on_what_was_not_graded():
    members = [
        Member(name, role, opened(evaluation(seed, 40, 1, longer=50 * seed)), 500)
        for seed, (name, role) in enumerate((("base", "base"), ("edit", "edited"), ("random", "control")))
    ]
    family = Family("tasks", tuple(members))
    found, changes = summaries(family), differences(family)
    (said,) = headlines(found, changes)
    assert said.startswith(
        "tasks: edit beside base; the questions are open, answers are not graded. Its thinking is longer"
    )
    assert "%" not in said and "random control" not in said
    (alone,) = headlines(found[:1], [])
    assert alone.startswith("tasks: base is not graded, the questions are open. Nothing is compared")
    made = {table.name: table for table in tables(found, changes)}
    assert "| base | base | – |" in markdown(made["accuracy_overall"]) and "length_matched" in made
    health = made["responses"]
    unanswered = [column.title for column in health.columns].index("no answer")
    change = [column.title for column in made["difference_overall"].columns].index("accuracy, points")
    assert made["difference_overall"].rows[0][change] is None and health.rows[0][unanswered] is None
    assert "not graded" in examples(family) and "wrong" not in examples(family)


def run(monkeypatch: pytest.MonkeyPatch, stage, *flags: object) -> None:
    monkeypatch.setattr(sys, "argv", [f"{stage.__name__}.py", *map(str, flags)])
    stage.main()


@pytest.mark.parametrize("n_graded", [0, 2])
def test_the_stages_run_from_open_questions_to_the_report(n_graded: int, tmp_path: Path, monkeypatch, capsys):
    here = ("--artifacts", tmp_path, "--max_length", 40)
    run(monkeypatch, generate_responses, *here, "--dataset", "reasoning_tasks", "--n_questions", 4)
    rows = [{"question": f"1 + {n}?", "answer": n + 1} for n in range(n_graded)]
    rows += [{"question": f"Why {n}?", "kind": "open"} for n in range(4 - n_graded)]
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = (*here, "--dataset", "mine", "--data_file", file, "--n_questions", 4)
    direction = store.direction_path(tmp_path, "tiny-reasoner", "thinking_length_attn")
    store.write_safetensors(direction, {"direction": torch.randn(6, 128)}, {"method": "thinking_length_attn"})
    run(monkeypatch, steer_eval, *asked, "--direction_weight", 0, 0.1)
    run(monkeypatch, evaluate_models, *asked, "--model", "tiny-reasoner", "--n_samples", 2)
    run(monkeypatch, analyze_results, "--artifacts", tmp_path)

    out = capsys.readouterr().out
    metrics = store.read_json(store.metrics_path(tmp_path, "tiny-reasoner", "mine", ""))
    assert (metrics["n_graded"], metrics["n_responses"]) == (2 * n_graded, 8)
    summary = store.steering_summary_path(tmp_path, "tiny-reasoner", "mine", "thinking_length_attn")
    points = store.read_json(summary)["points"]
    assert [point["n_graded"] for point in points] == [n_graded] * 2
    nowhere = [metrics["accuracy"] is None, *(point["accuracy"] is None for point in points)]
    drawn = {path.name.rsplit(".", 2)[-2] for path in (tmp_path / "reports").glob("*.png")}
    if n_graded:
        assert not any(nowhere) and drawn == {"lengths", "steering", "tokens", "deciles", "accuracy_below"}
    else:
        assert all(nowhere) and drawn == {"lengths", "steering"} and not (summary.parent / "tokens.png").exists()
        assert "accuracy –" in out and "is not graded, the questions are open" in out


def test_a_card_shows_a_dash_for_what_was_not_graded():
    about = {"dataset": "tasks"} | analysis.metrics(OPEN, 500)
    assert [result.metric_type for result in card._results("tasks", "test", about)] == ["mean_length"]
    assert "| tasks | test | 8 | 1 | – | 10" in markdown(card._table([("tasks", "test", about)]))
