"""From logits to tokens. Randomness belongs to the record: its token number i uses uniform number i of its seed.

So a record is sampled alike in whatever batch it runs, and inverting the distribution in token order couples runs of
two nearby models (common random numbers): the same uniform picks the same token unless the distributions differ there.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinksteer.records import InputError, LogitBias, Sampling

HEADS = (64, 1024)  # tokens of a row sorted at first for top_p: nearly always enough, far cheaper than a vocabulary

# What a generation_config.json may state beside temperature, top_p, top_k and repetition_penalty, and both engines do.
PENALTIES = ("presence_penalty", "frequency_penalty")
FORBIDDING = ("no_repeat_ngram_size", "min_new_tokens", "suppress_tokens", "begin_suppress_tokens", "bad_words_ids")
CARRIED = ("min_p", *PENALTIES, *FORBIDDING)
# What it may state that does not say which tokens a response has: flags, ways to compute the same, beam search's own.
NEUTRAL = {
    *("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"),
    *("do_sample", "temperature", "top_p", "top_k", "repetition_penalty", *CARRIED),
    *("max_length", "max_new_tokens", "num_return_sequences"),
    *("length_penalty", "early_stopping", "num_beam_groups", "diversity_penalty"),
    *("renormalize_logits", "remove_invalid_values"),
    *("use_cache", "cache_implementation", "cache_config", "max_cache_len", "low_memory", "prefill_chunk_size"),
    *("compile_config", "disable_compile", "continuous_batching_config"),
    *("use_mtp", "speculation_type", "is_assistant", "num_assistant_tokens", "num_assistant_tokens_schedule"),
    *("assistant_confidence_threshold", "assistant_early_exit", "assistant_lookbehind", "target_lookbehind"),
    *("assistant_ensemble_weight", "prompt_lookup_num_tokens", "max_matching_ngram_size"),
    *("output_attentions", "output_hidden_states", "output_scores", "output_logits", "return_dict_in_generate"),
    *("transformers_version", "_from_model_config", "_commit_hash", "_original_object_hash"),
}
OFF_AT_ONE = {"num_beams", "typical_p", "guidance_scale", "encoder_repetition_penalty"}


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
    if type(stated.get("do_sample", True)) is not bool:
        said = f"do_sample is {stated['do_sample']!r}; it must be true or false"
        raise InputError(f"{said}: correct the model's generation_config.json")
    own_temperature = 0.0 if stated.get("do_sample") is False else stated.get("temperature", 1.0)
    sampling = Sampling(
        max_tokens=max_tokens,
        temperature=own_temperature if temperature is None else temperature,
        top_p=stated.get("top_p", 1.0) if top_p is None else top_p,
        top_k=stated.get("top_k", 0) if top_k is None else top_k,
        repetition_penalty=stated.get("repetition_penalty", 1.0) if repetition_penalty is None else repetition_penalty,
        forced_answer=forced_answer,
        forced_tokens=forced_tokens,
        **{name: _frozen(stated[name]) for name in CARRIED if name in stated},
    )
    check(sampling)
    return sampling


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def not_carried(stated: Mapping[str, Any]) -> dict[str, Any]:
    """What a generation_config.json states and no engine here does; what states that it is off is left out."""
    return {name: value for name, value in sorted(stated.items()) if name not in NEUTRAL and not _off(name, value)}


def _off(name: str, value: Any) -> bool:
    neutral = None if name.endswith("_token_id") else 1 if name in OFF_AT_ONE else 0  # token 0 is a token
    return value in (None, neutral, "", [], {})


def native(sampling: Sampling) -> bool:
    """Whether vLLM itself samples as `choose` does.

    It lacks some of the parameters, forgets what its penalties count when a forced answer is appended, and applies
    min_p before top_p.
    """
    ours = any(getattr(sampling, name) for name in PENALTIES + FORBIDDING)
    return not ours and (sampling.min_p == 0 or sampling.top_p == 1 or sampling.temperature == 0)


def check(sampling: Sampling) -> None:
    """InputError for a parameter of another type than it has, or outside its range."""
    for name, (fits, rule) in RULES.items():
        value = getattr(sampling, name)
        if not fits(value):
            raise InputError(
                f"{name} is {value!r}; it must be {rule}: correct the flag, or the model's generation_config.json"
            )


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _whole(least: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and value >= least


def _ids(value: Any) -> bool:
    return isinstance(value, tuple) and all(map(_whole(0), value))


RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "max_tokens": (_whole(1), "a whole number, at least 1"),
    "temperature": (lambda value: _number(value) and value >= 0, "0 (greedy) or positive"),
    "top_p": (lambda value: _number(value) and 0 < value <= 1, "above 0 and at most 1 (1: off)"),
    "top_k": (_whole(0), "0 (off) or a positive whole number"),
    "repetition_penalty": (lambda value: _number(value) and value > 0, "positive (1: off)"),
    "forced_tokens": (_whole(1), "a whole number, at least 1"),
    "min_p": (lambda value: _number(value) and 0 <= value <= 1, "from 0 (off) to 1"),
    **dict.fromkeys(PENALTIES, (lambda value: _number(value) and -2 <= value <= 2, "from -2 to 2 (0: off)")),
    "no_repeat_ngram_size": (_whole(0), "0 (off) or a positive whole number"),
    "min_new_tokens": (_whole(0), "0 (off) or a positive whole number"),
    "suppress_tokens": (_ids, "a list of token ids"),
    "begin_suppress_tokens": (_ids, "a list of token ids"),
    "bad_words_ids": (
        lambda value: isinstance(value, tuple) and all(one and _ids(one) for one in value),
        "a list of lists of token ids, none of them empty",
    ),
}


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

    Order as in transformers' generate: what `processed` does, temperature, top_k, top_p, min_p.
    """
    logits = processed(logits.to(torch.promote_types(logits.dtype, torch.float32)), previous, drawn, sampling)
    if sampling.temperature == 0:
        best, tokens = logits.max(-1)
        require_finite(best)
        return tokens
    cumulative = kept(logits, sampling).cumsum(-1, dtype=torch.float64)  # [n, V]
    targets = torch.from_numpy(uniforms).to(logits.device) * cumulative[:, -1]
    return torch.searchsorted(cumulative, targets[:, None], right=True)[:, 0]


