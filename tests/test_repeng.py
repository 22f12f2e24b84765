"""Against repeng itself, the package as published: its vectors, its arithmetic, its files."""

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from thinksteer import contrast, models
from thinksteer.activations import entries_of, span_states
from thinksteer.components import component, signed
from thinksteer.exchange import combine, read, write_gguf
from thinksteer.records import Edit
from thinksteer.steering import applied
from thinksteer.thinking import Reader

LAYERS = [0, 1, 2, 3, 4]  # of block 5 repeng reads what is behind the final norm
KINDS = {"pca_diff_centred": "pca_diff", "pca_center": "pca_center"}  # ours: repeng's name


@pytest.fixture(scope="module")
def repeng():
    """repeng 0.4.0 mentions in an annotation a name of float64 that numpy 2 dropped; nothing else of it is changed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np, "float_", np.float64, raising=False)
        yield pytest.importorskip("repeng", reason="pip install --no-deps repeng==0.4.0")


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(models.TINY_REASONER, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def asked():
    """Pairs of the set `effort`, and the tokenizer."""
    ref = models.resolve("tiny-reasoner", Path())
    tokenizer = models.load_tokenizer(ref)
    reader = Reader.of(ref.template, tokenizer)
    written = contrast.written_suffixes("reasoning", ref.template, lambda text: tokenizer(text).input_ids)
    prompts = contrast.prompts(contrast.texts("effort"), ref.template, reader)
    return contrast.draw(prompts, [written], 60, 0), tokenizer


@pytest.fixture(scope="module")
def trained(repeng, model, asked):
    """repeng's vectors by its name of the method, made of the same texts."""
    pairs, tokenizer = asked
    texts = [tokenizer.decode(one.ids, skip_special_tokens=False) for one in contrast.passages(pairs)]
    assert [tuple(tokenizer(text).input_ids) for text in texts] == [one.ids for one in contrast.passages(pairs)]
    entries = [repeng.DatasetEntry(*sides) for sides in zip(texts[0::2], texts[1::2], strict=True)]
    return {
        name: repeng.ControlVector.train(model, tokenizer, entries, hidden_layers=LAYERS, method=name)
        for name in KINDS.values()
    }


@pytest.mark.parametrize("ours, theirs", KINDS.items())
def test_our_vectors_of_the_same_texts_are_repengs_sign_and_all(ours, theirs, trained, model, asked):
    states = entries_of(span_states(model, contrast.passages(asked[0]), "block_out", 4000)[0], "block_out").double()
    differences = (states[0::2] - states[1::2])[:, LAYERS]
    found = signed(component(differences, ours).vectors, differences)
    assert list(trained[theirs].directions) == LAYERS
    for layer, vector in trained[theirs].directions.items():
        assert vector.dtype == np.float32
        np.testing.assert_allclose(found[layer].numpy(), vector, atol=2e-4)


def test_repengs_own_two_methods_are_not_the_same_vector(trained):
    first, second = (trained[name].directions for name in KINDS.values())
    assert min(abs(float(first[layer] @ second[layer])) for layer in LAYERS) < 0.999


def test_a_file_of_repengs_is_read_here_to_the_bit(trained, tmp_path):
    vector = trained["pca_diff"]
    vector.export_gguf(tmp_path / "theirs.gguf")
    rows = read(tmp_path / "theirs.gguf").rows
    assert {index: row.numpy().tobytes() for index, row in rows.items()} == {
        index: row.tobytes() for index, row in vector.directions.items()
    }


def test_a_file_of_ours_is_read_by_repeng_and_by_the_gguf_package_to_the_bit(repeng, trained, tmp_path):
    rows = {index: torch.tensor(row) for index, row in trained["pca_center"].directions.items() if index}
    write_gguf(tmp_path / "ours.gguf", rows, {"model_hint": "qwen2"})
    wanted = {index: row.numpy().tobytes() for index, row in rows.items()}
    found = repeng.ControlVector.import_gguf(tmp_path / "ours.gguf")
    assert found.model_type == "qwen2"
    assert {index: row.tobytes() for index, row in found.directions.items()} == wanted
    tensors = gguf.GGUFReader(tmp_path / "ours.gguf").tensors
    assert {int(one.name.split(".")[1]): one.data.tobytes() for one in tensors} == wanted
    assert {one.tensor_type for one in tensors} == {gguf.GGMLQuantizationType.F32}
    found.export_gguf(tmp_path / "again.gguf")
    assert {index: row.numpy().tobytes() for index, row in read(tmp_path / "again.gguf").rows.items()} == wanted


def test_sums_differences_and_multiples_are_repengs_to_the_bit(trained, tmp_path):
    first, second = (trained[name] for name in KINDS.values())
    for name, vector in (("a", first), ("b", second)):
        vector.export_gguf(tmp_path / f"{name}.gguf")
    ours = [read(tmp_path / f"{name}.gguf") for name in "ab"]
    for wanted, coefficients in (
        (first + second, (1, 1)),
        (first - second, (1, -1)),
        (first * 0.3 + second * -0.7, (0.3, -0.7)),
        (-first - second / 3, (-1, -1 / 3)),
    ):
        found = combine(ours, coefficients, (6, 128))
        assert {layer: found[layer].numpy().tobytes() for layer in LAYERS} == {
            layer: np.float32(row).tobytes() for layer, row in wanted.directions.items()
        }


def test_repengs_model_steered_with_a_file_of_ours_puts_out_what_ours_does(repeng, model, asked, trained, tmp_path):
    """The same block, sign and length: what repeng adds with its own hooks."""
    rows = {index: torch.tensor(row) for index, row in trained["pca_center"].directions.items()}
    write_gguf(tmp_path / "ours.gguf", rows, {"model_hint": "qwen2"})
    ids = torch.tensor([asked[0][0].positive])
    vectors = torch.zeros(6, 128)
    vectors[LAYERS] = torch.stack([rows[layer] for layer in LAYERS])
    with torch.no_grad(), applied(model, [Edit("block_out", vectors, (2, 3), 4.0)]):
        wanted = model(ids).logits
    steered = repeng.ControlModel(model, [2, 3])
    try:
        steered.set_control(repeng.ControlVector.import_gguf(tmp_path / "ours.gguf"), 4.0)
        with torch.no_grad():
            found = steered(ids).logits
    finally:
        steered.unwrap()
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-4)
    assert (found - model(ids).logits).abs().max() > 1
