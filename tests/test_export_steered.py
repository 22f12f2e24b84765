"""A baked checkpoint, loaded as any other, computes what the base model does under steering at run time."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import FAMILIES, SIZES, STORAGE, TOKENS, VOCABULARY, ExactNorm, save_tokenizer, store_as
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from scripts.export_steered import export
from thinksteer import baked_check, store
from thinksteer import models as known_models
from thinksteer.model_files import generation_config
from thinksteer.records import Condition, Edit, InputError
from thinksteer.steering import applied
from thinksteer.thinking import Prompting

ROOT = Path(__file__).parent.parent
ABOUT = {"base_model": "base", "source": "base", "dataset": None, "steering": []}
ALL = (0, 1, 2)
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
VARIANTS = {
    "qwen2": ("qwen2", {"rope_parameters": {"rope_type": "default", "rope_theta": 50.0}, "rms_norm_eps": 1e-2}),
    "qwen2, tied": ("qwen2", {"tie_word_embeddings": True}),
    "llama": ("llama", {}),
    "llama, biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama 3": ("llama", {"rope_parameters": LLAMA3, "attention_bias": True, "tie_word_embeddings": True}),
    "mistral": ("mistral", {"sliding_window": None, "head_dim": 16}),
    "qwen3": ("qwen3", {"rope_parameters": {"rope_type": "default", "rope_theta": 50.0}}),
    "qwen3, biases": ("qwen3", {"attention_bias": True}),
}


def save(folder: Path, variant: str, shard: str = "1GB", tied: bool | None = None) -> Path:
    """A random checkpoint in float64, with a tokenizer."""
    family, more = VARIANTS[variant]
    model_class, config_class, usual = FAMILIES[family]
    torch.manual_seed(0)
    model = model_class(
        config_class(**SIZES | usual | {"vocab_size": TOKENS} | more | ({"tie_word_embeddings": True} if tied else {}))
    ).double()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=0.2)  # they begin as zeros
    model.save_pretrained(folder, max_shard_size=shard)
    save_tokenizer(folder)
    return folder


def bake(base: Path, target: Path, edits: list[Edit]) -> None:
    export(known_models.resolve(str(base), base.parent / "none", Prompting("plain")), target, edits, ABOUT)


def load(folder: Path) -> PreTrainedModel:
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, output_loading_info=True)
    assert not any(info.values()), info
    for name, module in list(model.named_modules()):
        if type(module).__name__.endswith("RMSNorm"):
            model.set_submodule(name, ExactNorm(module.weight, module.variance_epsilon))
    return model.eval()


def edits_for(family: str) -> list[Edit]:
    generator = torch.Generator().manual_seed(4)
    first, second = torch.randn(2, 3, 32, generator=generator, dtype=torch.float64)
    attention = [Edit("attn_out", first, ALL, -0.7), Edit("attn_out", second, (1,), 0.3)]
    return attention if family.startswith("qwen3") else [*attention, Edit("mlp_out", second, (0, 2), 0.9)]


def outputs(model: PreTrainedModel, edits: list[Edit] = ()) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of two random rows, and what follows them greedily."""
    ids = torch.randint(VOCABULARY, (2, 40), generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), applied(model, edits):
        logits = model(ids).logits
        tokens = model.generate(ids, max_new_tokens=16, do_sample=False, pad_token_id=0, eos_token_id=10**6)
    return logits, tokens


def require_same(base: Path, baked: Path, edits: list[Edit]) -> None:
    (wanted, tokens), (found, own) = outputs(load(base), edits), outputs(load(baked))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-9)
    assert torch.equal(own, tokens)
    assert (wanted - outputs(load(base))[0]).abs().max() > 1e-2


