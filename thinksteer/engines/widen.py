"""The same model with larger attention heads, for kernels that have none so small."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from thinksteer.bake import llama_config


def widen_heads(source: Path, target: Path, times: int) -> None:
    """Writes a checkpoint that computes what `source` does, with heads `times` as large, most of each unused.

    Coordinate i of either half of a head, which rotary embedding turns by theta^(-2i / head_dim), becomes coordinate
    `times * i` of the same half, which it turns by the same angle; all others are zero. Queries grow by sqrt(times), as
    scores are divided by sqrt(head_dim). As a Llama, whose config, unlike Qwen2's in vLLM, may state a head_dim.
    InputError for models that are no Llama with biases.
    """
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    config = llama_config(config, f"vLLM's CPU attention has no heads of {size}; use --engine hf")
    places = torch.arange(size).reshape(2, -1)
    places = (places % (size // 2) * times + torch.tensor([[0], [size * times // 2]])).flatten()

    def spread(weight: Tensor) -> Tensor:
        """`[heads * size, ...]` -> `[heads * size * times, ...]`."""
        parts = weight.unflatten(0, (-1, size))
        wide = parts.new_zeros(parts.shape[0], size * times, *parts.shape[2:])
        wide[:, places] = parts
        return wide.flatten(0, 1)

    # Of a sharded checkpoint, the shards that its index names: others may lie beside them.
    index, files = source / "model.safetensors.index.json", {"model.safetensors"}
    if index.is_file():
        files = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors |= load_file(source / file)
    for name, tensor in list(tensors.items()):
        part = name.split(".")[-2]
        if part == "q_proj":  # in 16 bits the factor would be rounded away
            tensors[name] = spread(tensor).to(torch.promote_types(tensor.dtype, torch.float32)) * times**0.5
        elif part in ("k_proj", "v_proj"):
            tensors[name] = spread(tensor)
        elif name.endswith("o_proj.weight"):
            tensors[name] = spread(tensor.T).T.contiguous()
    biased = "model.layers.0.self_attn.q_proj.bias" in tensors
    for layer in range(config["num_hidden_layers"] if biased else 0):
        # Llama has biases on all four projections or on none.
        name = f"model.layers.{layer}.self_attn.o_proj"
        tensors.setdefault(f"{name}.bias", tensors[f"{name}.weight"].new_zeros(config["hidden_size"]))
    target.mkdir(parents=True, exist_ok=True)
    save_file(tensors, target / "model.safetensors", {"format": "pt"})
    config |= {"head_dim": size * times, "attention_bias": biased}
    (target / "config.json").write_text(json.dumps(config), encoding="utf-8")
    if (source / "generation_config.json").is_file():
        shutil.copy(source / "generation_config.json", target)