def processed(logits: Tensor, previous: Sequence[Sequence[int]], drawn: Sequence[int], sampling: Sampling) -> Tensor:
    """Logits `[n, V]` with bias and penalties, and -inf at the tokens that are forbidden now; see `choose`."""
    if sampling.bias is not None:
        logits = _biased(logits, drawn, sampling.bias)
    if sampling.repetition_penalty != 1:
        logits = _penalise(logits, previous, sampling.repetition_penalty)
    if sampling.presence_penalty or sampling.frequency_penalty:
        logits = _penalise_response(logits, previous, drawn, sampling)
    if any(getattr(sampling, name) for name in FORBIDDING):
        logits = _forbid(logits, previous, drawn, sampling)
    return logits


def kept(logits: Tensor, sampling: Sampling) -> Tensor:
    """Probabilities `[n, V]` at the temperature, zero where top_k, top_p and min_p leave nothing."""
    probabilities = torch.softmax(logits / sampling.temperature, -1)
    require_finite(probabilities[:, 0])  # a NaN or an infinite logit makes all of its row NaN
    if sampling.top_k or sampling.top_p < 1:
        least = least_kept(probabilities, sampling.top_k, sampling.top_p)
        probabilities = probabilities.where(probabilities >= least, 0)
    if sampling.min_p:
        least = sampling.min_p * probabilities.amax(-1, keepdim=True)
        probabilities = probabilities.where(probabilities >= least, 0)
    return probabilities


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


