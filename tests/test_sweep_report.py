import json
from pathlib import Path

import pytest

from tests.synthetic import evaluation, record
from thinksteer import store
from thinksteer.records import InputError, Record
from thinksteer.sweep import points_of
from thinksteer.sweep_report import beside_random, contrasts, find_sweeps, records_compared, sweep_section

Runs = dict[tuple[int | None, float], tuple[list[Record], int]]
BASE = evaluation(0, 80, 1)


def save(root: Path, control: str, runs: Runs, adds_to: str = "layers", model: str = "m") -> None:
    for (layer, weight), (records, _) in runs.items():
        path = store.steering_path(root, model, "d", control, weight, layer)
        path.parent.mkdir(parents=True, exist_ok=True)
        with store.run(path, {"weight": weight}, [], overwrite=False), store.RecordLog(path) as log:
            for one in records:
                log.append(one)
    summary = {"model": model, "dataset": "d", "control": control, "adds_to": adds_to, "points": points_of(runs)}
    store.write_json(store.steering_summary_path(root, model, "d", control), summary)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """One control of one layer that gains 30 points, two random ones, and a penalty."""
    steered, other = evaluation(1, 80, 1, gain=0.3, longer=-30), evaluation(2, 80, 1)
    save(tmp_path, "seal", {(None, 0.0): (BASE, 500), (3, 1.0): (steered, 500), (3, 2.0): (steered, 500)})
    save(tmp_path, "seal.random0", {(None, 0.0): (BASE, 500), (3, 1.0): (other, 500), (4, 2.0): (other, 500)})
    save(tmp_path, "seal.random1", {(3, 1.0): (other, 900)})
    save(tmp_path, "penalty", {(None, 0.0): (BASE, 500), (None, -3.0): (other, 500)}, "logits")
    return tmp_path


def test_a_setting_is_held_against_random_ones_of_its_weight_place_and_budget_only(root: Path):
    (sweeps,) = find_sweeps(root, None)
    pairs = [(one["control"], one["weight"], other["control"]) for one, other in beside_random(sweeps)]
    assert pairs == [("seal", 1.0, "seal.random0")]
    (found,) = contrasts(root, sweeps)
    assert found.change.accuracy.value == pytest.approx(
        (sum(one.correct for one in evaluation(1, 80, 1, gain=0.3)) - sum(one.correct for one in evaluation(2, 80, 1)))
        / 80
    )
    assert found.change.tokens.value < 0
    assert {path.name for path in records_compared(root, sweeps)} == {"1.0.layer3.jsonl"}
    assert len(records_compared(root, sweeps)) == 2


def test_random_controls_on_other_questions_are_named(root: Path):
    save(root, "seal.random2", {(3, 1.0): ([record("elsewhere")], 500)})
    with pytest.raises(InputError, match=r"d: seal and seal.random2 at weight 1 share no"):
        contrasts(root, find_sweeps(root, None)[0])


def test_sweeps_are_found_by_model_and_a_summary_of_an_earlier_version_is_named(root: Path):
    save(root, "seal", {(None, 0.0): (BASE, 500)}, model="other")
    assert [one.model for one in find_sweeps(root, None)] == ["m", "other"]
    assert [one.model for one in find_sweeps(root, ["other"])] == ["other"]
    path = store.steering_summary_path(root, "other", "d", "seal")
    summary = json.loads(path.read_text())
    del summary["points"][0]["n_graded"]
    store.write_json(path, summary)
    with pytest.raises(InputError, match=r"other/d/seal/summary\.json is from an earlier version"):
        find_sweeps(root, None)


def test_the_section_has_a_figure_per_kind_of_weight_one_of_tokens_and_the_tables(root: Path, tmp_path: Path):
    folder = tmp_path / "reports"
    folder.mkdir()
    section = sweep_section(root, find_sweeps(root, None)[0], folder)
    assert [table.name for table in section.tables] == ["m.d.steering", "m.d.steering_ends", "m.d.steering_beyond"]
    assert {path.name for path in folder.glob("*.md")} == {f"{table.name}.md" for table in section.tables}
    figures = {"m.d.steering_one_layer.png", "m.d.steering_logits.png", "m.d.tokens.png"}
    assert {path.name for path in folder.glob("*.png")} == figures
    assert len(section.pictures) == 3
    rows = json.loads((folder / "m.d.steering.json").read_text())["rows"]
    assert [(row["control"], row["added to"]) for row in rows if row["weight"] == "-3"] == [("penalty", "logits")]


def test_several_steered_layers_get_a_figure_against_the_layer(tmp_path: Path):
    steered = {(layer, 1.0): (evaluation(layer, 40, 1), 500) for layer in range(3)}
    save(tmp_path, "seal", {(None, 0.0): (evaluation(9, 40, 1), 500), **steered})
    (sweeps,) = find_sweeps(tmp_path, None)
    sweep_section(tmp_path, sweeps, tmp_path)
    assert {path.name for path in tmp_path.glob("*.png")} == {"m.d.seal.layers.png"}
