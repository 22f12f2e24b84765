"""The script on the embedded model, against log-probabilities by a forward pass of its own at each fork."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from thinksteer import models, store
from thinksteer.arithmetic import FORCED_ANSWER
from thinksteer.records import EVERYWHERE, Edit, InputError
from thinksteer.resteer import edits_of
from thinksteer.steering import applied
from thinksteer.thinking import Reader
from thinksteer.trajectories import read_trajectories

ROOT = Path(__file__).parent.parent
MODEL, DATASET, CONTROL = "tiny-reasoner", "arithmetic", "thinking_length_attn"
SUFFIX = FORCED_ANSWER.partition("</think>")[2] + r"\boxed{"
ASKED = ("--n_questions", "6", "--max_length", "150")
FLAGS = ("--choices", "10-59", "--suffix", SUFFIX.replace("\n", r"\n"), "--every", "16")


def call(root, script, *flags):
    """A stage or script in this process; what it exits with."""
    argv = [script, "--artifacts", root, *flags]
    place = ROOT / (f"scripts/{script}.py" if (ROOT / "scripts" / f"{script}.py").exists() else f"{script}.py")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as found:
        patch.setattr(sys, "argv", list(map(str, argv)))
        runpy.run_path(str(place), run_name="__main__")
    return found.value.code


def log_probs(engine_model, ids, answers, edits=()):
    """Natural-log probabilities `[answers]` of token sequences, all of one length, after the ids: without a cache."""
    rows = torch.tensor([[*ids, *answer] for answer in answers])
    with torch.inference_mode(), applied(engine_model, edits):
        steps = engine_model(rows).logits[:, len(ids) - 1 : -1].double().log_softmax(-1)  # [answers, tokens, V]
    return steps.gather(2, rows[:, len(ids) :, None]).sum(dim=(1, 2)).numpy()


@pytest.fixture(scope="module")
def ref(tmp_path_factory):
    return models.resolve(MODEL, tmp_path_factory.mktemp("none"))


@pytest.fixture(scope="module")
def model(ref):
    return models.load_model(ref, "cpu", "float32")


@pytest.fixture(scope="module")
def tokenizer(ref):
    return models.load_tokenizer(ref)


@pytest.fixture(scope="module")
def root(tmp_path_factory, model):
    """Artifacts: responses, a random direction, responses steered with it, all of them probed."""
    root = tmp_path_factory.mktemp("artifacts")
    width = model.config.hidden_size, model.config.num_hidden_layers
    vectors = torch.randn(width[1], width[0], generator=torch.Generator().manual_seed(0)) / width[0] ** 0.5
    store.write_safetensors(store.direction_path(root, MODEL, CONTROL), {"direction": vectors}, {"method": CONTROL})
    assert call(root, "generate_responses", *ASKED) == 0
    assert call(root, "steer_eval", *ASKED, "--direction_weight", 0, 1.5) == 0
    random = ("--control_direction", "random", "--control_seed", 0, "--layer", 2, 4, "--together", "--scale", "unit")
    assert call(root, "steer_eval", *ASKED, "--direction_weight", 2, *random) == 0
    steered = sorted((root / "steering").rglob("*.jsonl"))
    assert len(steered) == 3 and call(root, "track_confidence", *FLAGS) == 0
    assert call(root, "track_confidence", *steered, *FLAGS) == 0
    return root


def file_of(root, weight=None, control=CONTROL):
    if weight is None:
        return store.responses_path(root, MODEL, DATASET)
    return store.steering_path(root, MODEL, DATASET, control, weight, None)


def check(root, file, model, tokenizer, edits=(), unsteered=False):
    """Three places of the first chain of a confidence file against the reference."""
    records = {record.id: record for record in store.read_records(file)}
    answers = [tuple(tokenizer(f"{n}}}", add_special_tokens=False).input_ids) for n in range(10, 60)]
    ref_reader = Reader.of(models.resolve(MODEL, root).template, tokenizer)
    found = read_trajectories(store.confidence_path(root, file, unsteered))
    assert len(found) == 6
    for one in found[:1]:
        record = records[one.id]
        opening, closing = (
            record.token_ids.index(tokenizer.convert_tokens_to_ids(mark)) for mark in ("<think>", "</think>")
        )
        assert one.thinking_end == one.at[-1] == closing + 1 and one.choice == record.reference
        for place in (1, -2, -1):
            at = one.at[place]
            tail = ("\n</think>" if opening < at <= closing else "") + SUFFIX
            ids = ref_reader.encode(record.prompt) + record.token_ids[:at]
            ids += tuple(tokenizer(tail, add_special_tokens=False).input_ids)
            wanted = log_probs(model, ids, answers, edits)
            right = int(record.reference) - 10
            odds = wanted[right] - np.log(np.exp(np.delete(wanted, right)).sum())
            assert one.log_odds[place] == pytest.approx(odds, abs=2e-3)
            assert one.mass[place] == pytest.approx(np.exp(wanted).sum(), abs=1e-3)
            assert one.likeliest[place] == str(10 + int(wanted.argmax()))


def test_values_are_those_of_a_forward_pass_at_each_place(root, model, tokenizer):
    check(root, file_of(root), model, tokenizer)


def test_steered_chains_are_probed_under_the_steering_that_made_them(root, model, tokenizer):
    vectors = store.read_direction(store.direction_path(root, MODEL, CONTROL))
    edit = Edit("attn_out", vectors, tuple(range(len(vectors))), 1.5, EVERYWHERE)
    check(root, file_of(root, 1.5), model, tokenizer, [edit])
    check(root, file_of(root, 0.0), model, tokenizer)


def test_a_random_direction_of_some_layers_together_is_restored_from_the_manifest(root, tokenizer):
    (file,) = (root / "steering").rglob("*layers2+4*/2.0.jsonl")
    reader = Reader.of(models.resolve(MODEL, root).template, tokenizer)
    source, (edit,) = edits_of(root, MODEL, file, reader)
    assert source == store.direction_path(root, MODEL, CONTROL)
    assert (edit.coef, edit.layers, edit.site, edit.operation) == (1.0, (2, 4), "attn_out", "add")
    assert edit.vectors.norm(dim=-1).tolist() == pytest.approx([1] * len(edit.vectors), rel=1e-5)
    real = store.read_direction(source)
    assert torch.cosine_similarity(edit.vectors, real).abs().max() < 0.5


def test_unsteered_probes_read_the_steered_chains_with_the_plain_model(root, model, tokenizer):
    assert call(root, "track_confidence", file_of(root, 1.5), *FLAGS, "--unsteered") == 0
    check(root, file_of(root, 1.5), model, tokenizer, unsteered=True)
    assert call(root, "track_confidence", file_of(root, 1.5), *FLAGS) == 0  # sums up again, and leaves that file out
    folder = store.confidence_path(root, file_of(root, 1.5)).parent
    points = store.read_json(folder / "summary.json")["sweeps"][0]["points"]
    assert [point["weight"] for point in points] == [0.0, 1.5]


def test_beside_each_file_are_its_numbers_its_figures_and_its_page(root):
    output = store.confidence_path(root, file_of(root))
    about = store.read_json(output.with_name("arithmetic.summary.json"))
    assert about["counts"]["chains"] == 6 and about["by_share"][-1]["place"] == 1
    for name in ("trajectories", "exits", "reliability"):
        assert output.with_name(f"arithmetic.{name}.png").read_bytes().startswith(b"\x89PNG")
    page = output.with_name("arithmetic.html").read_text(encoding="utf-8")
    assert f"<h1>Answer confidence: {MODEL}/{DATASET}</h1>" in page
    assert page.count("<pre>") == 6 and "&lt;think&gt;" in page and "<think>" not in page
    manifest = store.read_json(store.manifest_path(output))
    assert manifest["settings"]["choices"][:2] == ["10", "11"] and manifest["finished"]
    assert "responses/tiny-reasoner/arithmetic.jsonl" in manifest["inputs"]


def test_a_sweep_compares_its_weights(root):
    folder = store.confidence_path(root, file_of(root, 1.5)).parent
    (sweep,) = store.read_json(folder / "summary.json")["sweeps"]
    assert [point["weight"] for point in sweep["points"]] == [0.0, 1.5]
    zero, other = sweep["points"]
    assert (
        zero["score"]["change"] is None
        and other["score"]["change"]["value"] != 0
        and "pearson" in sweep["correlations"]
    )
    for name in ("summary", "trajectories", "exits"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_the_report_shows_it(root):
    assert call(root, "analyze_results") == 0
    text = (store.reports_path(root) / "report.html").read_text(encoding="utf-8")
    assert "Answer confidence of tiny-reasoner" in text
    assert f"<figcaption>{DATASET}/{CONTROL}/summary<" in text and "tiny-reasoner/arithmetic.exits<" in text


def test_it_goes_on_where_it_stopped(root):
    output = store.confidence_path(root, file_of(root))
    whole = read_trajectories(output)
    output.write_bytes(b"".join(output.read_bytes().splitlines(keepends=True)[:2]))
    manifest = store.manifest_path(output)
    store.write_json(manifest, store.read_json(manifest) | {"finished": None})
    assert call(root, "track_confidence", *FLAGS) == 0
    again = read_trajectories(output)
    assert [one.id for one in again] == [one.id for one in whole]
    for one, before in zip(again, whole, strict=True):
        assert one.log_odds == pytest.approx(before.log_odds, abs=1e-3)


def test_what_cannot_be_steered_again_is_refused_in_words(root, tokenizer, tmp_path):
    reader = Reader.of(models.resolve(MODEL, root).template, tokenizer)
    file, manifest = file_of(root, 1.5), store.manifest_path(file_of(root, 1.5))
    facts = store.read_json(manifest)
    try:
        for change, message in (
            ({"method": "seal_penalty"}, "changes logits"),
            ({"direction": "another"}, r"another\.safetensors is not what"),
        ):
            store.write_json(manifest, facts | {"settings": facts["settings"] | change})
            with pytest.raises(InputError, match=message):
                edits_of(root, MODEL, file, reader)
        old = {name: value for name, value in facts["settings"].items() if name != "direction"}
        store.write_json(manifest, facts | {"settings": old})
        with pytest.raises(InputError, match="does not say how its direction was applied"):
            edits_of(root, MODEL, file, reader)
        inputs = dict.fromkeys(facts["inputs"], "0")
        store.write_json(manifest, facts | {"inputs": inputs})
        with pytest.raises(InputError, match="is not what"):
            edits_of(root, MODEL, file, reader)
    finally:
        store.write_json(manifest, facts)


def test_records_of_another_model_are_refused(root, capsys):
    manifest = store.manifest_path(file_of(root))
    facts = store.read_json(manifest)
    try:
        store.write_json(manifest, facts | {"settings": facts["settings"] | {"model": "other"}})
        assert call(root, "track_confidence", *FLAGS) == 2
    finally:
        store.write_json(manifest, facts)
    assert "holds responses of other: give --model other" in capsys.readouterr().err
