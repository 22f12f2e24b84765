"""Small random models of the four families, in float64, and passages to read in them."""

import copy
import json
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from real_models import unpacked_smollm2
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers.models import BPE
from torch import Tensor, nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from thinksteer.records import Passage, Span

torch.set_num_threads(1)

VOCABULARY = 64
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": None,
}
FAMILIES = {
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, {}),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, {"head_dim": 16}),  # heads x head_dim = 64, not the hidden size
    "llama": (LlamaForCausalLM, LlamaConfig, {}),
    "mistral": (MistralForCausalLM, MistralConfig, {"sliding_window": 12}),
}


TOKENS = 300  # of the tokenizer below


def save_tokenizer(folder: Path, named: str = "LlamaTokenizerFast") -> None:
    """A byte-level tokenizer, as R1's distillations have: their tokenizer_config.json names a class of another kind."""
    core = Tokenizer(BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special, alphabet = ["<s>", "</s>", "<|User|>"], sorted(pre_tokenizers.ByteLevel.alphabet())
    core.train_from_iterator(
        ["Mia has 32 keys. How many keys has she now?\n\nShe has 12 keys now."] * 2,
        trainers.BpeTrainer(vocab_size=TOKENS, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    core.save(str(folder / "tokenizer.json"))
    stated = {"tokenizer_class": named, "bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True, "legacy": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(stated))


STORAGE = {  # which of the two ends a checkpoint stores, and what its config.json says of tying them
    "tied, embeddings only": (["model.embed_tokens.weight"], True),
    "tied, head only": (["lm_head.weight"], True),
    "tied, both": (["model.embed_tokens.weight", "lm_head.weight"], True),
    "untied": (["model.embed_tokens.weight", "lm_head.weight"], False),
    "untied, unsaid": (["model.embed_tokens.weight", "lm_head.weight"], None),
}


def store_as(folder: Path, form: str, sharded: bool) -> None:
    """Rewrite a checkpoint of one file in one of the forms of STORAGE, which other programs write."""
    ends, tied = STORAGE[form]
    tensors = load_file(folder / "model.safetensors")
    if tied:
        both = tensors.pop("model.embed_tokens.weight", None)
        both = tensors.pop("lm_head.weight", both)
        tensors |= {name: both.clone() for name in ends}
    config = json.loads((folder / "config.json").read_text())
    said = {name: value for name, value in config.items() if name != "tie_word_embeddings"}
    (folder / "config.json").write_text(json.dumps(said if tied is None else said | {"tie_word_embeddings": tied}))
    if not sharded:
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        return
    (folder / "model.safetensors").unlink()
    places = {name: f"model-0000{number % 2 + 1}-of-00002.safetensors" for number, name in enumerate(sorted(tensors))}
    for file in set(places.values()):
        save_file({name: tensors[name] for name in places if places[name] == file}, folder / file, {"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


class ExactNorm(nn.Module):
    """The models' RMS norm in the dtype of its input: theirs rounds to float32, also in a float64 model."""

    def __init__(self, weight: nn.Parameter, epsilon: float) -> None:
        super().__init__()
        self.weight, self.epsilon = weight, epsilon

    def forward(self, hidden: Tensor) -> Tensor:
        return self.weight * hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + self.epsilon)


def build_model(family: str) -> PreTrainedModel:
    torch.manual_seed(0)
    model_class, config_class, more = FAMILIES[family]
    model = model_class(config_class(**SIZES | more)).double().eval()
    for name, module in list(model.named_modules()):
        if type(module).__name__.endswith("RMSNorm"):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            model.set_submodule(name, ExactNorm(module.weight, module.variance_epsilon))
    return model


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a real model, SmolLM2-135M-Instruct."""
    base = tmp_path_factory.getbasetemp()
    return unpacked_smollm2((base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "real")


@pytest.fixture(scope="session")
def models() -> dict[str, PreTrainedModel]:
    return {family: build_model(family) for family in FAMILIES}


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest, models: dict[str, PreTrainedModel]) -> PreTrainedModel:
    return copy.deepcopy(models[request.param])


@pytest.fixture
def qwen(models: dict[str, PreTrainedModel]) -> PreTrainedModel:
    return copy.deepcopy(models["qwen3"])


@pytest.fixture
def passages() -> list[Passage]:
    """Seven passages of different lengths, one span each, not reaching to the end."""
    generator = torch.Generator().manual_seed(1)
    made = []
    for index, length in enumerate((9, 31, 14, 31, 22, 7, 18)):
        ids = tuple(torch.randint(VOCABULARY, (length,), generator=generator).tolist())
        made.append(Passage(f"p{index}", ids, (Span("long" if index % 3 else "short", 2 + index % 2, length - 2),)))
    return made


def hidden_states(model: PreTrainedModel, ids: tuple[int, ...]) -> list[Tensor]:
    """Embeddings and every block's output `[T, D]`, the last BEFORE the final norm; without hooks of ours."""
    bare = copy.deepcopy(model)
    bare.model.norm = nn.Identity()
    with torch.no_grad():
        return [h[0] for h in bare(torch.tensor([ids]), output_hidden_states=True).hidden_states]


def mid_states(model: PreTrainedModel, ids: tuple[int, ...]) -> list[Tensor]:
    """The residual after each layer's attention `[T, D]`: that layer's output when its MLP writes nothing."""
    states = []
    for layer in range(len(model.model.layers)):
        silent = copy.deepcopy(model)
        silent.model.layers[layer].mlp.down_proj.weight.data.zero_()
        states.append(hidden_states(silent, ids)[layer + 1])
    return states


def head_contribution(model: PreTrainedModel, ids: tuple[int, ...], layer: int, head: int) -> Tensor:
    """What one head adds to the residual stream `[T, D]`: the layer's change when all else in it writes nothing."""
    alone = copy.deepcopy(model)
    block = alone.model.layers[layer]
    block.mlp.down_proj.weight.data.zero_()
    width = block.self_attn.o_proj.in_features // model.config.num_attention_heads
    others = torch.ones(block.self_attn.o_proj.in_features, dtype=torch.bool)
    others[head * width : (head + 1) * width] = False
    block.self_attn.o_proj.weight.data[:, others] = 0
    states = hidden_states(alone, ids)
    return states[layer + 1] - states[layer]
