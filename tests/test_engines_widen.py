"""A checkpoint with wider heads computes what the one it was made from computes."""

import json

import pytest
import torch
from conftest import STORAGE, store_as
from safetensors.torch import load_file, save_file
from test_export_steered import VARIANTS, load, outputs, save
from transformers import AutoModelForCausalLM

from thinksteer.engines.widen import widen_heads
from thinksteer.records import InputError

WIDENED = [name for name in VARIANTS if not name.startswith("qwen3")]


@pytest.mark.parametrize("times", [2, 4])
@pytest.mark.parametrize("variant", WIDENED)
def test_logits_and_tokens_stay_the_same(variant, times, tmp_path):
    base = save(tmp_path / "base", variant, shard="20KB" if times == 2 else "1GB")
    widen_heads(base, tmp_path / "wide", times)
    (wanted, tokens), (found, own) = outputs(load(base)), outputs(model := load(tmp_path / "wide"))
    # The square root of 2 is not a float: queries are a rounding error off.
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-9)
    assert torch.equal(own, tokens)
    narrow = load(base).model.layers[0].self_attn.o_proj.in_features
    assert model.model.layers[0].self_attn.o_proj.in_features == times * narrow


@pytest.mark.parametrize("sharded", [False, True], ids=["single", "sharded"])
@pytest.mark.parametrize("form", STORAGE)
@pytest.mark.parametrize("variant", ["llama", "qwen2"])
def test_tied_and_untied_embeddings_load_as_those_of_the_base_model(variant, form, sharded, tmp_path):
    base = save(tmp_path / "base", variant, tied=STORAGE[form][1])
    store_as(base, form, sharded)
    widen_heads(base, tmp_path / "wide", 2)
    torch.testing.assert_close(outputs(load(tmp_path / "wide"))[0], outputs(load(base))[0], rtol=0, atol=1e-9)


def test_weights_that_are_not_the_checkpoints_are_left_out_and_added_biases_have_its_dtype(tmp_path):
    base = save(tmp_path / "base", "qwen2")
    AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).save_pretrained(base)
    store_as(base, "untied", sharded=True)
    other = {"model.norm.weight": torch.full((32,), 9.0), "tok_embeddings.weight": torch.ones(2)}
    for name in ("consolidated.safetensors", "model-00001-of-00003.safetensors"):  # Mistral's own form, an older copy
        save_file(other, base / name)
    widen_heads(base, tmp_path / "wide", 2)
    wide = load_file(tmp_path / "wide" / "model.safetensors")
    assert "tok_embeddings.weight" not in wide and wide["model.norm.weight"].max() == 1
    assert wide["model.layers.2.self_attn.o_proj.bias"].dtype == torch.bfloat16
    torch.testing.assert_close(outputs(load(tmp_path / "wide"))[0], outputs(load(base))[0], rtol=0, atol=1e-4)


WINDOW = {"use_sliding_window": True, "sliding_window": 8}


@pytest.mark.parametrize("variant, more", [("qwen3", {}), ("qwen2", WINDOW), ("mistral", {"sliding_window": 8})])
def test_what_would_compute_something_else_is_refused(variant, more, tmp_path):
    base = save(tmp_path / "base", variant)
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    (base / "config.json").write_text(json.dumps(config | more), encoding="utf-8")
    with pytest.raises(InputError, match="--engine hf"):
        widen_heads(base, tmp_path / "wide", 2)
    assert not (tmp_path / "wide").exists()
