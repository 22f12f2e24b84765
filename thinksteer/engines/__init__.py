"""The engines: one interface, chosen by table."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from transformers import PreTrainedTokenizerBase

from thinksteer.engines.hf import HFEngine
from thinksteer.records import Edit, Request, Response, Sampling


class Engine(Protocol):
    """Answers requests, each from its own seed, and yields the responses as they finish."""

    tokenizer: PreTrainedTokenizerBase

    def generate(
        self, requests: Iterable[Request], sampling: Sampling, edits: Sequence[Edit] = ()
    ) -> Iterator[Response]: ...


ENGINES = {"hf": HFEngine}