@pytest.mark.parametrize("shard", ["1GB", "20KB"], ids=["single", "sharded"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_baked_checkpoint_computes_what_steering_at_run_time_does(variant, shard, tmp_path):
    base, baked, edits = save(tmp_path / "base", variant, shard), tmp_path / "baked", edits_for(variant)
    assert (base / "model.safetensors").exists() == (shard == "1GB")
    bake(base, baked, edits)
    require_same(base, baked, edits)
    # Loaders take a model.safetensors in place of all that an index beside it names.
    assert (baked / "model.safetensors").exists() != (baked / "model.safetensors.index.json").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"base", "baked"}
    before, after = store.checkpoint_tensors(base), store.checkpoint_tensors(baked)
    assert all(name.endswith(".bias") for name in after.keys() - before.keys())
    for name in before:
        if not name.endswith(("o_proj.bias", "down_proj.bias")):
            assert torch.equal(store.read_tensor(baked, name), store.read_tensor(base, name)), name


def test_a_qwen3_names_the_architecture_of_which_vllm_keeps_the_biases(tmp_path):
    base = save(tmp_path / "base", "qwen3")
    bake(base, tmp_path / "baked", [EDIT])
    old, new = (json.loads((folder / "config.json").read_text()) for folder in (base, tmp_path / "baked"))
    assert new == old | {"architectures": ["TransformersForCausalLM"], "attention_bias": True}


@pytest.mark.parametrize("site", ["attn_out", "mlp_out"])
@pytest.mark.parametrize("variant", ["qwen2", "llama", "llama, biases"])
def test_one_site_alone_gives_biases_to_no_module_that_needs_none(variant, site, tmp_path):
    base, baked = save(tmp_path / "base", variant), tmp_path / "baked"
    edits = [replace(edits_for(variant)[0], site=site, layers=(1,))]
    bake(base, baked, edits)
    require_same(base, baked, edits)
    config = json.loads((baked / "config.json").read_text())
    biased = variant == "llama, biases"
    assert config.get("mlp_bias", False) == (site == "mlp_out" or biased)
    assert config.get("attention_bias", False) == (site == "attn_out" or biased or variant == "qwen2")


def test_a_configuration_of_transformers_4_keeps_its_rotary_embedding_and_its_dtype(tmp_path):
    base, baked, edits = save(tmp_path / "base", "llama 3"), tmp_path / "baked", edits_for("llama")
    config = json.loads((base / "config.json").read_text())
    scaling = {name: value for name, value in config.pop("rope_parameters").items() if name != "rope_theta"}
    old = config | {"rope_theta": LLAMA3["rope_theta"], "rope_scaling": scaling, "torch_dtype": config.pop("dtype")}
    (base / "config.json").write_text(json.dumps(old))
    bake(base, baked, edits)
    require_same(base, baked, edits)
    new = json.loads((baked / "config.json").read_text())
    assert [new[name] for name in ("rope_theta", "rope_scaling", "torch_dtype")] == [500000.0, scaling, "float64"]
    assert AutoModelForCausalLM.from_pretrained(baked, dtype="auto").dtype == torch.float64


def test_what_a_configuration_leaves_out_is_its_familys_default(tmp_path):
    base, baked, edits = save(tmp_path / "base", "qwen2"), tmp_path / "baked", edits_for("qwen2")
    config = json.loads((base / "config.json").read_text())
    absent = ("rope_parameters", "rms_norm_eps", "eos_token_id", "bos_token_id", "tie_word_embeddings")
    windows = {"sliding_window": 4096, "use_sliding_window": False}  # as the DeepSeek distillations of Qwen have it
    said = {name: value for name, value in config.items() if name not in absent}
    (base / "config.json").write_text(json.dumps(said | windows))
    bake(base, baked, edits)
    require_same(base, baked, edits)
    old, new = load(base).config, load(baked).config
    assert all(getattr(new, name) == getattr(old, name) for name in absent)
    assert not {"sliding_window", "layer_types", "use_sliding_window", "max_window_layers"} & vars(new).keys()


@pytest.mark.parametrize("sharded", [False, True], ids=["single", "sharded"])
@pytest.mark.parametrize("form", STORAGE)
@pytest.mark.parametrize("variant", ["llama", "qwen2", "mistral", "qwen3"])
def test_tied_and_untied_embeddings_load_as_those_of_the_base_model(variant, form, sharded, tmp_path):
    base, baked, edits = save(tmp_path / "base", variant, tied=STORAGE[form][1]), tmp_path / "baked", edits_for(variant)
    store_as(base, form, sharded)
    bake(base, baked, edits)
    require_same(base, baked, edits)
    ends = {"lm_head.weight", "model.embed_tokens.weight"}
    assert store.checkpoint_tensors(baked).keys() & ends == set(STORAGE[form][0])


def test_new_biases_are_float32_and_the_model_keeps_its_dtype(tmp_path):
    base, baked = save(tmp_path / "base", "llama"), tmp_path / "baked"
    AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).save_pretrained(base)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({key: value for key, value in config.items() if key != "dtype"}))
    edits = edits_for("llama")
    bake(base, baked, edits)
    bias = store.read_tensor(baked, "model.layers.2.self_attn.o_proj.bias")
    assert torch.equal(bias, (-0.7 * edits[0].vectors[2]).float())
    assert json.loads((baked / "config.json").read_text())["torch_dtype"] == "bfloat16"
    assert {one.dtype for one in AutoModelForCausalLM.from_pretrained(baked, dtype="auto").parameters()} == {
        torch.bfloat16
    }
    wanted, found = outputs(load(base), edits)[0], outputs(load(baked))[0]
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)  # 1e-2 with biases in bfloat16


