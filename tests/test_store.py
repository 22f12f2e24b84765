from pathlib import Path

import pytest
import torch

from tests import synthetic
from thinksteer import store
from thinksteer.records import InputError, Record

ROOT = Path("artifacts")


def test_every_artifact_has_the_place_that_the_layout_gives_it():
    model, dataset, control = "Qwen/Qwen3-8B", "gsm8k", "thinking_length_attn"
    places = {
        store.responses_path(ROOT, model, dataset): "responses/Qwen--Qwen3-8B/gsm8k.jsonl",
        store.responses_path(ROOT, model, dataset, (1, 4)): "responses/Qwen--Qwen3-8B/gsm8k.1-of-4.jsonl",
        store.direction_path(ROOT, model, control): "directions/Qwen--Qwen3-8B/thinking_length_attn.safetensors",
        store.classes_path(ROOT, model, dataset, "seal"): "responses/Qwen--Qwen3-8B/gsm8k.seal.classes.json",
        store.separability_path(ROOT, model, dataset, "seal"): "directions/Qwen--Qwen3-8B/gsm8k.seal.separability.json",
        store.cosines_path(ROOT, model): "directions/Qwen--Qwen3-8B/cosines.json",
        store.states_path(ROOT, model, dataset, "seal"): "states/Qwen--Qwen3-8B/gsm8k.seal.safetensors",
        store.layer_effects_path(ROOT, model, dataset, "seal"): "layers/Qwen--Qwen3-8B/gsm8k.seal.json",
        store.judge_path(ROOT, model): "judge/Qwen--Qwen3-8B.jsonl",
        store.behaviours_path(ROOT, model, "gsm8k.k"): "behaviours/Qwen--Qwen3-8B/gsm8k.k.json",
        store.steering_path(ROOT, model, dataset, control, -0.08, None): (
            "steering/Qwen--Qwen3-8B/gsm8k/thinking_length_attn/-0.08.jsonl"
        ),
        store.steering_path(ROOT, model, dataset, control, 1, 3): (
            "steering/Qwen--Qwen3-8B/gsm8k/thinking_length_attn/1.0.layer3.jsonl"
        ),
        store.steering_summary_path(ROOT, model, dataset, control): (
            "steering/Qwen--Qwen3-8B/gsm8k/thinking_length_attn/summary.json"
        ),
        store.heads_path(ROOT, model, control): "heads/Qwen--Qwen3-8B/thinking_length_attn.json",
        store.model_path(ROOT, "ThinkEdit-tiny-reasoner"): "models/ThinkEdit-tiny-reasoner",
        store.evaluation_path(ROOT, model, dataset, ""): "evaluations/Qwen--Qwen3-8B/gsm8k/default.jsonl",
        store.evaluation_path(ROOT, model, dataset, "", (0, 2)): (
            "evaluations/Qwen--Qwen3-8B/gsm8k/default.0-of-2.jsonl"
        ),
        store.metrics_path(ROOT, model, dataset, ""): "evaluations/Qwen--Qwen3-8B/gsm8k/metrics.json",
        store.confidence_path(ROOT, store.responses_path(ROOT, "m", "d")): "confidence/responses/m/d.jsonl",
        store.confidence_path(ROOT, ROOT / "steering/m/d/c/0.4.jsonl", unsteered=True): (
            "confidence/steering/m/d/c/0.4.unsteered.jsonl"
        ),
        store.reports_path(ROOT): "reports",
        store.figure_path(store.heads_path(ROOT, model, control)): "heads/Qwen--Qwen3-8B/thinking_length_attn.png",
    }
    assert {path: path.relative_to(ROOT).as_posix() for path in places} == places


def test_zero_has_one_file_whatever_its_sign():
    paths = {store.steering_path(ROOT, "m", "d", "c", weight, None) for weight in (0, 0.0, -0.0)}
    assert [path.name for path in paths] == ["0.0.jsonl"]


def test_instructions_get_readable_file_names_of_their_own():
    instructions = ["", "Put it in \\boxed{}.", "put it in \\boxed{}", "/../etc", "请", "word " * 500, "\nx" * 200]
    paths = [store.evaluation_path(ROOT, "m", "d", instruction) for instruction in instructions]
    assert len(set(paths)) == len(instructions)
    assert {path.parent for path in paths} == {ROOT / "evaluations" / "m" / "d"}
    assert paths[1].name.startswith("put-it-in-boxed-") and all(len(path.name) < 80 for path in paths)
    metrics = [store.metrics_path(ROOT, "m", "d", instruction) for instruction in instructions]
    assert [path.name for path in metrics[1:]] == [f"{path.stem}.metrics.json" for path in paths[1:]]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tiny-reasoner", "tiny-reasoner"),
        ("Qwen/Qwen3-8B", "Qwen--Qwen3-8B"),
        ("./my/model/", "my--model"),
        ("MATH-500", "MATH-500"),
        ("mes données", "mes données"),
    ],
)
def test_hub_ids_and_paths_become_one_file_name(name, expected):
    assert store.slug(name) == expected


@pytest.mark.parametrize(
    "name", ["", "/", ".", "..", "a/../b", "../a", "/etc/passwd", ".git", "a/.git", "a\\b", "a\nb", "a\0b", "a" * 121]
)
def test_names_that_lead_elsewhere_are_refused(name):
    with pytest.raises(InputError, match="cannot name a folder"):
        store.slug(name)
    with pytest.raises(InputError):
        store.responses_path(ROOT, name, "gsm8k")
    with pytest.raises(InputError):
        store.model_path(ROOT, name)


def test_the_longest_name_still_fits_in_a_file_name(tmp_path):
    path = store.responses_path(tmp_path, "m", "a" * 120, (99, 100))
    with store.run(path, {}, [], overwrite=False), store.RecordLog(path):
        pass
    assert store.read_records(path) == []


def test_everything_said_to_be_offered_is_there():
    assert all(hasattr(store, name) for name in store.__all__)


def write_shard(path: Path, record: Record) -> None:
    with store.run(path, {"weight": 0.5}, [], overwrite=False), store.RecordLog(path) as log:
        log.append(record)


def test_a_record_file_is_complete_when_all_its_shards_are_finished(tmp_path):
    whole = tmp_path / "steering" / "0.5.jsonl"
    assert not store.is_complete(whole)
    write_shard(whole.with_name("0.5.0-of-2.jsonl"), synthetic.record("a"))
    assert not store.is_complete(whole)
    write_shard(whole.with_name("0.5.1-of-2.jsonl"), synthetic.record("b"))
    assert store.finished_records(whole.parent) == [whole]
    assert store.run_settings(whole) == {"weight": 0.5}


def test_a_record_file_whose_run_was_stopped_is_not_complete(tmp_path):
    path = tmp_path / "steering" / "0.5.jsonl"
    with pytest.raises(KeyboardInterrupt), store.run(path, {}, [], overwrite=False), store.RecordLog(path) as log:
        log.append(synthetic.record("a"))
        raise KeyboardInterrupt
    assert path.exists() and store.finished_records(path.parent) == []


@pytest.mark.parametrize("tensors", [{}, {"direction": torch.ones(3)}, {"direction": torch.full((2, 3), torch.nan)}])
def test_what_is_no_direction_is_refused_by_name(tensors, tmp_path):
    store.write_safetensors(tmp_path / "attn.safetensors", tensors, {})
    with pytest.raises(InputError, match="holds no finite tensor"):
        store.read_direction(tmp_path / "attn.safetensors")
