"""The script of control vectors on the embedded model: what it reads, writes and refuses, and steering with it."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic import record
from transformers import AutoModelForCausalLM

import extract_directions
import steer_eval
from scripts import class_statistics, control_vectors, hidden_states, import_vector, layer_effects, separate_classes
from scripts.control_vectors import chosen_layers
from thinksteer import models, store
from thinksteer.contrast import passages
from thinksteer.contrast_figures import contrast_figure
from thinksteer.methods import METHODS
from thinksteer.records import EVERYWHERE, InputError

MODEL = "tiny-reasoner"
SMALL = ("--pairs", "effort", "--suffixes", "reasoning", "--n_pairs", 24)
METHOD = METHODS["control_vector"]


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Runs a script with flags on artifacts of its own; returns what it prints."""

    def run(script, *flags):
        monkeypatch.setattr(sys, "argv", ["script", *map(str, flags), "--artifacts", str(tmp_path)])
        script.main()
        return capsys.readouterr().out

    return run


def made(root, name="effort"):
    """Tensors, metadata and what was found."""
    found = store.read_safetensors(store.direction_path(root, MODEL, name))
    return *found, store.read_json(store.contrast_path(root, MODEL, name))


def pairs(root, monkeypatch, *flags):
    monkeypatch.setattr(sys, "argv", ["script", *map(str, flags), "--artifacts", str(root)])
    return control_vectors.pairs_of(control_vectors.parse_args(), models.resolve(MODEL, root))


def last_states(ones):
    """HF's hidden states at the last token `[N, L + 1, D]`, float64, without the final norm and without hooks."""
    model = AutoModelForCausalLM.from_pretrained(models.TINY_REASONER, dtype=torch.float32)
    model.model.norm = torch.nn.Identity()
    with torch.no_grad():
        states = [model(torch.tensor([one.ids]), output_hidden_states=True).hidden_states for one in ones]
    return np.array([[layer[0, -1].double().numpy() for layer in one] for one in states])


def test_the_vectors_are_those_of_what_the_blocks_put_out_at_the_last_token(call, tmp_path, monkeypatch):
    printed = call(control_vectors, *SMALL, "--layers", "1-3")
    tensors, about, report = made(tmp_path)
    direction = tensors["direction"].double().numpy()
    seen, unseen = pairs(tmp_path, monkeypatch, *SMALL)
    states, other = last_states(passages(seen)), last_states(passages(unseen))
    assert direction.shape == (6, 128) and not direction[[0, 4, 5]].any()
    for row, layer in enumerate((1, 2, 3)):
        differences = states[0::2, layer + 1] - states[1::2, layer + 1]
        truth = np.linalg.svd(differences)[2][0]
        truth *= np.sign(np.sign(differences @ truth).sum())
        np.testing.assert_allclose(direction[layer], truth, atol=1e-5)
        one, mean = report["layers"][row], differences.mean(axis=0)
        assert one["layer"] == layer and one["right_side"] == (differences @ truth > 0).mean()
        held_out = (other[0::2, layer + 1] - other[1::2, layer + 1]) @ truth > 0
        assert one["held_out"] == held_out.mean()
        assert one["cosine"] == pytest.approx(mean @ truth / np.linalg.norm(mean), abs=1e-4)
        size = np.linalg.norm(mean) / np.linalg.norm(states[:, layer + 1].mean(axis=0))
        assert one["mean_difference"] == pytest.approx(size, rel=1e-4)
    norms = np.linalg.norm(states.mean(axis=0)[1:], axis=-1)
    np.testing.assert_allclose(tensors["overall_norm"], norms, rtol=1e-4)
    assert (report["n_pairs"], report["n_held_out"]) == (24, 6) == (int(about["n_positive"]), len(unseen))
    assert (about["method"], about["read_site"], about["vector"]) == ("control_vector", "block_out", "pca_diff")
    assert "layer 2: " in printed and "pca_diff of 24 pairs, judged by 6 of other suffixes" in printed
    loaded, _, said = printed.partition("\n")
    assert loaded == "tiny-reasoner: cpu (1 thread), float32"
    assert call(control_vectors, *SMALL, "--layers", "1-3") == said  # there is nothing left to do
    with pytest.raises(InputError, match="--overwrite"):
        call(control_vectors, *SMALL)


@pytest.mark.parametrize("vector", ["mean", "pca_weighted"])
def test_vectors_of_other_kinds_lead_to_the_positive_side_in_the_middle_of_the_model(vector, call, tmp_path):
    call(control_vectors, *SMALL, "--vector", vector, "--name", "v")
    tensors, _, report = made(tmp_path, "v")
    assert [bool(row.any()) for row in tensors["direction"]] == [False, False, True, True, False, False]
    torch.testing.assert_close(tensors["direction"][2:4].norm(dim=-1), torch.ones(2))
    assert all(one["right_side"] >= 0.5 for one in report["layers"])
    assert store.figure_path(store.contrast_path(tmp_path, MODEL, "v")).read_bytes()[:4] == b"\x89PNG"


