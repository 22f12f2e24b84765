"""Probing with an engine that caches prefixes: a request for one token behind each beginning of an answer."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from thinksteer.confidence import Chain, Fork, Tree
from thinksteer.records import InputError

MAX_TOKENS = 128  # whose log-probabilities vLLM gives for one request

Weigh = Callable[[list[int], list[int]], Awaitable[dict[int, float]]]


@dataclass
class CacheUse:
    """Tokens of requests, and how many of them were found in the prefix cache."""

    tokens: int = 0
    cached: int = 0

    def add(self, tokens: int, cached: int) -> None:
        self.tokens, self.cached = self.tokens + tokens, self.cached + cached

    @property
    def share(self) -> float:
        return self.cached / self.tokens if self.tokens else 0.0


def check_lengths(chains: Sequence[Chain], tree: Tree, longest: int) -> None:
    """InputError for what is longer than the engine takes, with the token that it is asked for."""
    branch = max(map(len, tree.branches))
    for chain in chains:
        length = max((len(chain.prompt_ids) + fork.at + len(fork.tail) + branch + 1 for fork in chain.forks), default=0)
        if length > longest:
            raise InputError(
                f"{chain.id} sample {chain.sample} has {length} tokens with its tail and answer, the engine takes "
                f"{longest}: raise --max_length"
            )


async def weighed(chain: Chain, tree: Tree, weigh: Weigh, room: asyncio.Semaphore) -> Tensor:
    """The log-probabilities `[forks, answers]`; `weigh` gives those of some tokens behind others, `room` for as many
    requests as are to wait at once."""

    async def ask(fork: Fork, branch: tuple[int, ...], tokens: list[int]) -> list[float]:
        found: dict[int, float] = {}
        for begin in range(0, len(tokens), MAX_TOKENS):
            async with room:
                ids = [*chain.prompt_ids, *chain.token_ids[: fork.at], *fork.tail, *branch]
                found |= await weigh(ids, tokens[begin : begin + MAX_TOKENS])
        return [found[token] for token in tokens]

    asked = [ask(fork, branch, tokens) for fork in chain.forks for branch, tokens in tree.branches.items()]
    steps = [step for one in await asyncio.gather(*asked) for step in one]
    return tree.answers(torch.tensor(steps, dtype=torch.float64).view(len(chain.forks), tree.size))
