"""The script that measures layers, on the embedded model: what it chooses, writes, averages and says."""

from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO

import pytest
import torch
from test_classes import run

from scripts.layer_effects import by_layer, describe, main, summary
from thinksteer import models, store
from thinksteer.attribution import Effects, layer_effects
from thinksteer.directions import random_like
from thinksteer.methods import METHODS
from thinksteer.methods.seal import ThoughtRule
from thinksteer.records import InputError, Passage, Span
from thinksteer.thinking import Reader

MODEL, DATASET = "tiny-reasoner", "arithmetic"
FLAGS = ("--n_responses", 4, "--n_spans", 1, "--coef", 0.5, "--control_seeds", 4, 7)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("artifacts")
    run("generate_responses.py", "--artifacts", root, "--n_questions", 120, "--max_length", 300)
    flags = ("--control", "seal", "seal_reflection", "--min_examples", 1)
    run("extract_directions.py", "--artifacts", root, *flags)
    return root


def measure(root, *flags):
    """What the script prints."""
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as out:
        patch.setattr("sys.argv", ["layer_effects", "--artifacts", str(root), *map(str, flags)])
        main()
    return out.getvalue()


@pytest.fixture(scope="module")
def told(root):
    return measure(root, "--control", "seal", *FLAGS)


@pytest.fixture(scope="module")
def found(root, told):
    return store.read_json(store.layer_effects_path(root, MODEL, DATASET, "seal"))


def test_every_response_has_the_effects_of_its_chosen_spans(root, found):
    ref, method = models.resolve(MODEL, root), METHODS["seal"]
    reader = Reader.of(ref.template, models.load_tokenizer(ref))
    records = store.read_records(store.responses_path(root, MODEL, DATASET))
    passages = {(one.id, one.sample): one for one in method.passages(records, ThoughtRule(), reader)}
    vectors = 0.5 * store.read_direction(store.direction_path(root, MODEL, "seal"))
    controls = torch.stack([random_like(vectors, seed) for seed in (4, 7)])
    model = models.load_model(ref, "cpu")
    assert len(found["responses"]) == 4 and set(found["spans"]) <= {"reflection", "transition"}
    assert sum(found["spans"].values()) == sum(one["n_spans"] for one in found["responses"])
    numbers = set()
    for one in found["responses"]:
        passage = passages[one["id"], one["sample"]]
        others = tuple(span for span in passage.spans if span.label != "execution")
        assert one["n_spans"] == 1
        numbers.add(len(others))
        if len(others) == 1:
            alone = replace(passage, spans=others)
            truth = by_layer(layer_effects(model, alone, "block_out", vectors, controls, 4, 1000))
            for name, values in truth.items():
                assert one[name] == pytest.approx(values, rel=1e-3, abs=1e-5), name
    assert min(numbers) == 1 < max(numbers)  # of some the only one was taken, of some one of several


def test_the_means_are_over_responses_and_the_strongest_layer_exceeds_random_vectors_most(found):
    for one in found["layers"]:
        for name in ("kl", "random", "excess", "gradient", "integrated", "upstream", "signed_gradient"):
            values = [response[name][one["layer"]] for response in found["responses"]]
            assert one[name]["value"] == pytest.approx(sum(values) / 4) and one[name]["n"] == 4
            assert one[name]["low"] <= one[name]["value"] <= one[name]["high"]
        assert one["excess"]["value"] == pytest.approx(one["kl"]["value"] - one["random"]["value"])
    excess = [one["excess"]["value"] for one in found["layers"]]
    assert found["strongest"] == found["argmax"]["excess"] == excess.index(max(excess))
    assert found["integration_error"] < 0.05 and found["agreement"]["integrated"]["pearson"] > 0.99


def test_the_terminal_shows_every_layer_and_how_far_the_estimates_agree(told, found):
    assert describe(found) in told
    lines = told.splitlines()
    assert sum(line.split()[0].isdecimal() for line in lines if line.startswith("    ")) == len(found["layers"])
    assert any(line.startswith(f"strongest: layer {found['strongest']}") for line in lines)
    assert any(line.split()[:2] == ["gradient", "spearman"] for line in lines)


def test_a_finished_control_is_left_alone_and_several_share_a_figure(root, found):
    path = store.layer_effects_path(root, MODEL, DATASET, "seal")
    before = path.stat().st_mtime_ns
    assert not path.with_name("arithmetic.png").exists()
    measure(root, "--control", "seal", "seal_reflection", *FLAGS)
    assert path.stat().st_mtime_ns == before
    for name in ("arithmetic.seal.png", "arithmetic.seal_reflection.png", "arithmetic.png"):
        assert path.with_name(name).read_bytes().startswith(b"\x89PNG")
    manifest = store.read_json(store.manifest_path(path))
    assert manifest["finished"] and manifest["settings"]["control_seeds"] == [4, 7]
    assert any(name.endswith(f"directions/{MODEL}/seal.safetensors") for name in manifest["inputs"])


def test_other_settings_are_refused_and_a_missing_direction_is_named(root, found):
    with pytest.raises(InputError, match="made otherwise"):
        measure(root, "--control", "seal", *FLAGS[:-1])
    with pytest.raises(InputError, match=r"seal_sum\.safetensors"):
        measure(root, "--control", "seal_sum")


def effects(kl, random):
    """One span, two layers."""
    values = [torch.tensor([row]) for row in (kl, random, [-1.0, 1.0], kl, kl, kl, random)]
    return Effects(*values)


PASSAGES = [Passage(f"q{index}", (1, 2, 3), (Span("a", 1, 2),)) for index in range(3)]


def test_the_strongest_layer_is_not_that_where_any_vector_would_do():
    about = summary(PASSAGES, [effects([1.0, 5.0], [0.1, 4.9])] * 3) | {"spans": {"a": 3}}
    assert about["strongest"] == 0 and about["argmax"]["kl"] == 1
    assert "strongest: layer 0\n" in describe(about)
    weak = [effects([one, 0.0], [0.5, 0.5]) for one in (0.0, 0.4, 1.2)]
    weaker = [effects([0.1, 0.0], [0.5 + one, 0.5]) for one in (0.0, 0.1, 0.2)]
    for found in (weak, weaker):
        assert "no more than random" in describe(summary(PASSAGES, found) | {"spans": {"a": 3}})
    assert "no more" not in describe(
        summary(PASSAGES[:1], weak[:1]) | {"spans": {"a": 1}}
    )  # one response tells nothing


def test_gradients_are_averaged_by_size_and_with_their_sign():
    one = Effects(*[torch.ones(2, 1)] * 2, torch.tensor([[-3.0], [1.0]]), *[torch.ones(2, 1)] * 4)
    found = by_layer(one)
    assert found["gradient"] == [2] and found["signed_gradient"] == [-1]
