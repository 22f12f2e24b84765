"""How `vllm` starts vLLM: what it is told about a checkpoint, and who ends it if we are killed."""

import json
import os
import subprocess
import uuid
from pathlib import Path
from typing import Any

import psutil  # a requirement of vLLM's
from transformers import AutoConfig
from vllm.platforms import current_platform
from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

from thinksteer import cpu
from thinksteer.engines import Loading
from thinksteer.engines.widen import widen_heads
from thinksteer.records import InputError

WORKERS = "thinksteer.engines.vllm_worker"
PROCESSOR = "thinksteer.engines.vllm_processor:Processor"
CPU_CACHE_BYTES = 1 << 30  # the least that keys and values take on a CPU
CPU_FEW_CORES = 4  # of which vLLM would leave one to its scheduler, at a quarter of the speed or more
CPU_BLOCK_TOKENS = (
    32  # of the prefix cache, which has whole blocks only: in vLLM's own 128 there, a short text has none
)
PROMPT_ROOM = 4096  # tokens for the prompt and for a forced answer, beside those of the response


def heir() -> subprocess.Popen[bytes]:
    """A process that outlives this one to end vLLM's, which go on, holding the GPU's memory, if this one is killed.

    They are known by a variable in their environment. It waits for the end of its input, which comes with our death.
    """
    os.environ["THINKSTEER_RUN"] = mark = uuid.uuid4().hex
    orphans = f"grep -lsz THINKSTEER_RUN={mark} /proc/[0-9]*/environ | cut -d/ -f3"
    without = {name: value for name, value in os.environ.items() if name != "THINKSTEER_RUN"}
    command = ["sh", "-c", f"read -r _; for orphan in $({orphans}); do kill -9 $orphan; done"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, env=without)


def settings(folder: Path, loading: Loading) -> dict[str, Any]:
    """What vLLM is told about a checkpoint that it can run."""
    on_cpu, several_nodes = current_platform.is_cpu(), "RAY_ADDRESS" in os.environ
    config = AutoConfig.from_pretrained(folder, trust_remote_code=loading.trust_remote_code)
    own_length = getattr(config, "max_position_embeddings", None)
    longest = loading.max_length + PROMPT_ROOM
    more: dict[str, Any] = {}
    if on_cpu:
        # A worker of ours, steered or not: vLLM's own ends where a seeded request's prompt is read in parts.
        more = {"kv_cache_memory_bytes": _cache_bytes(folder), "block_size": CPU_BLOCK_TOKENS}
        more |= {"worker_cls": f"{WORKERS}.Worker"}
        os.environ["VLLM_USE_V2_MODEL_RUNNER"] = "0"
    if loading.steering != "none":
        # The key of vLLM's cache of compiled graphs: those without our biases would not steer.
        more |= {"worker_cls": f"{WORKERS}.SteerableWorker", "additional_config": {"thinksteer": "biases"}}
    if loading.steering == "any":
        # Hooks need eager mode, and the state they follow needs each token before the next step is planned.
        os.environ["VLLM_USE_V2_MODEL_RUNNER"] = "0"
        more |= {"enforce_eager": True, "async_scheduling": False}
    if not loading.native_sampling:
        os.environ["VLLM_USE_V2_MODEL_RUNNER"] = "0"  # the other takes no such processors
        more |= {"logits_processors": [PROCESSOR]}
    workers = loading.tensor_parallel_size * loading.pipeline_parallel_size * loading.data_parallel_size
    if on_cpu and (workers > 1 or _takes_all_cores(folder)):
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", _divided_cores(workers))
    if several_nodes:
        more |= {"distributed_executor_backend": "ray", "data_parallel_backend": "ray"}
    same = ("trust_remote_code", "max_num_seqs", "gpu_memory_utilization")
    sizes = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")
    return {
        "model": str(folder),
        "skip_tokenizer_init": True,
        "generation_config": "vllm",
        "dtype": cpu.auto_dtype(str(folder)) if on_cpu and loading.dtype == "auto" else loading.dtype,
        "max_model_len": longest if own_length is None else min(longest, own_length),
        "enable_prefix_caching": True,
        "disable_log_stats": True,
        **{name: getattr(loading, name) for name in same + sizes},
        **more,
    }


def runnable(folder: Path, scratch: Path, trust_remote_code: bool) -> Path:
    """The folder, or an equivalent checkpoint under `scratch` where vLLM's CPU kernels lack the model's head size."""
    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if not current_platform.is_cpu() or size in CPUAttentionBackend.get_supported_head_sizes():
        return folder
    least = min(CPUAttentionBackend.get_supported_head_sizes())
    if size > least or least % size:
        raise InputError(f"{folder}: vLLM's CPU attention has no heads of {size}; use --engine hf")
    widen_heads(folder, scratch / folder.name, least // size)
    return scratch / folder.name


def _cache_bytes(folder: Path) -> int:
    """As much as the model's parameters take in float32, but at most a quarter of the free memory. vLLM takes all of it
    at once."""
    wanted = min(4 * cpu.parameters(str(folder)), psutil.virtual_memory().available // 4)
    return max(CPU_CACHE_BYTES, wanted)


def _takes_all_cores(folder: Path) -> bool:
    """Whether one worker should compute on every core: few cores, and a model whose steps take far longer than their
    scheduling. OMP_NUM_THREADS says that the cores are shared."""
    few = len(os.sched_getaffinity(0)) <= CPU_FEW_CORES
    return few and "OMP_NUM_THREADS" not in os.environ and cpu.parameters(str(folder)) > cpu.LARGE


def _divided_cores(workers: int) -> str:
    """An equal share of this process's cores for each worker, as VLLM_CPU_OMP_THREADS_BIND writes it."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < workers:
        raise InputError(f"{workers} workers need as many cores, there are {len(cores)}: lower the parallel sizes")
    return "|".join(",".join(map(str, cores[worker::workers])) for worker in range(workers))


def stated_eos(folder: Path, configured: int | list[int] | None) -> int | list[int] | None:
    """What generation_config.json says ends a response, or where there is none, config.json."""
    file = folder / "generation_config.json"
    return json.loads(file.read_text(encoding="utf-8")).get("eos_token_id") if file.is_file() else configured