@pytest.mark.parametrize("variant", ["llama", "qwen3"])
def test_code_that_comes_with_a_model_is_not_asked_for_its_biases(variant, tmp_path):
    base = save(tmp_path / "base", variant)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModelForCausalLM": "theirs.Model"}}))
    bake(base, tmp_path / "baked", [EDIT])
    assert "auto_map" not in json.loads((tmp_path / "baked" / "config.json").read_text())


def test_the_card_has_figures_that_its_own_lines_confirm(tmp_path, monkeypatch, capsys):
    base, baked, edits = save(tmp_path / "base", "qwen2"), tmp_path / "baked", edits_for("qwen2")
    bake(base, baked, edits)
    check = json.loads((baked / "steering.json").read_text())["check"]
    assert check["largest_difference"] < 1e-4 < 0.1 < check["largest_effect"]
    tokenizer = AutoTokenizer.from_pretrained(baked)
    models = {"logprobs": (load(base), edits), "base_logprobs": (load(base), [])}
    for one in check["prompts"]:
        assert tokenizer(one["prompt"]).input_ids == one["ids"]
        assert [tokenizer.decode([id]) for id in one["next_ids"]] == one["next_tokens"]
        for name, (model, steering) in models.items():
            with torch.no_grad(), applied(model, steering):
                wanted = model(torch.tensor([one["ids"]])).logits[0, -1].log_softmax(-1)
            assert one[name] == pytest.approx(wanted[one["next_ids"]].tolist(), abs=1e-3)
            if name == "logprobs":
                assert one["next_ids"] == wanted.topk(5).indices.tolist()
    card = (baked / "README.md").read_text()
    assert "transformers 5.19 and vLLM 0.32. Other runtimes are unchecked" in card
    for one in check["prompts"]:
        assert json.dumps(one["prompt"]) in card
        assert f"| {one['next_ids'][0]} | {one['logprobs'][0]:.2f} | {one['base_logprobs'][0]:.2f} |" in card
    monkeypatch.chdir(baked)
    capsys.readouterr()
    exec(card.split("```python\n")[1].split("```")[0], {})
    printed = [float(line) for line in capsys.readouterr().out.splitlines()]
    assert len(printed) == 2 and max(printed) < 1e-3


