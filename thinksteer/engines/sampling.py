"""From logits to tokens. Randomness belongs to the record: its token number i uses uniform number i of its seed.

So a record is sampled alike in whatever batch it runs, and inverting the distribution in token order couples runs of
two nearby models (common random numbers): the same uniform picks the same token unless the distributions differ there.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinksteer.records import InputError, LogitBias, Sampling

HEADS = (64, 1024)  # tokens sorted at first for top_p; nearly always enough, and far cheaper than sorting a vocabulary


def sampling_from(
    stated: Mapping[str, Any],
    max_tokens: int,
    *,
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    repetition_penalty: float | None = None,
    forced_answer: str = "",
    forced_tokens: int = 256,
) -> Sampling:
    """A model's own sampling parameters, overridden by those given; what its generation_config.json leaves out is off.

    Upstream reads them with getattr from a GenerationConfig, so that the library's default top_k of 50 applied to
    models that never asked for it. `stated` is the content of generation_config.json; its do_sample false means greedy.
    """
    stated = {name: value for name, value in stated.items() if value is not None}
    own_temperature = 0.0 if stated.get("do_sample") is False else stated.get("temperature", 1.0)
    sampling = Sampling(
        max_tokens=max_tokens,
        temperature=own_temperature if temperature is None else temperature,
        top_p=stated.get("top_p", 1.0) if top_p is None else top_p,
        top_k=stated.get("top_k", 0) if top_k is None else top_k,
        repetition_penalty=stated.get("repetition_penalty", 1.0) if repetition_penalty is None else repetition_penalty,
        forced_answer=forced_answer,
        forced_tokens=forced_tokens,
    )
    check(sampling)
    return sampling


def check(sampling: Sampling) -> None:
    """InputError for a parameter that is no number, or outside its range."""
    allowed: dict[str, tuple[Callable[[float], bool], str]] = {
        "max_tokens": (lambda value: value >= 1, "at least 1"),
        "temperature": (lambda value: value >= 0, "0 (greedy) or positive"),
        "top_p": (lambda value: 0 < value <= 1, "above 0 and at most 1 (1: off)"),
        "top_k": (lambda value: value >= 0, "0 (off) or positive"),
        "repetition_penalty": (lambda value: value > 0, "positive (1: off)"),
        "forced_tokens": (lambda value: value >= 1, "at least 1"),
    }
    for name, (fits, rule) in allowed.items():
        value = getattr(sampling, name)
        if type(value) not in (int, float) or not math.isfinite(value) or not fits(value):
            raise InputError(
                f"{name} is {value!r}; it must be {rule}: correct the flag, or the model's generation_config.json"
            )


def uniforms(seeds: Sequence[int], counters: Sequence[int]) -> np.ndarray:
    """Uniform number `counters[i]` of seed `seeds[i]`, in [0, 1): `[n]` float64.

    SplitMix64 (Steele et al. 2014) started at the mixed seed; its state after k steps is start + k * GOLDEN, so any
    number of any stream is had at once. Seeds count modulo 2^64.
    """
    golden, start = np.uint64(0x9E3779B97F4A7C15), np.array([seed & 0xFFFFFFFFFFFFFFFF for seed in seeds], np.uint64)
    bits = _mix(_mix(start + golden) + golden * (np.array(counters, np.uint64) + np.uint64(1)))
    # 52 bits: the product of such a number and any total is below the total, so the inverse CDF never runs over.
    return (bits >> np.uint64(12)) * 2.0**-52


def _mix(bits: np.ndarray) -> np.ndarray:
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def choose(
    logits: Tensor,
    uniforms: np.ndarray,
    previous: Sequence[Sequence[int]],
    drawn: Sequence[int],
    sampling: Sampling,
) -> Tensor:
    """The next token of each row, `[n]`, from logits `[n, V]`, uniforms `[n]`, each row's ids so far and how many of
    these were drawn.

    Order as in vLLM: bias, repetition penalty, temperature, top_k, top_p.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if sampling.bias is not None:
        logits = _biased(logits, drawn, sampling.bias)
    if sampling.repetition_penalty != 1:
        logits = _penalise(logits, previous, sampling.repetition_penalty)
    if sampling.temperature == 0:
        best, tokens = logits.max(-1)
        require_finite(best)
        return tokens
    probabilities = torch.softmax(logits / sampling.temperature, -1)
    require_finite(probabilities[:, 0])  # a NaN or an infinite logit makes all of its row NaN
    cumulative = _truncate(probabilities, sampling.top_k, sampling.top_p).cumsum(-1, dtype=torch.float64)  # [n, V]
    targets = torch.from_numpy(uniforms).to(logits.device) * cumulative[:, -1]
    return torch.searchsorted(cumulative, targets[:, None], right=True)[:, 0]


def _biased(logits: Tensor, drawn: Sequence[int], bias: LogitBias) -> Tensor:
    """Logits with the bias on its tokens, in the rows that it still holds for."""
    tokens = torch.tensor(sorted(bias.tokens), dtype=torch.long, device=logits.device)
    held = torch.tensor([bias.first_tokens is None or count < bias.first_tokens for count in drawn])
    return logits.index_add(-1, tokens, bias.value * held[:, None].to(logits).expand(-1, len(tokens)))


def _penalise(logits: Tensor, previous: Sequence[Sequence[int]], penalty: float) -> Tensor:
    """Logits of tokens already in prompt or response, divided by the penalty if positive, else multiplied (CTRL)."""
    width = max(map(len, previous))
    seen = torch.tensor([[*ids, *([ids[0]] * (width - len(ids)))] for ids in previous], device=logits.device)
    values = logits.gather(-1, seen)
    return logits.scatter(-1, seen, torch.where(values > 0, values / penalty, values * penalty))


def _truncate(probabilities: Tensor, top_k: int, top_p: float) -> Tensor:
    """Zero outside the k likeliest tokens, then outside the fewest whose share reaches top_p. Ties stay together."""
    vocabulary = probabilities.shape[-1]
    if 0 < top_k < vocabulary:
        least = probabilities.topk(top_k).values[:, -1:]
        probabilities = probabilities.where(probabilities >= least, 0)
    if top_p == 1:
        return probabilities
    wanted = top_p * probabilities.sum(-1, keepdim=True)  # [n, 1]
    for size in (*(size for size in HEADS if size < vocabulary), vocabulary):
        head = probabilities.topk(size).values  # [n, size], descending
        mass = head.cumsum(-1)
        if size == vocabulary or bool((mass[:, -1:] >= wanted).all()):
            break
    # A token stays while those above it hold less than the wanted mass.
    kept = (mass - head < wanted).sum(-1, keepdim=True)
    return probabilities.where(probabilities >= head.gather(-1, kept - 1), 0)


def require_finite(values: Tensor) -> None:
    if not bool(torch.isfinite(values).all()):
        raise InputError(
            "the model's logits are not finite: use a smaller --direction_weight, another --dtype, or whole weights"
        )
