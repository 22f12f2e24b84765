"""The engines: one interface, chosen by table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from thinksteer.records import Edit, Request, Response, Sampling
from thinksteer.thinking import Template

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Engine(Protocol):
    """Answers requests, each from its own seed, and yields the responses as they finish."""

    tokenizer: PreTrainedTokenizerBase

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, template: Template) -> None: ...

    def generate(
        self, requests: Iterable[Request], sampling: Sampling, edits: Sequence[Edit] = ()
    ) -> Iterator[Response]: ...


ENGINES = {"hf": "HFEngine"}  # module of this package -> its class; imported when chosen, as the libraries are heavy


def engine_class(name: str) -> type[Engine]:
    return getattr(import_module(f"thinksteer.engines.{name}"), ENGINES[name])