def test_a_checkpoint_too_large_to_run_here_says_so_on_its_card(tmp_path, monkeypatch):
    base, baked = save(tmp_path / "base", "llama"), tmp_path / "baked"
    monkeypatch.setattr(baked_check, "gigabytes_available", lambda: 1e-5)
    bake(base, baked, edits_for("llama"))
    assert "0.0 GB were available" in json.loads((baked / "steering.json").read_text())["check"]["not_run"]
    assert "was not run when it was made" in (baked / "README.md").read_text()


def test_biases_that_swallow_the_vector_are_refused(tmp_path):
    """A bias that is there keeps its dtype: next to 16, bfloat16 has no room for 0.05."""
    base = save(tmp_path / "base", "llama, biases")
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    for layer in model.model.layers:
        layer.self_attn.o_proj.bias.data.sign_().mul_(16)
    model.save_pretrained(base)
    with pytest.raises(InputError, match=f"{base}: steering moves its logits .* steer at run time"):
        bake(base, tmp_path / "baked", [replace(edits_for("llama")[0], coef=0.05)])
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_a_checkpoint_that_lost_a_bias_is_refused(tmp_path, monkeypatch):
    base, write = save(tmp_path / "base", "llama"), store.rewrite_checkpoint

    def lose(source, folder, changed, added):
        zero = {"model.layers.1.self_attn.o_proj.bias": torch.zeros(32)}
        write(source, folder, changed, added | zero)

    monkeypatch.setattr(store, "rewrite_checkpoint", lose)
    with pytest.raises(InputError, match="those of the baked checkpoint are"):
        bake(base, tmp_path / "baked", edits_for("llama"))


def test_another_copy_of_the_weights_is_left_behind(tmp_path):
    base, baked = save(tmp_path / "base", "mistral"), tmp_path / "baked"
    shutil.copy(base / "model.safetensors", base / "consolidated.safetensors")  # vLLM would load this one
    bake(base, baked, edits_for("mistral"))
    weights = {path.name for path in baked.glob("*.safetensors")}
    assert weights == {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}


EDIT = Edit("attn_out", torch.ones(3, 32, dtype=torch.float64), ALL, 1.0)
REFUSED = {
    "the MLP of a Qwen3": ("qwen3", {}, replace(EDIT, site="mlp_out"), "Qwen3 has no biases in its MLP"),
    "another family": ("qwen2", {"model_type": "gemma2"}, EDIT, "type gemma2 cannot be baked, only llama"),
    "depth steps": ("llama", {"model_type": "huginn", "num_hidden_layers": ...}, EDIT, "type huginn cannot be baked"),
    "a window": ("mistral", {"sliding_window": 12}, EDIT, "sliding-window"),
    "the usual window": ("mistral", {"sliding_window": ...}, EDIT, "sliding-window"),
    "some windows": ("qwen2", {"use_sliding_window": True, "sliding_window": 12}, EDIT, "sliding-window"),
    "some positions": ("llama", {}, replace(EDIT, where=Condition(in_thinking=True)), "added everywhere"),
    "a block": ("llama", {}, replace(EDIT, site="block_out"), "at attn_out or mlp_out"),
    "a layer": ("llama", {}, replace(EDIT, layers=(3,)), "no layer 3"),
    "a direction": ("llama", {}, replace(EDIT, vectors=torch.ones(4, 32)), r"\(4, 32\).*\(3, 32\)"),
    "too much": ("llama", {}, replace(EDIT, coef=1e308 * 10), "not finite"),
}


