"""Shares of behaviours against counts by hand, the tables and figures of them, and the scripts that write them."""

import os
import random
import shlex
import shutil
import sys
from collections import Counter
from importlib import import_module
from pathlib import Path

import pytest

from thinksteer import models, store
from thinksteer.annotation import LABELS, Annotation, Section
from thinksteer.annotations import AnnotationLog, read_annotations
from thinksteer.behaviour_figures import bars_figure, curves_figure, models_figure
from thinksteer.behaviour_files import find_annotations, read_labelled
from thinksteer.behaviour_tables import contrasts_table, differences_table, effects_table, models_table
from thinksteer.behaviours import (
    ALL,
    MEASURES,
    PER_RESPONSE,
    SECTIONS,
    TARGET_TOKENS,
    TOKENS,
    Run,
    Usage,
    contrasts,
    count,
    difference,
    effects,
    labels_in,
    level,
    verdict,
)
from thinksteer.records import InputError
from thinksteer.steered import beside_random, sweeps
from thinksteer.steered_files import find_settings
from thinksteer.tables import as_json, markdown
from thinksteer.venhoff import Answer, records_of

BACK, UNSURE, DEDUCE = "backtracking", "uncertainty-estimation", "deduction"


def annotation(id, *sections, sample=0):
    """Sections as (label, first, last)."""
    made = tuple(Section(label, 0, 1, first, last) for label, first, last in sections)
    return Annotation(id, sample, "", made, (), 0)


def annotated(*annotations):
    return count({(one.id, one.sample): one for one in annotations})


# Of 20 tokens 4 backtrack in one of three sections; none of q2 is of the four targets; q3 has no section at all.
MIXED = annotated(
    annotation("q1", (DEDUCE, 2, 10), (BACK, 11, 15), (UNSURE, 15, 23)),
    annotation("q2", (DEDUCE, 0, 5), (DEDUCE, 5, 9)),
    annotation("q3"),
)


def spread(n, share, seed=0, control=BACK, weight=0.0, layer=None, degenerate=0.0):
    """A run of n questions with 10 tokens each, of which about `share` backtrack."""
    rng = random.Random(seed)
    own = [min(10, max(0, round(10 * share + rng.uniform(-1.5, 1.5)))) for _ in range(n)]
    made = [annotation(f"q{i}", (BACK, 0, k), (DEDUCE, k, 10)) for i, k in enumerate(own)]
    return Run(control, layer if weight else None, weight, annotated(*made), degenerate, 10.0)


def sweep_runs(strong=0.5, middle=0.3, weak=0.1, control=BACK):
    """A direction that moves the share both ways, and two random ones that do not."""
    runs = [spread(60, s, 1, control, w, 3) for w, s in ((-1.0, weak), (0.0, middle), (1.0, strong))]
    for seed in (0, 1):
        runs += [spread(60, middle, 10 * seed + w, f"{control}.random{seed}", w, 3) for w in (-1.0, 0.0, 1.0)]
    return runs


def test_each_measure_is_the_mean_of_what_responses_have_by_hand():
    tokens, sections = level([MIXED], BACK, TOKENS), level([MIXED], DEDUCE, SECTIONS)
    assert tokens.value == pytest.approx((4 / 20 + 0) / 2) and tokens.n == 2  # q3 has nothing to take a share of
    assert sections.value == pytest.approx((1 / 3 + 1) / 2) and sections.n == 2
    assert level([MIXED], DEDUCE, PER_RESPONSE).value == pytest.approx(3 / 3)  # zeros count
    assert level([MIXED], ALL, PER_RESPONSE).value == pytest.approx(5 / 3)


def test_upstreams_share_is_of_the_four_targets_and_leaves_out_responses_without_them():
    found = level([MIXED], BACK, TARGET_TOKENS)
    assert found.value == pytest.approx(4 / 12) and found.n == 1
    four = annotated(annotation("q", *((label, 2 * place, 2 * place + 2) for place, label in enumerate(LABELS))))
    assert [level([four], label, TARGET_TOKENS).value for label in LABELS[2:]] == [1 / 4] * 4
    assert TARGET_TOKENS.has(UNSURE) and not TARGET_TOKENS.has(DEDUCE)
    assert TOKENS.has("made-up") and not TOKENS.has(ALL) and PER_RESPONSE.has(ALL)
    assert level([annotated(annotation("q"))], BACK, TARGET_TOKENS) is None


