"""How a model runs on a CPU: in which dtype, and on how many threads."""

import json
import math
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import PreTrainedModel

from thinksteer.hub import own_file

LARGE = 50_000_000  # parameters from which on bfloat16, and another core for vLLM, can pay
ALLOCATION = 16 << 20  # bytes; larger ones a C library returns to the system and gets back as empty pages every time
THREADS = torch.get_num_threads()
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


def auto_dtype(location: str) -> torch.dtype:
    """What `--dtype auto` means on this CPU for the model in a folder or of a hub id: bfloat16 for a large model where
    the CPU computes in it, else float32."""
    return torch.bfloat16 if computes_in_bfloat16() and parameters(location) > LARGE else torch.float32


def computes_in_bfloat16() -> bool:
    """Whether the CPU multiplies matrices of bfloat16. With AVX512-BF16 alone large products take about 1.7 times as
    long as in float32 (docs/speed.md)."""
    return torch.cpu._is_amx_tile_supported()


def set_threads() -> None:
    """Leaves one core to others where waiting threads spin: PyTorch was imported before this package, which else makes
    them sleep. OMP_NUM_THREADS overrides this."""
    if os.environ.get("OMP_WAIT_POLICY", "").lower() != "passive" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, THREADS - 1))


def fitting_batch(model: PreTrainedModel, elsewhere: int) -> int:
    """The tokens of a forward pass: on a CPU so many that no activation is larger than `ALLOCATION`."""
    if model.device.type != "cpu":
        return elsewhere
    head = model.get_output_embeddings()
    widths = [module.out_features for module in model.modules() if isinstance(module, nn.Linear) and module is not head]
    return max(1, ALLOCATION // (max(widths, default=1) * model.dtype.itemsize))


def parameters(location: str) -> int:
    """The number of parameters that the headers of the checkpoint's files state. A broken file counts as empty: loading
    the model names it."""
    count = 0
    for file in _weights(location):
        try:
            with safe_open(file, "pt") as tensors:
                count += sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
        except SafetensorError:
            continue
    return count


def _weights(location: str) -> list[Path]:
    if Path(location).is_dir():
        return sorted(Path(location).glob("*.safetensors"))
    index = own_file(location, INDEX)
    shards = {*json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()} if index else {SINGLE}
    return [file for name in sorted(shards) if (file := own_file(location, name))]