@pytest.mark.parametrize("variant, config, edit, message", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_baked_is_refused_and_leaves_nothing(variant, config, edit, message, tmp_path):
    base = save(tmp_path / "base", variant)
    changed = json.loads((base / "config.json").read_text()) | config
    (base / "config.json").write_text(json.dumps({name: value for name, value in changed.items() if value is not ...}))
    with pytest.raises(InputError, match=message):
        bake(base, tmp_path / "baked", [edit])
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_a_half_precision_overflow_and_quantised_weights_are_refused(tmp_path):
    base = save(tmp_path / "base", "qwen2")
    AutoModelForCausalLM.from_pretrained(base, dtype=torch.float16).save_pretrained(tmp_path / "half")
    with pytest.raises(InputError, match=r"too large for torch\.float16"):
        bake(tmp_path / "half", tmp_path / "baked", [replace(EDIT, coef=1e5)])
    tensors, about = store.read_safetensors(base / "model.safetensors")
    name = "model.layers.1.self_attn.o_proj.weight"
    store.write_safetensors(base / "model.safetensors", tensors | {name: tensors[name].to(torch.int8)}, about)
    with pytest.raises(InputError, match=f"no floating-point {name}"):
        bake(base, tmp_path / "baked", [EDIT])
    assert not (tmp_path / "baked").exists()


def bake_tiny(root: Path, *flags: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "scripts.export_steered", "--artifacts", str(root), *flags]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_the_embedded_model_is_baked_by_command_and_found_by_name(tmp_path):
    directions = torch.randn(2, 6, 128, generator=torch.Generator().manual_seed(5))
    controls = {"thinking_length_attn": directions[0], "thinking_length_mlp": directions[1]}
    for control, direction in controls.items():
        path = store.direction_path(tmp_path, "tiny-reasoner", control)
        store.write_safetensors(path, {"direction": direction}, {})
    flags = ["--control", *controls, "--direction_weight", "0.4", "-0.2", "--layer", "1", "4"]
    done = bake_tiny(tmp_path, *flags)
    assert done.returncode == 0, done.stderr
    name = "steered-tiny-reasoner-thinking_length_attn-0.4-thinking_length_mlp--0.2-layer1-layer4"
    assert f"--model {name}" in done.stdout

    ref = known_models.resolve(name, tmp_path)
    assert ref.template.name == "deepseek"
    plain = known_models.resolve("tiny-reasoner", tmp_path)
    assert generation_config(ref) == generation_config(plain)
    prompt = ref.template.prompt("Mia has 32 keys.")
    ids = [known_models.load_tokenizer(one)(prompt, return_tensors="pt").input_ids for one in (plain, ref)]
    assert torch.equal(*ids)
    edits = [Edit("attn_out", directions[0], (1, 4), 0.4), Edit("mlp_out", directions[1], (1, 4), -0.2)]
    base, baked = known_models.load_model(plain, "cpu"), known_models.load_model(ref, "cpu")
    with torch.no_grad():
        unsteered = base(ids[0]).logits
        with applied(base, edits):
            torch.testing.assert_close(baked(ids[0]).logits, base(ids[0]).logits, rtol=0, atol=1e-4)
        assert (unsteered - baked(ids[0]).logits).abs().max() > 0.1

    said = store.read_json(store.model_path(tmp_path, name) / "steering.json")
    assert [(one["control"], one["weight"], one["layers"]) for one in said["steering"]] == [
        ("thinking_length_attn", 0.4, [1, 4]),
        ("thinking_length_mlp", -0.2, [1, 4]),
    ]
    assert said["steering"][0]["sha256"] == store.sha256(
        store.direction_path(tmp_path, "tiny-reasoner", "thinking_length_attn")
    )
    assert "base_model: tiny_reasoner" in (store.model_path(tmp_path, name) / "README.md").read_text()
    assert bake_tiny(tmp_path, *flags).returncode == 0  # there is nothing left to do
    for more, message in [
        (["--control", *controls, "--direction_weight", "1", "2", "3"], "3 values for 2 controls"),
        ([*flags, "--name", name, "--layer", "2"], "made otherwise"),
        (["--model", name, "--direction_weight", "1"], "is a steered model already"),
    ]:
        refused = bake_tiny(tmp_path, *more)
        assert refused.returncode == 2 and message in refused.stderr, refused.stderr