def test_a_section_in_which_no_token_begins_counts_as_a_section_only():
    one = annotated(annotation("q", (BACK, 3, 3), (DEDUCE, 3, 8)))
    assert level([one], BACK, TOKENS).value == 0 and level([one], BACK, SECTIONS).value == 0.5
    assert count({("q", 0): annotation("q", (BACK, 3, 3))})["q", 0] == Usage(Counter({BACK: 0}), Counter({BACK: 1}))
    assert level([annotated(annotation("q", (BACK, 3, 3)))], BACK, TOKENS) is None


def test_labels_are_the_six_and_what_an_annotator_made_up():
    assert labels_in([MIXED, annotated(annotation("q", ("summarizing", 0, 4)))]) == [*LABELS, "summarizing"]


def test_a_difference_is_paired_and_over_those_that_have_a_value_in_both():
    base = annotated(annotation("a", (BACK, 0, 2), (DEDUCE, 2, 4)), annotation("b", (DEDUCE, 0, 4)), annotation("c"))
    other = annotated(
        annotation("a", (BACK, 0, 4)), annotation("b"), annotation("c", (BACK, 0, 4)), annotation("d", (BACK, 0, 4))
    )
    found = difference(base, other, BACK, TOKENS)
    assert found.value == 0.5 and found.n == 1  # b and c have no share in one of the two, d is not in both
    assert difference(other, base, BACK, TOKENS).value == -0.5
    assert difference(base, other, BACK, PER_RESPONSE).value == pytest.approx((0 + 0 + 1) / 3)
    with pytest.raises(InputError, match="share no"):
        difference(base, annotated(annotation("z")), BACK, TOKENS)
    never = difference(MIXED, MIXED, "example-testing", TOKENS)
    assert never.value == 0 and never.low == -never.high < -0.1  # two that never have it are no certainty
    again = annotated(annotation("a", (BACK, 0, 4), sample=1))
    with pytest.raises(InputError, match="share no"):  # another sample of the same question
        difference(base, again, BACK, TOKENS)


def test_an_interval_of_a_share_is_not_that_of_yes_and_no():
    """Every response at a share near one half leaves no room for the spread that coin throws would have."""
    found = spread(50, 0.5).labelled
    estimate = level([found], BACK, TOKENS)
    assert estimate.low < estimate.value < estimate.high and estimate.high - estimate.low < 0.08
    assert all(0 <= edge <= 1 for edge in (estimate.low, estimate.high))
    same = level([annotated(*(annotation(f"q{i}", (DEDUCE, 0, 4)) for i in range(20)))], BACK, TOKENS)
    assert same.value == 0 and 0.05 < same.high < 0.3  # no certainty from twenty zeros


def test_samples_and_random_controls_of_one_question_are_resampled_together():
    few = [annotation(f"q{i}", (BACK, 0, i), (DEDUCE, i, 8)) for i in range(8)]
    many = [annotation(f"q{i}", (BACK, 0, i), (DEDUCE, i, 8), sample=s) for i in range(8) for s in range(20)]
    one, all_samples = (level([annotated(*each)], BACK, TOKENS) for each in (few, many))
    assert (one.low, one.high) == pytest.approx((all_samples.low, all_samples.high)) and all_samples.n == 160
    twice = level([annotated(*few), annotated(*few)], BACK, TOKENS)
    assert (twice.value, twice.low, twice.high) == pytest.approx((one.value, one.low, one.high)) and twice.n == 16