def _penalise_response(
    logits: Tensor, previous: Sequence[Sequence[int]], drawn: Sequence[int], sampling: Sampling
) -> Tensor:
    """Logits less the presence penalty at the tokens of the response, and the frequency penalty for each time there."""
    found = [
        (row, token, -sampling.presence_penalty - sampling.frequency_penalty * times)
        for row, (ids, count) in enumerate(zip(previous, drawn, strict=True))
        for token, times in Counter(ids[len(ids) - count :]).items()
    ]
    if not found:
        return logits
    rows, tokens, amounts = (torch.tensor(part, device=logits.device) for part in zip(*found, strict=True))
    return logits.index_put((rows, tokens), amounts.to(logits), accumulate=True)


def _forbid(logits: Tensor, previous: Sequence[Sequence[int]], drawn: Sequence[int], sampling: Sampling) -> Tensor:
    """Logits with -inf at what each row must not go on with. InputError: nothing is left for one of them."""
    vocabulary = logits.shape[-1]
    places = [
        (row, token)
        for row, (ids, count) in enumerate(zip(previous, drawn, strict=True))
        for token in forbidden(ids, count, sampling)
        if token < vocabulary
    ]
    if not places:
        return logits
    index = torch.tensor(places, device=logits.device).unbind(1)
    logits = logits.index_put(index, logits.new_tensor(-torch.inf))
    if bool((logits == -torch.inf).all(-1).any()):
        names = ", ".join(name for name in FORBIDDING if getattr(sampling, name))
        raise InputError(f"{names} of the model's generation_config.json leave no token to go on with: correct it")
    return logits


def forbidden(ids: Sequence[int], drawn: int, sampling: Sampling) -> set[int]:
    """The tokens that must not follow these ids, of which the last `drawn` are of the response."""
    tokens = {*sampling.suppress_tokens}
    if drawn == 0:
        tokens |= {*sampling.begin_suppress_tokens}
    if drawn < sampling.min_new_tokens:
        tokens |= {*sampling.eos_ids}
    for *begin, last in sampling.bad_words_ids:
        if begin or last not in sampling.eos_ids:
            tokens |= {last} if [*ids[max(0, len(ids) - len(begin)) :]] == begin else set()
    return tokens | _completing(ids, sampling.no_repeat_ngram_size)


def _completing(ids: Sequence[int], size: int) -> set[int]:
    """The tokens that would complete a run of so many ids (0: none) that is there already."""
    if size < 2 or len(ids) < size:
        return {*ids} if size == 1 else set()
    begin, tokens, place, end = [*ids[1 - size :]], set(), -1, len(ids) + 1 - size
    while True:
        try:
            place = ids.index(begin[0], place + 1, end)
        except ValueError:
            return tokens
        if [*ids[place : place + size - 1]] == begin:
            tokens.add(ids[place + size - 1])


def least_kept(probabilities: Tensor, top_k: int, top_p: float) -> Tensor:
    """The least probability, `[n, 1]`, among the k likeliest tokens (0: all) of each row, or among the fewest of these
    whose share reaches top_p. Ties stay together."""
    vocabulary = probabilities.shape[-1]
    least = torch.zeros_like(probabilities[:, :1])
    if 0 < top_k < vocabulary:
        least = probabilities.topk(top_k).values[:, -1:]
        probabilities = probabilities.where(probabilities >= least, 0)
    if top_p == 1:
        return least
    wanted = top_p * probabilities.sum(-1, keepdim=True)  # [n, 1]
    rows = torch.arange(len(probabilities), device=probabilities.device)
    for size in (*(size for size in HEADS if size < vocabulary), vocabulary):
        head = probabilities[rows].topk(size).values  # [rows, size], descending
        mass = head.cumsum(-1)
        # A token stays while those above it hold less than the wanted mass.
        kept = (mass - head < wanted[rows]).sum(-1, keepdim=True).clamp(min=1)  # none in a row that is not finite
        least[rows] = head.gather(-1, kept - 1)
        rows = rows[mass[:, -1] < wanted[rows, 0]]
        if not len(rows):
            break
    return least


def require_finite(values: Tensor) -> None:
    if not bool(torch.isfinite(values).all()):
        raise InputError(
            "the model's logits are not finite: use a smaller --direction_weight, another --dtype, or whole weights"
        )
