"""The engines: one interface, chosen by table."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, Protocol, Self

from thinksteer.models import ModelRef
from thinksteer.records import Edit, InputError, Request, Response, Sampling

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from thinksteer.confidence import Chain

Steering = Literal["none", "constant", "any"]
"""Which edits an engine must be able to apply: none, those that are like biases (`Edit.constant`), or any."""


@dataclass(frozen=True)
class Loading:
    """How a model is loaded. Parallel sizes and memory share are for engines that split a model.

    `max_length`: the most tokens a response may have; `max_num_seqs`: of responses generated together;
    `mean_recurrence`: how often a recurrent-depth model runs its core, None: as its config says; `native_sampling`:
    whether responses are sampled as vLLM itself can (`sampling.native`).
    """

    device: str = "auto"
    dtype: str = "auto"
    trust_remote_code: bool = False
    mean_recurrence: int | None = None
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    data_parallel_size: int = 1
    gpu_memory_utilization: float = 0.9
    max_num_seqs: int = 256
    max_length: int = 8192
    steering: Steering = "none"
    native_sampling: bool = True

    @classmethod
    def of(cls, flags: Namespace, steering: Steering = "none") -> Self:
        """What a script's flags say; those it does not have are as here."""
        said = {field.name: getattr(flags, field.name, field.default) for field in fields(cls)}
        return cls(**said | {"steering": steering})


class Engine(Protocol):
    """Answers requests, each from its own seed, and yields the responses as they finish.

    `device`: what it runs on, in words; `dtype`: of the weights; `threads`: of a CPU, None where the engine does not
    say; `cache`: the memory for keys and values, in words.
    """

    tokenizer: PreTrainedTokenizerBase
    device: str
    dtype: str
    threads: int | None
    cache: str

    @classmethod
    def load(cls, ref: ModelRef, loading: Loading) -> Self: ...

    def generate(
        self, requests: Iterable[Request], sampling: Sampling, edits: Sequence[Edit] = ()
    ) -> Iterator[Response]: ...

    def probe(
        self, chains: Iterable[Chain], answers: Sequence[tuple[int, ...]], edits: Sequence[Edit] = ()
    ) -> Iterator[tuple[Chain, Tensor]]:
        """Each chain, as it is finished, with the log-probabilities `[forks, answers]` (nats, on the CPU, float32 at
        least) of each answer, a sequence of tokens, right behind each fork's tail, the model being steered as while
        generating. They do not depend on what else is asked, or on the engine but for its rounding.

        InputError: there is no answer, an answer without tokens, or steering as `generate` refuses it.
        """

    def close(self) -> None:
        """Frees the memory and the processes that the engine holds."""


ENGINES = {  # module of this package -> its class; imported when chosen, as the libraries are heavy
    "hf": "HFEngine",
    "vllm": "VLLMEngine",
}


def engine_class(name: str) -> type[Engine]:
    if find_spec("vllm") is None and name == "vllm":
        raise InputError("--engine vllm: vLLM is not installed here; see the README, or use --engine hf")
    return getattr(import_module(f"thinksteer.engines.{name}"), ENGINES[name])


def default_engine(ref: ModelRef) -> str:
    """vLLM where it is installed, has a GPU and knows the model; on a CPU it takes a minute to start."""
    import torch

    if find_spec("vllm") is None or torch.cuda.device_count() == 0:
        return "hf"
    return "vllm" if import_module("thinksteer.engines.vllm").supports(ref) else "hf"
