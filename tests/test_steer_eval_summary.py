"""What stage 3 sums up and draws, on planted records."""

from argparse import Namespace
from pathlib import Path

import pytest

import steer_eval
from tests.synthetic import evaluation
from thinksteer import store
from thinksteer.models import ModelRef
from thinksteer.records import Record
from thinksteer.sweep import change
from thinksteer.thinking import TEMPLATES

REF = ModelRef("m", "m", TEMPLATES["deepseek"])
BASE, STEERED = evaluation(0, 60, 1), evaluation(1, 60, 1, gain=0.2, longer=-30)


def save(root: Path, at: tuple[float, int | None], records: list[Record], settings: dict | None = None) -> None:
    path = store.steering_path(root, "m", "d", "seal", *at)
    settings = settings or {"weight": at[0], "layer": at[1], "max_length": 500}
    path.parent.mkdir(parents=True, exist_ok=True)
    with store.run(path, settings, [], overwrite=False), store.RecordLog(path) as log:
        for one in records:
            log.append(one)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(tmp_path, (0.0, None), BASE)
    save(tmp_path, (1.0, 3), STEERED)
    return store.steering_summary_path(tmp_path, "m", "d", "seal").parent


def summarise(folder: Path, adds_to: str = "layers") -> dict:
    steer_eval.summarise(
        Namespace(
            args=Namespace(artifacts=folder.parents[3], dataset="d"), ref=ModelRef("m", "m", TEMPLATES["deepseek"])
        ),
        {"control": "seal", "adds_to": adds_to},
    )
    return store.read_json(folder / "summary.json")


def test_the_summary_says_what_changed_and_a_line_for_each_setting_does_too(folder: Path, capsys):
    summary = summarise(folder)
    assert {key: summary[key] for key in summary if key != "points"} == {
        "model": "m",
        "dataset": "d",
        "control": "seal",
        "adds_to": "layers",
    }
    found = change(BASE, STEERED)
    assert summary["points"][1]["change"]["tokens"]["value"] == found.tokens.value
    zero, one, _ = capsys.readouterr().out.splitlines()
    assert f"{100 * found.accuracy.value:+.1f} [" in one and f"{found.tokens.value:+.1f} [" in one
    assert "layer 3" in one and "[" not in zero


def test_settings_with_other_numbers_of_responses_are_told_of(folder: Path, capsys):
    summarise(folder)
    assert "other questions" not in capsys.readouterr().out
    save(folder.parents[3], (2.0, 3), STEERED[:50])
    summarise(folder)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "  settings have other questions or samples (50 to 60 responses): compare changes only"


def test_one_steered_layer_has_curves_and_lengths_but_none_against_the_layer(folder: Path):
    summarise(folder)
    assert {path.name for path in folder.glob("*.png")} == {"summary.png", "tokens.png", "lengths.png"}
    save(folder.parents[3], (1.0, 4), STEERED)
    summarise(folder)
    assert (folder / "layers.png").is_file()


def test_imported_records_are_left_out_of_the_summary(folder: Path):
    save(folder.parents[3], (2.0, None), STEERED, {"imported_from": "elsewhere"})
    assert [point["weight"] for point in summarise(folder)["points"]] == [0.0, 1.0]
