"""Inside vLLM's workers: what transformers' generate does with logits before a token is drawn, where vLLM does it
otherwise or not at all (see `sampling.native`)."""

import json
from collections import defaultdict
from dataclasses import asdict, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import LogitsProcessor, process_dict_updates

from thinksteer.engines.sampling import kept, processed
from thinksteer.records import Sampling

EXTRA = "sampling"  # the key of SamplingParams.extra_args under which a request says how it is sampled


def told(sampling: Sampling) -> str:
    """What a request says under `EXTRA`; its bias and its temperature vLLM applies itself."""
    return json.dumps(asdict(replace(sampling, bias=None, max_tokens=1)), default=sorted)


@lru_cache
def _heard(text: str) -> Sampling:
    return Sampling(**json.loads(text))


class Processor(LogitsProcessor):
    """Masks what must not be drawn, in the rows of requests that say how they are sampled."""

    def __init__(self, *_: Any) -> None:
        self.rows: dict[int, tuple[str, int, list[int], list[int]]] = {}

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: Any) -> None:
        def asked(params: SamplingParams, prompt: list[int], output: list[int]) -> Any:
            extra = params.extra_args or {}
            # A response begins behind the request's own prompt; vLLM may be given some of the response as well.
            return (extra[EXTRA], extra["thinksteer"][1], prompt, output) if EXTRA in extra else None

        process_dict_updates(self.rows, batch_update, asked)

    def apply(self, logits: Tensor) -> Tensor:
        alike: defaultdict[str, list[int]] = defaultdict(list)
        for row, (text, *_) in self.rows.items():
            alike[text].append(row)
        for text, rows in alike.items():
            ids = [[*prompt, *output] for _, _, prompt, output in map(self.rows.get, rows)]
            drawn = [len(one) - self.rows[row][1] for row, one in zip(rows, ids, strict=True)]
            logits[rows] = masked(logits[rows], ids, drawn, _heard(text))
        return logits


def masked(logits: Tensor, ids: list[list[int]], drawn: list[int], sampling: Sampling) -> Tensor:
    """Logits `[n, V]` from which, at the sampling's temperature, tokens are drawn as `choose` draws."""
    logits = processed(logits, ids, drawn, sampling)
    if sampling.temperature == 0:
        return logits
    return logits.masked_fill(kept(logits, sampling) == 0, -torch.inf)
