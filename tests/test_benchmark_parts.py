"""The parts of the benchmark that take no engine: what they measure is there, and that both ways do the same work.
Never how long it took."""

import json
import random
import sys
from importlib import import_module
from itertools import count

import pytest
import torch
from safetensors.torch import load_file

from scripts import benchmark
from scripts.benchmarks import edit, evaluations, extraction, grading, heads, passes, report
from scripts.benchmarks.measuring import Cost, Panel, child, growth
from thinksteer import store
from thinksteer.activations import class_means
from thinksteer.analysis import accuracy, degenerate, mean_length
from thinksteer.grading import decide, extract
from thinksteer.intervals import mean
from thinksteer.localize import head_scores
from thinksteer.records import InputError

SMALL = passes.Shape(layers=2, heads=4, hidden=32, length=24)


@pytest.fixture
def within(monkeypatch):
    """What `child` runs, in this process."""

    def work(name: str, *flags: object) -> Cost:
        module, _, function = name.partition(":")
        with monkeypatch.context() as patched:
            patched.setattr(sys, "argv", ["child", *map(str, flags)])
            getattr(import_module(module), function)()
        return Cost(1.0, 2.0, 3.0)

    for part in (edit, report):
        monkeypatch.setattr(part, "child", work)
    return work


@pytest.fixture
def run(within, tmp_path, monkeypatch):
    """Measures parts, as the script does."""

    def measure(*flags: object) -> dict:
        given = ["--repeats", 2, *flags, "--output", tmp_path]
        monkeypatch.setattr(sys, "argv", ["benchmark", *map(str, given)])
        benchmark.main()
        return json.loads((tmp_path / "benchmark.json").read_text())

    return measure


@pytest.fixture
def tiny_checkpoint(monkeypatch):
    monkeypatch.setattr(edit, "HIDDEN", 64)
    monkeypatch.setattr(edit, "SHAPES", {"self_attn.o_proj": (64, 64), "mlp.up_proj": (96, 64)})
    monkeypatch.setattr(edit, "SHARD_BYTES", 50_000)  # two layers