def test_effects_are_changes_from_weight_zero_of_the_control_for_every_label():
    found = {(one.run.control, one.run.weight, one.label): one for one in effects(sweep_runs(), TOKENS)}
    assert len(found) == 9 * 6
    up, down = found[BACK, 1.0, BACK], found[BACK, -1.0, BACK]
    assert up.change.value == pytest.approx(0.2, abs=0.03) and up.change.low > 0.1
    assert down.change.value == pytest.approx(-0.2, abs=0.03) and down.change.high < 0
    assert found[BACK, 1.0, DEDUCE].change.value == pytest.approx(-up.change.value)
    assert found[BACK, 0.0, BACK].change is None and up.without == 0 and up.level.n == 60
    runs = [run for run in sweep_runs() if not run.random or run.weight]  # random controls without a weight 0
    again = {(one.run.control, one.run.weight, one.label): one for one in effects(runs, TOKENS)}
    assert again[f"{BACK}.random0", 1.0, BACK].change == found[f"{BACK}.random0", 1.0, BACK].change
    higher = [*sweep_runs(), *sweep_runs(strong=0.9, middle=0.7, control=f"{BACK}.layers1+2")]
    found = {(one.run.control, one.run.weight, one.label): one for one in effects(higher, TOKENS)}
    change = found[f"{BACK}.layers1+2", 1.0, BACK].change
    assert change.value == pytest.approx(0.2, abs=0.03)
    assert {one.label for one in effects(sweep_runs(), TARGET_TOKENS)} == set(TARGET_TOKENS.among)


def test_random_controls_stand_beside_settings_of_the_same_weight_and_layer():
    runs = [*sweep_runs(), spread(60, 0.3, 1, f"{BACK}.random2", 1.0, 5), *sweep_runs(control=UNSURE)]
    own = next(run for run in runs if run.control == BACK and run.weight == 1)
    assert [one.control for one in beside_random(own, runs)] == [f"{BACK}.random0", f"{BACK}.random1"]
    pairs = [(one.run.control, one.run.weight, one.minus) for one in contrasts(runs)]
    assert len(pairs) == 8 and (BACK, -1.0, f"{BACK}.random1") in pairs
    assert not [pair for pair in pairs if "random" in pair[0] or not pair[1]]


def test_a_control_of_several_layers_has_the_label_before_its_first_dot():
    run = spread(5, 0.3, control=f"{BACK}.layers2+3.random4", weight=1.0)
    assert run.random and run.of == f"{BACK}.layers2+3" and run.label == BACK


def test_a_verdict_needs_every_random_control_on_the_same_side():
    runs = sweep_runs()
    up, down = (next(run for run in runs if run.control == BACK and run.weight == w) for w in (1, -1))
    assert verdict(up, beside_random(up, runs)) == "raised" and verdict(down, beside_random(down, runs)) == "lowered"
    assert verdict(up, []) == "without random control"
    alike = spread(60, 0.5, 99, f"{BACK}.random2", 1.0, 3)
    above = spread(60, 0.9, 99, f"{BACK}.random2", 1.0, 3)
    assert verdict(up, [*beside_random(up, runs), alike]) == "not told apart"
    assert verdict(up, [*beside_random(up, runs), above]) == "not told apart"
    assert verdict(up, [alike]) == "not told apart" and verdict(up, [above]) == "lowered"


def test_tables_hold_a_row_for_each_label_setting_and_random_control():
    runs = sweep_runs()
    rows = as_json(effects_table("t", "here", TOKENS, effects(runs, TOKENS)))["rows"]
    assert (
        len(rows) == 54 and rows[5]["label"] == BACK and rows[5]["added to"] == "layer 3" and rows[5]["weight"] == "-1"
    )
    assert rows[6]["added to"] == "–" and rows[5]["n"] == 60 and rows[5]["tokens"] == 10
    beyond = as_json(contrasts_table("t", "here", contrasts(runs)))["rows"]
    assert len(beyond) == 4 and beyond[-1]["minus"] == f"{BACK}.random1"
    assert beyond[-1][TOKENS.title]["value"] == pytest.approx(0.2, abs=0.05)
    of_deduction = as_json(contrasts_table("t", "here", contrasts(sweep_runs(control=DEDUCE))))["rows"]
    assert of_deduction[0][TARGET_TOKENS.title] is None and of_deduction[0][TOKENS.title]["value"] > 0
    shown = {"base": runs[0].labelled, "thinking": runs[2].labelled}
    [back] = [row for row in as_json(differences_table("t", "d", shown))["rows"] if row["label"] == BACK]
    assert back["model"] == "thinking minus base" and back[SECTIONS.title]["value"] >= 0
    assert back[TOKENS.title]["value"] == pytest.approx(0.4, abs=0.05)
    assert len(as_json(models_table("t", "d", shown))["rows"]) == 2 * 7
    assert "4.7 %" in markdown(models_table("t", "d", shown))
    assert "Upstream" in markdown(effects_table("t", "here", TARGET_TOKENS, effects(runs, TARGET_TOKENS)))