def test_own_suffixes_come_from_the_responses_and_a_file_of_pairs_names_the_vector(call, tmp_path, monkeypatch):
    ids = (5, 205, 605, 32, 227, 24, 23, 19, 27, 35, 23, 28, 20, 205, 6, 619, 618, 97, 23, 29, 99, 2)
    asked = "<｜User｜>How many cookies now?<｜Assistant｜>"
    changes = {"prompt": asked, "token_ids": ids, "thinking_tokens": 15}
    responses = store.responses_path(tmp_path, MODEL, "arithmetic")
    with store.run(responses, {}, [], False), store.RecordLog(responses) as log:
        for index in range(5):
            log.append(replace(record(f"q{index}"), **changes | {"token_ids": (*ids[:5], 22 + index, *ids[6:])}))
    file = tmp_path / "things.json"
    file.write_text(json.dumps({"frames": ["Tom has 3 {}."], "fillings": [["coins", "stickers"]]}), encoding="utf-8")
    flags = ("--pairs_file", file, "--suffixes", "own", "--n_pairs", 0)
    seen, unseen = pairs(tmp_path, monkeypatch, *flags)
    beginnings = {(*ids[:5], 22 + index, *ids[6:])[:stop] for index in range(5) for stop in range(2, 15)}
    assert {one.suffix for one in seen} | {one.suffix for one in unseen} <= beginnings
    assert {one.suffix[:6] for one in unseen if len(one.suffix) > 5} == {(*ids[:5], 26)}
    call(control_vectors, *flags)
    assert made(tmp_path, "things")[1]["pairs"] == "file"
    manifest = store.read_json(store.manifest_path(store.direction_path(tmp_path, MODEL, "things")))
    assert {store.sha256(file), store.sha256(responses)} <= set(manifest["inputs"].values())


@pytest.mark.parametrize(
    "text, depth, layers",
    [
        ("1/3-2/3", 6, [2, 3]),
        ("1/3-2/3", 28, list(range(9, 19))),
        ("0.25-0.75", 4, [1, 2]),
        ("0-1", 6, [0, 1]),
        ("0-1/1", 3, [0, 1, 2]),
        ("3", 6, [3]),
        ("2-5", 6, [2, 3, 4, 5]),
    ],
)
def test_layers_are_blocks_or_a_part_of_the_depth(text, depth, layers):
    assert chosen_layers(text, depth) == layers


@pytest.mark.parametrize("text", ["6", "2-6", "4-2", "", "x", "1-2-3", "-1", "0.5-1.5", "0.5-0.5", "1/0-1"])
def test_other_layers_are_refused(text):
    with pytest.raises(InputError, match=rf"--layers {text}: give blocks 0 to 5, such as 0-5, or a part of the depth"):
        chosen_layers(text, 6)


def test_it_is_added_to_every_tokens_block_outputs_in_all_layers():
    assert (METHOD.sites, METHOD.operation, METHOD.layer(28), METHOD.where(None)) == (
        ("block_out",),
        "add",
        None,
        EVERYWHERE,
    )
    assert METHOD.constant and METHOD.weights == (-1.0, -0.5, 0.0, 0.5, 1.0) and not METHOD.labels


def test_one_can_steer_with_it_also_at_random(call, tmp_path):
    call(control_vectors, *SMALL)
    flags = ("--control", "control_vector", "--direction", "effort", "--direction_weight", 0, 1)
    flags += ("--scale", "overall", "--n_questions", 6, "--max_length", 60, "--temperature", 0)
    texts = {}
    for more, name in (((), "effort.overall"), (("--control_direction", "random"), "effort.overall.random0")):
        call(steer_eval, *flags, *more)
        for weight in (0.0, 1.0):
            path = store.steering_path(tmp_path, MODEL, "arithmetic", name, weight, None)
            records = sorted(store.read_records(path), key=lambda one: one.id)
            texts[name, weight] = [one.response for one in records]
            assert all(bool(one.steered_positions) == bool(weight) for one in records)
    assert len(set(map(tuple, texts.values()))) == 3  # the two of weight 0 are alike


@pytest.mark.parametrize("script", [extract_directions, class_statistics, hidden_states, layer_effects])
def test_what_reads_responses_refuses_it_at_once(script, call, tmp_path):
    with pytest.raises(InputError, match=r"control_vector labels nothing .* by scripts\.control_vectors") as caught:
        call(script, "--control", "control_vector")
    assert "\n" not in str(caught.value) and not list(tmp_path.rglob("*.json"))


def test_a_probe_of_its_labels_is_not_offered(call, capsys):
    with pytest.raises(SystemExit):
        call(separate_classes, "--control", "control_vector")
    assert "invalid choice: 'control_vector'" in capsys.readouterr().err


def test_vectors_can_be_added_up_and_scaled_with_our_own_files(call, tmp_path):
    for name, seed in (("a", 0), ("b", 1)):
        call(control_vectors, *SMALL, "--name", name, "--seed", seed)
    first, second = (made(tmp_path, name)[0]["direction"] for name in "ab")
    files = [store.direction_path(tmp_path, MODEL, name) for name in "ab"]
    call(import_vector, *files, "--coefficients", 2, -0.5, "--name", "c", "--method", "control_vector")
    found, about = store.read_safetensors(store.direction_path(tmp_path, MODEL, "c"))
    assert torch.equal(found["direction"], 2 * first + -0.5 * second) and about["method"] == "control_vector"
    assert about["origin"] == "a.safetensors (direction), b.safetensors (direction)"
    call(import_vector, files[0], "--coefficients", -1, "--name", "d")
    assert torch.equal(store.read_direction(store.direction_path(tmp_path, MODEL, "d")), -first)


def test_the_figure_is_drawn_of_one_layer_and_of_many(tmp_path):
    names = ("layer", "mean_difference", "cosine", "explained", "right_side", "held_out")
    sizes = set()
    for count in (1, 9):
        contrast_figure([dict.fromkeys(names, 0.5) | {"layer": layer} for layer in range(count)], tmp_path / "f.png")
        sizes.add((tmp_path / "f.png").stat().st_size)
    assert len(sizes) == 2