@pytest.mark.parametrize("part, name", [("extraction", "class_means"), ("heads", "head_scores")])
def test_reading_is_measured_in_models_of_all_shapes(part, name, run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(passes, "BASE", SMALL)
    monkeypatch.setattr(passes, "GROWN", {"length": (48,), "layers": (3, 4)})
    found = run("--parts", part, "--pass_tokens", 96)
    (table,) = found["tables"]
    assert table["name"] == name and "length" in table["rows"][0]
    shapes = [(row["layers"], row["heads"], row["hidden size"], row["length"]) for row in table["rows"]]
    assert shapes == [(2, 4, 32, 24), (2, 4, 32, 48), (3, 4, 32, 24), (4, 4, 32, 24)]
    assert all(row["as against bare, %"] > 0 and row["goal, %"] == 1.15 for row in table["rows"])
    assert len(found["repeats"][part]) == 4 * 3 and all(len(one) == 2 for one in found["repeats"][part].values())
    assert (tmp_path / f"benchmark.{part}.png").read_bytes().startswith(b"\x89PNG")
    assert "as against bare, %" in capsys.readouterr().out


def test_the_plain_ways_of_reading_find_the_same():
    model, direction = passes.build(SMALL, "cpu"), torch.randn(2, 32)
    passages = passes.made(SMALL, 200, ("long", "short"))
    assert len(passages) == 8 and [one.spans[0].label for one in passages] == ["long", "short"] * 4
    ours, plain = class_means(model, passages, extraction.SITES, 64), extraction.plain(model, passages)
    for (site, label), means in plain.items():
        torch.testing.assert_close(ours.means[site][label].float(), means, atol=1e-5, rtol=1e-4)
    short = passes.made(SMALL, 200, ("short",))
    scores = head_scores(model, short, direction, 64).float()
    torch.testing.assert_close(scores, heads.plain(model, short, direction), atol=1e-5, rtol=1e-4)


def test_memory_is_what_the_work_holds_beyond_what_was_held():
    assert 190 < passes.most_memory(lambda: torch.ones(50_000_000), "cpu") < 230
    assert passes.most_memory(lambda: None, "cpu") < 20


def test_editing_is_measured_at_every_size(run, tiny_checkpoint, monkeypatch):
    monkeypatch.setattr(edit, "SHARES", (0.5, 1))
    found = run("--parts", "edit", "--edit_gb", 12e-5)
    (table,) = found["tables"]
    assert [row["MB"] for row in table["rows"]] == pytest.approx([0.063, 0.125], abs=0.003)
    assert [(row["edit, s"], row["peak MB of edit"], row["of plain"]) for row in table["rows"]] == [(1, 3, 3)] * 2
    assert [len(one) for one in found["repeats"]["edit"].values()] == [2] * 6


def test_the_plain_way_of_editing_makes_the_same_checkpoint(within, tiny_checkpoint, tmp_path):
    source = edit.write(tmp_path, 1e5)
    assert len(list(source.glob("*.safetensors"))) == 3
    within("edit_weights:main", "--artifacts", tmp_path, "--model", source, "--template", "plain")
    within("scripts.benchmarks.edit:plain", source, tmp_path)
    edit.copied(source, tmp_path / "copy")
    for file in source.iterdir():
        assert (tmp_path / "copy" / file.name).read_bytes() == file.read_bytes()
    for file in source.glob("*.safetensors"):
        ours = load_file(store.model_path(tmp_path, "ThinkEdit-source") / file.name)
        plain, before = load_file(tmp_path / "plain" / file.name), load_file(file)
        assert all(torch.equal(ours[name], plain[name]) for name in before)
        changed = {name for name in before if not torch.equal(ours[name], before[name])}
        assert changed == {name for name in before if "o_proj" in name}


def test_a_report_is_measured_on_records_of_every_kind(run, monkeypatch, capsys):
    monkeypatch.setattr(report, "PARTS", (3, 1))
    monkeypatch.setattr(evaluations, "DATASETS", ("gsm8k",))
    monkeypatch.setattr(report, "FILES", 8)
    monkeypatch.setattr(report, "RESAMPLES", 5)
    found = run("--parts", "report", "--report_questions", 6)
    (table,) = found["tables"]
    assert [row["records"] for row in table["rows"]] == [2 * 10 * 8, 6 * 10 * 8]
    assert [row["CPU seconds"] for row in table["rows"]] == [2.0, 2.0] and table["rows"][0]["goal"] is None
    assert [len(one) for one in found["repeats"]["report"].values()] == [2, 1]
    assert "Against the 3 random controls" in capsys.readouterr().out


def test_evaluations_are_alike_real_ones_and_the_same_each_time():
    pool = evaluations.sentences()
    made = list(evaluations.records("base", "gsm8k", 100, pool))
    assert made == list(evaluations.records("base", "gsm8k", 100, pool)) != []
    assert len({(one.id, one.sample) for one in made}) == 1000
    assert {one.status for one in made} == {"closed", "capped", "no_think"}
    assert all(len(one.token_ids) == one.response_tokens for one in made)
    assert all(degenerate(one.response) == (one.status == "capped") for one in made)
    assert 400 < mean_length(made).value < 650 and 0.5 < accuracy(made).value < 0.95


def test_the_plain_interval_is_the_bootstraps():
    rng = random.Random(0)
    pairs = [(f"q{index % 60}", float(rng.random() + index % 60 // 20)) for index in range(300)]
    ours = mean([id for id, _ in pairs], [value for _, value in pairs], None)
    low, high = report.plain_interval(pairs)
    assert (low, high) == pytest.approx((ours.low, ours.high), abs=0.05)


def test_grading_is_measured_by_rules_and_by_algebra(run):
    found = run("--parts", "grading", "--n_answers", 40)
    told, lengths = found["tables"]
    assert [row["answers"] for row in told["rows"]] == [40, 40, 40, 2, 2]
    assert [row["characters"] for row in lengths["rows"]] == list(grading.CHARACTERS)
    assert all(len(one) == 2 for one in found["repeats"]["grading"].values())


@pytest.mark.parametrize("forms, exact", [(grading.EXACT, True), (grading.ALGEBRA, False)])
def test_answers_take_the_way_that_they_are_to_measure(forms, exact):
    asked = grading.items(forms, 3 * len(forms), count())
    assert len(set(asked)) > 2 * len(forms)
    assert {decide(*one) is not None for one in asked} == {exact}
    for last in ("\\boxed{{{0}}}", "{0}"):
        assert all(2800 < len(text) < 3200 for text, *_ in grading.responses(asked, 3000, last))
    assert [extract(text) for text, *_ in grading.responses(asked, 3000)] == [said for said, *_ in asked]


def test_a_child_says_what_it_cost_and_why_it_failed():
    cost = child("gc:collect")
    assert 0 <= cost.wall < 5 and 0 < cost.cpu < 5 and 2 < cost.peak < 100, "without what this process holds"
    with pytest.raises(InputError, match=r"gc:nothing failed while it was measured(.|\n)*has no attribute"):
        child("gc:nothing")


def test_growth_is_drawn_with_goals_in_one_colour_for_each_name():
    panels = [Panel("x", "s", {"a": {2: 1.0, 1: 3.0}, "b": {1: 2.0}}, goal=4), Panel("x", "MB", {"b": {1: 1.0}})]
    first, second = growth(panels, "title").axes
    assert [line.get_label() for line in first.lines] == ["a", "b", "goal"]
    assert list(first.lines[0].get_xdata()) == [1, 2] and list(first.lines[0].get_ydata()) == [3.0, 1.0]
    assert first.lines[1].get_color() == second.lines[0].get_color() != first.lines[0].get_color()
