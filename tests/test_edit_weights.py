"""The weight edit on checkpoints of several families, sharded and in bfloat16, through the script that users run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import STORAGE, save_tokenizer, store_as
from huggingface_hub import ModelCard
from test_export_steered import load, outputs, save
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

import edit_weights
from thinksteer import models as known_models
from thinksteer import store
from thinksteer.steering import project_out
from thinksteer.thinking import Prompting

ROOT = Path(__file__).parent.parent
HEADS = [(0, 1), (2, 3), (2, 0)]


def save_checkpoint(model: PreTrainedModel, folder: Path, dtype: torch.dtype, shard: str) -> None:
    model.to(dtype).save_pretrained(folder, max_shard_size=shard)
    save_tokenizer(folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")


def edit(root: Path, source: Path, direction: torch.Tensor, *flags: str) -> Path:
    """Run stage 5 with HEADS; the edited folder."""
    key = source.name
    grid = [[0.0] * 4 for _ in range(3)]
    heads = [{"layer": layer, "head": head, "score": 1.0} for layer, head in HEADS]
    store.write_json(store.heads_path(root, key, "thinking_length_attn"), {"scores": grid, "heads": heads})
    about = {"dataset": "gsm8k"}
    store.write_safetensors(store.direction_path(root, key, "thinking_length_attn"), {"direction": direction}, about)
    command = [sys.executable, "edit_weights.py", "--model", source, "--template", "deepseek", "--artifacts", root]
    done = subprocess.run([*map(str, command), *flags], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return store.model_path(root, f"ThinkEdit-{key}")


@pytest.mark.parametrize("dtype, shard, left", [(torch.float32, "1GB", 1e-6), (torch.bfloat16, "20KB", 1e-2)])
def test_an_edited_checkpoint_reloads_with_only_its_heads_changed(model, dtype, shard, left, tmp_path):
    save_checkpoint(model, tmp_path / "base", dtype, shard)
    assert (tmp_path / "base" / "model.safetensors.index.json").exists() == (dtype == torch.bfloat16)
    direction = torch.randn(3, 32, generator=torch.Generator().manual_seed(5))
    edited = edit(tmp_path / "artifacts", tmp_path / "base", direction)

    before = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=dtype).state_dict()
    after = AutoModelForCausalLM.from_pretrained(edited, dtype=dtype).state_dict()
    head_dim = before["model.layers.0.self_attn.o_proj.weight"].shape[1] // 4
    for name, weight in before.items():
        changed = weight != after[name]
        if name.endswith("o_proj.weight"):
            layer = int(name.split(".")[2])
            toward = (direction[layer] / direction[layer].norm()).double()
            for head in range(4):
                block = slice(head * head_dim, (head + 1) * head_dim)
                if (layer, head) in HEADS:
                    old, new = weight[:, block].double(), after[name][:, block].double()
                    assert (toward @ new).norm() <= left * (toward @ old).norm()
                    plain = old - torch.outer(toward, toward @ old)
                    assert torch.allclose(new, plain, atol=1e-6 if dtype == torch.float32 else 4e-3)
                else:
                    assert not changed[:, block].any()
        else:
            assert not changed.any()

    report = json.loads((edited / "edit.json").read_text())
    assert [(head["layer"], head["head"]) for head in report["edited_heads"]] == HEADS
    assert all(head["after"] <= left * head["before"] for head in report["edited_heads"])
    assert report["base_model"] == "base"
    card = ModelCard.load(edited / "README.md").data
    assert (card.base_model, card.license, card.datasets) == ("base", "apache-2.0", ["openai/gsm8k"])


def test_controls_edit_as_many_other_heads_and_a_direction_of_their_own(model, tmp_path):
    save_checkpoint(model, tmp_path / "base", torch.float32, "1GB")
    direction = torch.randn(3, 32, generator=torch.Generator().manual_seed(5))
    root = tmp_path / "artifacts"
    heads = edit(root, tmp_path / "base", direction, "--control_heads", "random", "--seed", "3")
    drawn = [(one["layer"], one["head"]) for one in json.loads((heads / "edit.json").read_text())["edited_heads"]]
    assert len(set(drawn)) == 3 and not set(drawn) & set(HEADS)


def test_heads_outside_the_model_are_refused_with_both_sides_named(model, tmp_path):
    save_checkpoint(model, tmp_path / "base", torch.float32, "1GB")
    with pytest.raises(AssertionError, match="3 layers"):
        edit(tmp_path / "artifacts", tmp_path / "base", torch.randn(4, 32))


ABOUT = {
    "base_model": "base",
    "source": "base",
    "intervention_weight": 1.0,
    "control_heads": None,
    "control_direction": None,
    "dataset": None,
}


def edit_here(base: Path, target: Path, direction: torch.Tensor) -> None:
    ref = known_models.resolve(str(base), base.parent / "none", Prompting("plain"))
    edit_weights.edit(ref, target, HEADS, direction, 1.0, ABOUT)


@pytest.mark.parametrize("sharded", [False, True], ids=["single", "sharded"])
@pytest.mark.parametrize("form", STORAGE)
@pytest.mark.parametrize("variant", ["llama", "qwen2", "mistral", "qwen3"])
def test_tied_and_untied_embeddings_load_as_those_of_the_base_model(variant, form, sharded, tmp_path):
    base, target = save(tmp_path / "base", variant, tied=STORAGE[form][1]), tmp_path / "edited"
    store_as(base, form, sharded)
    direction = torch.randn(3, 32, generator=torch.Generator().manual_seed(5))
    edit_here(base, target, direction)
    plain = load(base)
    before = outputs(plain)[0]
    for layer in range(3):
        weight, chosen = plain.model.layers[layer].self_attn.o_proj.weight, [head for at, head in HEADS if at == layer]
        weight.data = project_out(weight.data, chosen, weight.shape[1] // 4, direction[layer], 1.0)
    (wanted, tokens), (found, own) = outputs(plain), outputs(load(target))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-9)
    assert torch.equal(own, tokens) and (wanted - before).abs().max() > 1e-2


@pytest.mark.parametrize("variant, right", [("llama", True), ("qwen3", True), ("mistral", True), ("qwen2", False)])
def test_autotokenizer_of_an_edited_model_reads_tokenizer_json_or_the_card_says_not(variant, right, tmp_path):
    base, target = save(tmp_path / "base", variant), tmp_path / "edited"
    edit_here(base, target, torch.ones(3, 32))
    texts = ["Mia has 32 keys.\n\nHow many?", " 7  <s>", "nai\u0308ve"]
    wanted = [PreTrainedTokenizerFast.from_pretrained(base)(text).input_ids for text in texts]
    found = [AutoTokenizer.from_pretrained(target)(text).input_ids for text in texts]
    assert (found == wanted) == right
    if not right:  # transformers chooses the class by the model_type, also of the base model
        assert found == [AutoTokenizer.from_pretrained(base)(text).input_ids for text in texts]
        assert "load the tokenizer with PreTrainedTokenizerFast" in (target / "README.md").read_text()
