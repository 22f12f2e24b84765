"""A checkpoint with wider heads computes what the one it was made from computes."""

import json

import pytest
import torch
from test_export_steered import VARIANTS, load, outputs, save

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


WINDOW = {"use_sliding_window": True, "sliding_window": 8}


@pytest.mark.parametrize("variant, more", [("qwen3", {}), ("qwen2", WINDOW), ("mistral", {"sliding_window": 8})])
def test_what_would_compute_something_else_is_refused(variant, more, tmp_path):
    base = save(tmp_path / "base", variant)
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    (base / "config.json").write_text(json.dumps(config | more), encoding="utf-8")
    with pytest.raises(InputError, match="--engine hf"):
        widen_heads(base, tmp_path / "wide", 2)
    assert not (tmp_path / "wide").exists()
