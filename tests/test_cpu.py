"""What `--dtype auto` means on a CPU, and what its threads do while they wait."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from thinksteer import cpu, models
from thinksteer.engines import Loading
from thinksteer.models import ModelRef
from thinksteer.thinking import TEMPLATES


@pytest.fixture(params=[True, False], ids=["bfloat16 is fast", "bfloat16 is slow"])
def fast(request, monkeypatch):
    """Whether the CPU computes in bfloat16; models of more than 5000 parameters are large."""
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: request.param)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)  # is not enough
    monkeypatch.setattr(cpu, "LARGE", 5000)
    return request.param


def checkpoint(folder, hidden_size, dtype, **saving):
    config = LlamaConfig(
        vocab_size=16,
        hidden_size=hidden_size,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    model = LlamaForCausalLM(config).to(dtype)
    model.save_pretrained(folder, **saving)
    return ModelRef(folder.name, str(folder), TEMPLATES["plain"]), model


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("hidden_size", [8, 32])
def test_large_models_run_in_bfloat16_where_the_cpu_computes_in_it(tmp_path, fast, hidden_size, stored):
    ref, model = checkpoint(tmp_path / "m", hidden_size, stored)
    assert (cpu.parameters(ref.location) > cpu.LARGE) == (hidden_size == 32)
    expected = torch.bfloat16 if fast and hidden_size == 32 else torch.float32
    loaded = models.load_model(ref, "cpu")
    assert loaded.dtype == expected and models.runs_on(loaded) == ("cpu", str(expected).removeprefix("torch."))
    assert models.load_model(ref, "cpu", "float32").dtype == torch.float32
    weight = loaded.model.layers[0].mlp.up_proj.weight
    torch.testing.assert_close(weight, model.model.layers[0].mlp.up_proj.weight.to(expected), rtol=0, atol=0)


def test_vllm_is_told_the_same_dtype(tmp_path, fast):
    start = pytest.importorskip("thinksteer.engines.vllm_start")
    if not start.current_platform.is_cpu():
        pytest.skip("vLLM runs on a GPU here, in the checkpoint's dtype")
    for hidden_size in (8, 32):
        ref, _ = checkpoint(tmp_path / f"m{hidden_size}", hidden_size, torch.float16)
        chosen = start.settings(tmp_path / f"m{hidden_size}", Loading())["dtype"]
        assert chosen == models.load_model(ref, "cpu").dtype
    assert start.settings(tmp_path / "m32", Loading(dtype="float16"))["dtype"] == "float16"


def test_one_worker_of_vllm_takes_few_cores_all(tmp_path, monkeypatch):
    start = pytest.importorskip("thinksteer.engines.vllm_start")
    monkeypatch.setattr(start.current_platform, "is_cpu", lambda: True)
    monkeypatch.setattr(cpu, "LARGE", 5000)
    for size in (8, 32):
        checkpoint(tmp_path / f"m{size}", size, torch.float32)

    def bound(hidden_size, cores, **environ):
        with monkeypatch.context() as patch:
            patch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
            for name in ("OMP_NUM_THREADS", "VLLM_CPU_OMP_THREADS_BIND"):
                patch.delenv(name, raising=False)
            for name, value in environ.items():
                patch.setenv(name, value)
            start.settings(tmp_path / f"m{hidden_size}", Loading())
            found = os.environ.get("VLLM_CPU_OMP_THREADS_BIND")
            patch.setenv("VLLM_CPU_OMP_THREADS_BIND", "")  # so that it is taken back
        return found

    assert bound(32, 2) == "0,1" and bound(32, 4) == "0,1,2,3"
    assert bound(32, 5) is bound(8, 2) is bound(32, 2, OMP_NUM_THREADS="1") is None  # as vLLM divides them
    assert bound(32, 2, VLLM_CPU_OMP_THREADS_BIND="1") == "1"


def test_the_embedded_model_runs_in_float32_on_every_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    ref = models.resolve("tiny-reasoner", tmp_path)
    assert 1e6 < cpu.parameters(ref.location) < 2e6
    assert models.load_model(ref, "cpu").dtype == torch.float32


def test_the_parameters_of_all_shards_count_here_and_from_the_hub(tmp_path, monkeypatch):
    ref, model = checkpoint(tmp_path / "m", 32, torch.float32, max_shard_size="20KB")
    folder = tmp_path / "m"
    assert len(list(folder.glob("*.safetensors"))) > 1
    assert cpu.parameters(ref.location) == model.num_parameters()
    monkeypatch.setattr(cpu, "own_file", lambda location, name: folder / name if (folder / name).is_file() else None)
    assert cpu.parameters("owner/m") == model.num_parameters()


def test_a_hub_model_of_one_file_counts_and_a_broken_file_counts_as_empty(tmp_path, monkeypatch):
    save_file({"w": torch.zeros(3, 4), "b": torch.zeros(5)}, tmp_path / "model.safetensors")
    monkeypatch.setattr(cpu, "own_file", lambda location, name: tmp_path / name if name == cpu.SINGLE else None)
    assert cpu.parameters("owner/m") == 17
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 100)
    assert cpu.parameters("owner/m") == cpu.parameters(str(tmp_path)) == 0
    assert cpu.parameters(str(tmp_path / "nowhere")) == 0


def test_by_default_a_batch_on_a_cpu_makes_no_activation_larger_than_the_allocator_keeps(model):
    widest = 64 if model.config.model_type == "qwen3" else 48  # heads x head_dim, or the MLP's inside
    assert cpu.fitting_batch(model, 7) == cpu.ALLOCATION // (8 * widest)  # float64
    assert cpu.fitting_batch(model.bfloat16(), 7) == cpu.ALLOCATION // (2 * widest)
    assert cpu.fitting_batch(model.to("meta"), 7) == 7  # on another device


def test_vllm_caches_as_much_as_the_parameters_take_but_a_quarter_of_the_free_memory(tmp_path, monkeypatch):
    start = pytest.importorskip("thinksteer.engines.vllm_start")
    monkeypatch.setattr(start.current_platform, "is_cpu", lambda: True)
    checkpoint(tmp_path / "m", 8, torch.float32)
    gib, free = 1 << 30, start.psutil.virtual_memory()
    for parameters, available, wanted in ((1000, 20, 1), (gib // 2, 20, 2), (2 * gib, 20, 5), (2 * gib, 2, 1)):
        monkeypatch.setattr(cpu, "parameters", lambda _, count=parameters: count)
        monkeypatch.setattr(start.psutil, "virtual_memory", lambda left=available: free._replace(available=left * gib))
        assert start.settings(tmp_path / "m", Loading())["kv_cache_memory_bytes"] == wanted * gib


ASK = """
import json, os
{first}
from thinksteer import cpu
import torch
torch.set_num_threads(4)
cpu.THREADS = 4
cpu.set_threads()
print(json.dumps([os.environ.get("OMP_WAIT_POLICY"), torch.get_num_threads()]))
"""


@pytest.mark.parametrize(
    "first, given, expected",
    [
        ("", {}, ["passive", 4]),
        ("import torch", {}, [None, 3]),  # too late: its threads spin
        ("", {"OMP_WAIT_POLICY": "ACTIVE"}, ["ACTIVE", 3]),
        ("import torch", {"OMP_WAIT_POLICY": "PASSIVE"}, ["PASSIVE", 4]),
        ("import torch", {"OMP_NUM_THREADS": "2"}, [None, 4]),  # as it was set
    ],
)
def test_threads_sleep_while_they_wait_or_leave_a_core_to_others(first, given, expected):
    names = ("OMP_WAIT_POLICY", "OMP_NUM_THREADS")
    environment = {name: value for name, value in os.environ.items() if name not in names} | given
    command = [sys.executable, "-c", ASK.format(first=first)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert json.loads(done.stdout) == expected