def test_sweeps_hold_each_control_by_layer_with_no_steering_in_each():
    other = [spread(60, 0.4, 5, BACK, 1.0, 4)]
    found = sweeps([*sweep_runs(), *other])
    assert [(one.title, [run.weight for run in one.runs]) for one in found] == [
        (f"{BACK}, layer 3", [-1.0, 0.0, 1.0]),
        (f"{BACK}, layer 4", [0.0, 1.0]),
    ]
    assert [len(each) for each in found[0].random] == [2, 0, 2]


def test_figures_are_drawn_of_whatever_there_is(tmp_path):
    alone = [run for run in sweep_runs() if not run.random]
    cases = [sweeps(sweep_runs()), sweeps(alone[1:])]
    cases.append([one for label in LABELS[1:] for one in sweeps(sweep_runs(control=label))])
    for index, found in enumerate(cases):
        for measure in (TOKENS, TARGET_TOKENS):
            bars_figure(found, None, 1.0, measure, tmp_path / f"{measure.name}{index}.png")
        curves_figure(found, TOKENS, tmp_path / f"curves{index}.png")
    models_figure({"base": MIXED, "thinking": alone[0].labelled}, tmp_path / "models.png")
    assert len(list(tmp_path.glob("*.png"))) == 10


@pytest.fixture
def run(monkeypatch, capsys):
    """A script's `main` with these flags: what it prints."""

    def run(script, *flags):
        monkeypatch.setattr(sys, "argv", [script, *map(str, flags)])
        import_module(f"scripts.{script}").main()
        return capsys.readouterr().out

    return run


