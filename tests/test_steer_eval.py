"""Stage 3 with directions of one layer at some tokens, penalties, and layers by either numbering."""

import re

import pytest
import torch
from test_stages import ASKED, MODEL, fail, run

from thinksteer import models, store
from thinksteer.methods import METHODS
from thinksteer.thinking import Reader

DATASET = "arithmetic"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Artifacts of stages 1 and 2 for all controls that label thoughts."""
    root = tmp_path_factory.mktemp("artifacts")
    run("generate_responses.py", "--artifacts", root, "--n_questions", 150, "--max_length", 300)
    seal = [name for name in METHODS if name.startswith("seal")]
    run("extract_directions.py", "--artifacts", root, "--control", *seal, "--min_examples", 1)
    return root


def steer(root, *flags):
    return run("steer_eval.py", "--artifacts", root, *ASKED, *flags)


def records(root, name, weight, layer=None):
    found = store.read_records(store.steering_path(root, MODEL, DATASET, name, weight, layer))
    return {record.id: record for record in found}


def test_one_pass_serves_the_variants_of_a_method_and_they_add_up(root):
    direction = {
        name: store.read_direction(store.direction_path(root, MODEL, name)) for name in METHODS if "seal" in name
    }
    about = store.read_safetensors(store.direction_path(root, MODEL, "seal"))[1]
    n_reflection, n_transition = int(about["n_reflection"]), int(about["n_transition"])
    pooled = n_reflection * direction["seal_reflection"] + n_transition * direction["seal_transition"]
    torch.testing.assert_close(direction["seal"], pooled / (n_reflection + n_transition), rtol=1e-4, atol=1e-4)
    assert about["read_site"] == "block_out" and int(about["n_execution"]) > n_reflection


def test_a_direction_acts_once_per_blank_line_of_the_thinking_in_its_papers_layer(root):
    out = steer(root, "--control", "seal", "--direction_weight", 0, 1.5)
    assert "layer 3" in out
    plain, steered = records(root, "seal", 0.0), records(root, "seal", 1.5, 3)
    ref = models.resolve(MODEL, root)
    reader = Reader.of(ref.template, models.load_tokenizer(ref))
    breaks = reader.tokens_with(["\n\n"])
    for record in steered.values():
        ids, inside = reader.inside(record)
        assert record.steered_positions == sum(ids[place] in breaks for place in inside)
    assert sum(record.steered_positions for record in plain.values()) == 0
    assert sum(steered[id].token_ids != plain[id].token_ids for id in plain) > 3
    assert {record.level for record in plain.values()} == {"4 days", "5 days", "6 days"}


def test_either_numbering_names_the_same_layer(root):
    numbered = ("--layer_numbering", "hidden_states")
    steer(root, "--control", "seal", "--direction_weight", 2, "--layer", 3, *numbered, "--name", "one")
    steer(root, "--control", "seal", "--direction_weight", 2, "--layer", 2, "--name", "other")
    one, other = (records(root, name, 2.0, 2) for name in ("one", "other"))
    assert {id: record.token_ids for id, record in one.items()} == {id: other[id].token_ids for id in other}
    flags = ("--artifacts", root, *ASKED, "--control", "seal")
    assert "hidden_states to steer are 1 to 6" in fail("steer_eval.py", *flags, "--layer", 0, *numbered)
    assert "blocks to steer are 0 to 5" in fail("steer_eval.py", *flags, "--layer", 6)


def test_no_steering_is_run_once_for_all_layers(root):
    out = steer(root, "--control", "seal_sum", "--direction_weight", 0, 1, "--layer", 1, 4)
    assert re.findall(r"seal_sum: weight (.+)", out) == ["0", "1, layer 1", "1, layer 4"]
    points = store.read_json(store.steering_summary_path(root, MODEL, DATASET, "seal_sum"))["points"]
    assert {(point["weight"], point["layer"]) for point in points} == {(0.0, None), (1.0, 1), (1.0, 4)}
    assert all(point["accuracy_change"] for point in points if point["weight"])


def test_a_direction_of_another_name_is_steered_as_its_control_is(root):
    flags = ("--control", "seal_reflection", "--min_examples", 1, "--name", "from-few", "--n_correct", 40)
    run("extract_directions.py", "--artifacts", root, *flags)
    steer(root, "--control", "seal_reflection", "--direction", "from-few", "--direction_weight", 1.5)
    assert any(record.steered_positions for record in records(root, "from-few", 1.5, 3).values())
    assert "--name go with one --control" in fail(
        "steer_eval.py", "--artifacts", root, "--control", "seal", "seal_sum", "--name", "x"
    )


def test_a_random_direction_acts_at_the_same_places(root):
    steer(root, "--control", "seal", "--control_direction", "random", "--control_seed", 1, "--direction_weight", 1.5)
    settings = store.run_settings(store.steering_path(root, MODEL, DATASET, "seal.random1", 1.5, 3))
    assert (settings["control"], settings["method"]) == ("seal.random1", "seal")


def test_a_penalty_keeps_its_words_away_and_says_for_how_long(root):
    steer(root, "--control", "seal_penalty", "--direction_weight", 0, -50)
    steer(root, "--control", "seal_penalty", "--direction_weight", -50, "--first_tokens", 30, "--name", "at-first")
    plain, never, later = (
        sum("Wait" in record.response or "Alternatively" in record.response for record in found.values())
        for found in (
            records(root, "seal_penalty", 0.0),
            records(root, "seal_penalty", -50.0),
            records(root, "at-first", -50.0),
        )
    )
    assert plain >= later > never == 0
    settings = store.run_settings(store.steering_path(root, MODEL, DATASET, "at-first", -50.0, None))
    assert settings["first_tokens"] == 30 and settings["words"] == ["wait", "alternatively"]


def test_a_layer_without_a_vector_is_an_error_and_not_no_steering(root):
    path = store.direction_path(root, MODEL, "one-layer")
    direction = store.read_direction(store.direction_path(root, MODEL, "seal"))
    direction[:3] = 0
    store.write_safetensors(path, {"direction": direction}, {"method": "seal"})
    flags = ("--artifacts", root, *ASKED, "--control", "seal", "--direction", "one-layer")
    assert "has no vector for layer 2" in fail("steer_eval.py", *flags, "--layer", 2, "--direction_weight", 1)
    out = steer(root, *flags[-4:], "--layer", "each", "--direction_weight", 1)
    assert re.findall(r"one-layer: weight 1, layer (.)", out) == ["3", "4", "5"]


def test_several_layers_together_share_the_weight(root):
    direction = store.read_direction(store.direction_path(root, MODEL, "seal")) / 4
    shared = torch.zeros_like(direction)
    shared[[1, 4]] = direction[[1, 4]] / 2
    for name, vectors in (("whole", direction), ("shared", shared)):
        store.write_safetensors(store.direction_path(root, MODEL, name), {"direction": vectors}, {"method": "seal"})
    steer(root, "--control", "thinking_length_mlp", "--direction", "shared", "--direction_weight", 0, 1)
    flags = ("--control", "thinking_length_mlp", "--direction", "whole", "--layer", 1, 4, "--together")
    assert "weight 1, layers 1, 4, 1/2 each" in steer(root, *flags, "--direction_weight", 0, 1)
    one, other = records(root, "shared", 1.0), records(root, "whole.layers1+4", 1.0)
    assert {id: record.token_ids for id, record in one.items()} == {id: other[id].token_ids for id in other}
    plain = records(root, "shared", 0.0)
    assert sum(one[id].token_ids != plain[id].token_ids for id in one) > 3
    assert store.read_json(store.steering_summary_path(root, MODEL, DATASET, "whole.layers1+4"))["layers"] == [1, 4]
    steer(root, *flags, "--direction_weight", 1, "--control_direction", "random")
    assert records(root, "whole.layers1+4.random0", 1.0)


def test_the_strongest_layer_is_read_from_its_file(root):
    path = store.layer_effects_path(root, MODEL, DATASET, "seal")
    store.write_json(path, {"strongest": 2})
    flags = ("--control", "seal", "--name", "by-effect")
    steer(root, *flags, "--direction_weight", 0)
    steer(root, *flags, "--direction_weight", 0, 2.5, "--layer", "strongest")  # no steering is no other one by then
    assert records(root, "by-effect", 2.5, 2)
    inputs = store.manifest_of(store.steering_path(root, MODEL, DATASET, "by-effect", 2.5, 2))["inputs"]
    assert f"layers/{MODEL}/{DATASET}.seal.json" in inputs
    flags = ("--artifacts", root, *ASKED, "--control", "seal_sum", "--layer", "strongest")
    assert "scripts.layer_effects" in fail("steer_eval.py", *flags, "--direction_weight", 1)


def test_flags_of_directions_and_of_penalties_are_not_mixed():
    assert "go with penalties" in fail("steer_eval.py", "--control", "seal", "--words", "wait")
    assert "--together goes with --layer" in fail("steer_eval.py", "--control", "seal", "--together")
    assert "a penalty has none" in fail("steer_eval.py", "--control", "seal_penalty", "--layer", "3")
