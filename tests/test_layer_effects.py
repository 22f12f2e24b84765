"""The script that measures layers, on the embedded model: what it chooses, writes, averages and says."""

from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO

import pytest
import torch
from test_classes import run
from test_probes import READER, said

from scripts.layer_effects import describe, main
from thinksteer import models, store
from thinksteer.attribution import layer_effects
from thinksteer.directions import random_like
from thinksteer.effect_means import by_layer
from thinksteer.methods import METHODS
from thinksteer.methods.seal import ThoughtRule
from thinksteer.probes import ANSWER, BEGINNING
from thinksteer.records import InputError
from thinksteer.thinking import Reader

MODEL, DATASET = "tiny-reasoner", "arithmetic"
KINDS = ("memory", "reasoning")
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


def test_a_distance_that_rounds_to_nothing_has_no_sign(found):
    first, *others = found["layers"]
    first = first | {"kl": first["kl"] | {"value": -1e-13, "low": -2e-13, "high": 1e-13}}
    said = describe(found | {"layers": [first, *others]})
    assert " 0.0000 [0.0000, 0.0000] " in said and "-0.0000" not in said


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


def test_a_recurrence_of_a_model_that_has_none_is_refused(root, tmp_path):
    for folder in ("responses", "directions"):
        (tmp_path / folder).symlink_to(root / folder)
    with pytest.raises(InputError, match="--mean_recurrence 2: tiny-reasoner is no recurrent-depth model"):
        measure(tmp_path, "--control", "seal", *FLAGS, "--mean_recurrence", 2)


@pytest.fixture(scope="module")
def by_kind(tmp_path_factory):
    """Of facts and sums that were answered at once; the vector is any."""
    root = tmp_path_factory.mktemp("artifacts")
    records = [said(f"{kind} {i}", f"It is \\boxed{{{i}}}.", str(i), kind) for kind in KINDS for i in range(10, 17)]
    path = store.responses_path(root, MODEL, "d")
    with store.run(path, {}, [], False), store.RecordLog(path) as log:
        for one in records:
            log.append(one)
    vectors = torch.randn(6, 128, generator=torch.Generator().manual_seed(3)) * (torch.arange(6) > 0)[:, None]
    path = store.direction_path(root, MODEL, "reasoning_memory")
    with store.run(path, {}, [], False):
        store.write_safetensors(path, {"direction": vectors}, {})
    out = measure(root, "--dataset", "d", "--control", "reasoning_memory", *FLAGS[:2], *FLAGS[4:])
    return root, out, store.read_json(store.layer_effects_path(root, MODEL, "d", "reasoning_memory"))


def test_a_direction_between_kinds_is_probed_before_response_and_answer_kind_by_kind(by_kind):
    root, out, found = by_kind
    assert found["spans"] == {
        f"{kind}, {place}": 4 for kind in ("memory", "reasoning") for place in (BEGINNING, ANSWER)
    }
    assert len({one["id"] for one in found["responses"]}) == 8
    ref, method = models.resolve(MODEL, root), METHODS["reasoning_memory"]
    records = store.read_records(store.responses_path(root, MODEL, "d"))
    passages = {one.id: one for one in method.probes(records, None, READER)}
    vectors = 0.5 * store.read_direction(store.direction_path(root, MODEL, "reasoning_memory"))
    controls = torch.stack([random_like(vectors, seed) for seed in (4, 7)])
    model = models.load_model(ref, "cpu")
    truth = {label: [] for label in found["labels"]}
    for one in found["responses"]:
        effects = layer_effects(model, passages[one["id"]], "block_in", vectors, controls, 4, 1000)
        for place, span in enumerate(passages[one["id"]].spans):
            truth[span.label].append([getattr(effects, name)[place] for name in ("kl", "random", "log_odds")])
    for label, layers in found["labels"].items():
        for place, name in enumerate(("kl", "random", "signed_log_odds")):
            means = torch.stack([one[place] for one in truth[label]]).mean(dim=0)
            assert [one[name]["value"] for one in layers] == pytest.approx(means.tolist(), rel=1e-3, abs=1e-5)
            assert all(one[name]["n"] == 4 and one[name]["low"] <= one[name]["high"] for one in layers)
        assert f"{label} (4): KL " in out
    assert found["site"] == "block_in" and found["layers"][0]["kl"]["value"] < 1e-6 < found["layers"][1]["kl"]["value"]
    path = store.layer_effects_path(root, MODEL, "d", "reasoning_memory")
    assert store.figure_path(path).read_bytes().startswith(b"\x89PNG")