CHAIN = "<think>\nMonday: {0} and 4.\n{0}+4={1}.\nWait, let me check. {1}-4={0}. Yes.\n</think>\n\nThe answer is {1}."


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Artifacts of the embedded model: plain responses, and the same ones as if they had been steered."""
    root, ref = tmp_path_factory.mktemp("artifacts"), models.resolve("tiny-reasoner", Path("artifacts"))
    answers = [Answer(CHAIN.format(number, number + 4) if number % 5 else "", "") for number in range(24)]
    questions = [f"Monday: {number} and 4. How many?" for number in range(24)]
    made = records_of(answers, questions, "arithmetic", ref.template, models.load_tokenizer(ref))
    records = [record for record, _ in made]
    path = store.responses_path(root, "tiny-reasoner", "arithmetic")
    with store.run(path, {}, [], False), store.RecordLog(path) as log:
        for record in records:
            log.append(record)
    for control, weight in ((BACK, -1.0), (BACK, 0.0), (BACK, 1.0), (f"{BACK}.random0", 1.0)):
        path = store.steering_path(root, "tiny-reasoner", "arithmetic", control, weight, 3 if weight else None)
        with store.run(path, {"weight": weight, "max_length": 300}, [], False), store.RecordLog(path) as log:
            for record in records[: 24 if weight else 20]:
                log.append(record)
    return root


def settings(root):
    return find_settings(root, "tiny-reasoner", "arithmetic", None, LABELS)


def test_settings_are_found_by_control_layer_and_weight(root, run):
    found = [(one.control, one.layer, one.weight) for one in settings(root)]
    assert found == [(BACK, None, 0.0), (BACK, 3, -1.0), (BACK, 3, 1.0), (f"{BACK}.random0", 3, 1.0)]
    with pytest.raises(InputError, match=r"no finished steering by deduction, of .* after .*; there is backtracking: "):
        find_settings(root, "tiny-reasoner", "arithmetic", [DEDUCE], LABELS)
    with pytest.raises(InputError, match=r"no finished steering, of controls named after initializing, .*: run"):
        find_settings(root, "other", "arithmetic", None, LABELS)


def test_missing_annotations_are_made_by_the_command_that_the_error_prints(root, run):
    here = ("--artifacts", root)
    with pytest.raises(InputError, match="4 of 4 files") as error:
        run("behaviour_effects", *here)
    command = shlex.split(str(error.value).splitlines()[-1])
    assert command[:3] == ["python", "-m", "scripts.annotate"] and sum(one.endswith(".jsonl") for one in command) == 4
    with pytest.raises(InputError, match=r"by gpt: run\npython .* --name gpt --annotator judge or local"):
        find_annotations(root, "tiny-reasoner", [one.records for one in settings(root)], "gpt")
    run("annotate", *command[3:])
    path = root / "behaviours" / "tiny-reasoner" / "arithmetic.keywords.effects.json"
    out = run("behaviour_effects", *here)
    assert (
        f"{BACK}, layer 3, weight +1: " in out and "raised apart from the random controls: no (not told apart)" in out
    )
    assert "weight -1: " in out and "lowered apart from the random controls: none to compare with" in out

    rows = store.read_json(path)["rows"]
    [up] = [row for row in rows if row["control"] == BACK and row["weight"] == "1" and row["label"] == DEDUCE]
    records = settings(root)[2].records
    found = read_annotations(store.annotations_path(root, records, "keywords"))
    shares = []
    for one in found.values():
        own = sum(part.last - part.first for part in one.sections if part.label == DEDUCE)
        whole = sum(part.last - part.first for part in one.sections)
        shares += [own / whole] if whole else []
    assert up[TOKENS.title]["value"] == pytest.approx(sum(shares) / len(shares)) and up["n"] == 24
    assert up["change"]["value"] == 0 and up["change"]["n"] <= 20  # the same responses; weight 0 has 20
    names = ["", *(f"_{one.name}" for one in MEASURES[1:]), "_beyond"]
    assert all((path.with_name(f"{path.stem}{name}.{end}")).stat().st_size for name in names for end in ("md", "csv"))
    assert store.figure_path(path).is_file() and path.with_name(f"{path.stem}_curves.png").is_file()
    inputs = store.read_json(store.manifest_path(path))["inputs"]
    assert len([name for name in inputs if "annotations/keywords" in name]) == 4
    before = path.stat().st_mtime_ns
    assert run("behaviour_effects", *here) == out and path.stat().st_mtime_ns == before
    assert "not steered with weight +3" in run("behaviour_effects", *here, "--positive", 3, "--overwrite")


def test_of_a_file_annotated_in_part_that_part_is_read(root, tmp_path):
    responses = store.responses_path(root, "tiny-reasoner", "arithmetic")
    path = store.annotations_path(root, responses, "part")
    with store.run(path, {}, [responses], False), AnnotationLog(path) as log:
        for record in store.read_records(responses)[:3]:
            log.append(annotation(record.id, (BACK, 0, 4)))
        with pytest.raises(InputError, match="1 of 1 files have no finished annotations by part"):
            find_annotations(root, "tiny-reasoner", [responses], "part")
    records, labelled = read_labelled(responses, path)
    assert len(records) == len(labelled) == 3 and {(one.id, one.sample) for one in records} == set(labelled)


def test_models_are_set_side_by_side(root, run):
    name = "copy"
    shutil.copytree(models.TINY_REASONER, root / "models" / name, copy_function=os.symlink)
    here = ("--artifacts", root)
    responses = store.responses_path(root, "tiny-reasoner", "arithmetic")
    path = store.responses_path(root, "copy", "arithmetic")
    with store.run(path, {}, [], False), store.RecordLog(path) as log:
        for record in store.read_records(responses)[:10]:
            log.append(record)
    run("annotate", *here)
    both = ("--model", "tiny-reasoner", name)
    with pytest.raises(InputError, match=r"1 of 1 files(.|\n)*--model copy"):
        run("compare_behaviours", *here, *both)
    run("annotate", *here, "--model", name)
    out = run("compare_behaviours", *here, *both)
    assert "copy minus tiny-reasoner" in out and "Published" in out
    path = root / "behaviours" / "tiny-reasoner" / "arithmetic.keywords.beside.copy.json"
    rows = store.read_json(path.with_name(f"{path.stem}.differences.json"))["rows"]
    assert [row["label"] for row in rows] == [ALL, *LABELS]
    assert all(row["n"] == 10 and row[PER_RESPONSE.title]["value"] == 0 for row in rows)
    assert store.figure_path(path).is_file() and len(store.read_json(path)["rows"]) == 14
    with pytest.raises(InputError, match="two models or more"):
        run("compare_behaviours", *here)
