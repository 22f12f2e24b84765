"""What is asked of an engine that caches prefixes, with a model that is a formula; test_engines_vllm.py has vLLM."""

import asyncio

import pytest
import torch

from thinksteer.confidence import Chain, Fork, Tree
from thinksteer.engines.vllm_probe import MAX_TOKENS, CacheUse, check_lengths, weighed
from thinksteer.records import InputError

CHAIN = Chain("q", 2, (1, 2, 3), (4, 5, 6, 7), (Fork(4, (8,)), Fork(0, ()), Fork(2, (8, 9))))


def log(ids: list[int], token: int) -> float:
    return -sum(place * one for place, one in enumerate([*ids, token], start=1)) / 8


def found(answers: list[tuple[int, ...]], room: int = 5) -> tuple[torch.Tensor, list[tuple[list[int], list[int]]], int]:
    """What is found, what was asked, and how many at once."""
    asked, waiting, most = [], 0, 0

    async def weigh(ids: list[int], tokens: list[int]) -> dict[int, float]:
        nonlocal waiting, most
        asked.append((ids, tokens))
        waiting, most = waiting + 1, max(most, waiting + 1)
        await asyncio.sleep(0.001 * (tokens[0] % 3))
        waiting -= 1
        return {token: log(ids, token) for token in (*tokens, 0)}

    async def run() -> torch.Tensor:
        return await weighed(CHAIN, Tree(answers), weigh, asyncio.Semaphore(room))

    return asyncio.run(run()), asked, most


def test_each_beginning_is_asked_once_behind_each_fork():
    answers = [(10, 11), (10, 12), (13,), (10, 11, 14)]
    logs, asked, most = found(answers)
    begun = [[1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3], [1, 2, 3, 4, 5, 8, 9]]
    expected = [[sum(log([*ids, *one[:i]], one[i]) for i in range(len(one))) for one in answers] for ids in begun]
    assert logs.tolist() == expected and logs.dtype == torch.float64
    branches = [([], [10, 13]), ([10], [11, 12]), ([10, 11], [14])]
    assert sorted(asked) == sorted(([*ids, *branch], tokens) for ids in begun for branch, tokens in branches)
    assert most == 5
    assert found(answers, room=2)[2] == 2


def test_as_many_tokens_are_asked_at_once_as_are_given():
    answers = [(token,) for token in range(1, 2 * MAX_TOKENS + 5)]
    logs, asked, _ = found(answers)
    assert sorted(len(tokens) for _, tokens in asked) == 3 * [4] + 6 * [MAX_TOKENS]
    assert logs[1].tolist() == [log([1, 2, 3], token) for (token,) in answers]


def test_what_is_longer_than_the_engine_takes_is_named():
    tree = Tree([(10, 11, 12), (13,)])
    check_lengths([CHAIN], tree, 11)  # the first fork's 8 tokens, two of the answer, and the one that is asked for
    with pytest.raises(InputError, match="q sample 2 has 11 tokens with its tail and answer, the engine takes 10"):
        check_lengths([CHAIN], tree, 10)
    check_lengths([Chain("r", 0, (1, 2, 3), (), ())], tree, 1)


def test_the_cache_is_told_as_a_share_of_all_tokens():
    use = CacheUse()
    assert use.share == 0
    use.add(100, 80)
    use.add(300, 120)
    assert use.share == 0.5
