"""Where a chain of thought is broken off to see how sure the model is of its answer, and the answers that are weighed.

After wassname's action confidence (repeng, pull request 69): every few tokens of a response the thinking is closed, if
it is open, a text that asks for the answer is appended, and the log-probabilities of the possible answers are read.
`Engine.probe` does that, on the tokens as they were generated.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from thinksteer.records import InputError, Record
from thinksteer.thinking import Reader, Template

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Fork:
    """A place in a chain where it is broken off and the answer is asked for.

    `at`: tokens of the response before it; `tail`: what is fed then, the closing delimiter where the thinking is open,
    and the suffix.
    """

    at: int
    tail: tuple[int, ...]


@dataclass(frozen=True)
class Chain:
    """A response as tokens, and where it is to be broken off. `id` and `sample` are those of its record."""

    id: str
    sample: int
    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    forks: tuple[Fork, ...]

    def __post_init__(self) -> None:
        if not self.prompt_ids:
            raise InputError(f"{self.id} sample {self.sample} has an empty prompt")
        if wrong := [fork.at for fork in self.forks if not 0 <= fork.at <= len(self.token_ids)]:
            raise InputError(
                f"{self.id} sample {self.sample} has {len(self.token_ids)} tokens and no place {wrong[0]} to break off"
            )


def tails(
    template: Template, tokenizer: PreTrainedTokenizerBase, suffix: str
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What is fed at a fork where the thinking is open (a new line, the closing delimiter and the suffix), and where it
    is not (the suffix). Each is tokenised as one text by itself, and nothing of the chain before it ever again."""
    closing, plain = (
        tuple(tokenizer(text, add_special_tokens=False).input_ids) for text in (template.closing + suffix, suffix)
    )
    return closing, plain


def chain(
    record: Record, reader: Reader, every: int, closing_ids: tuple[int, ...], suffix_ids: tuple[int, ...]
) -> Chain:
    """A record's response with its `forks`."""
    made = forks(record, reader, every, closing_ids, suffix_ids)
    return Chain(record.id, record.sample, reader.prompt(record), record.token_ids, made)


def forks(
    record: Record, reader: Reader, every: int, closing_ids: tuple[int, ...], suffix_ids: tuple[int, ...]
) -> tuple[Fork, ...]:
    """Forks at 0, after every `every` tokens of a response, and where its thinking ends.

    That is one past the closing delimiter: the last fork asks behind the model's own. Thinking that was never closed
    ends where it was cut, before any forced answer, or stopped, before the EOS. A response that never thought ends
    before its answer, the last place where `prediction` stands, with the box around it; with none, where it was cut or
    stopped.

    Where the thinking is open, from behind its opening delimiter to before its closing one, the tail is `closing_ids`,
    elsewhere `suffix_ids` (see `tails`). No fork lies inside a delimiter. InputError as of `Reader.read`.
    """
    ids, found = reader.read(record)
    offset, end = len(ids) - len(record.token_ids), _cut(record)
    if found.start is None or found.status == "empty":
        end = _stated(record, reader, end)
        return tuple(Fork(at, suffix_ids) for at in sorted({*range(0, end, every), end}))
    start, opened = found.start - offset, found.opened - offset
    closed = end if found.closed is None else found.closed - offset
    end = end if found.end is None else found.end - offset
    places = [at for at in sorted({*range(0, end, every), end}) if not (start < at < opened or closed < at < end)]
    return tuple(Fork(at, closing_ids if opened <= at <= closed else suffix_ids) for at in places)


def _cut(record: Record) -> int:
    """Tokens of a response before what was forced, and without the one that ended it."""
    if record.forced_at is not None:
        return record.forced_at
    return len(record.token_ids) - (record.finish_reason == "stop")


def _stated(record: Record, reader: Reader, end: int) -> int:
    """How many whole tokens of the first `end` come before the answer that was read out of them."""
    text = reader.decode(record.token_ids[:end])
    found = [*re.finditer(r"(?:\\(?:boxed|fbox)\s*\{?\s*)?" + re.escape(record.prediction or ""), text)]
    if not record.prediction or not found:
        return end
    return bisect_right(range(end), found[-1].start(), key=lambda n: len(reader.decode(record.token_ids[:n]))) - 1


class Tree:
    """Answers, as sequences of tokens, with what they share: `branches` has each distinct beginning of them once, the
    empty one first and every one behind its own beginnings, and the tokens that continue it."""

    def __init__(self, answers: Sequence[tuple[int, ...]]) -> None:
        import torch
        from torch.nn.utils.rnn import pad_sequence

        if not answers or not all(answers):
            raise InputError("there is nothing to weigh: give one answer or more, each of at least one token")
        self.branches: dict[tuple[int, ...], list[int]] = {}
        for answer in answers:
            for depth, token in enumerate(answer):
                tokens = self.branches.setdefault(answer[:depth], [])
                if token not in tokens:
                    tokens.append(token)
        edges = [(*begun, token) for begun, tokens in self.branches.items() for token in tokens]
        numbers = {edge: number for number, edge in enumerate(edges)}
        paths = [torch.tensor([numbers[answer[: depth + 1]] for depth in range(len(answer))]) for answer in answers]
        self._paths = pad_sequence(paths, batch_first=True, padding_value=-1)  # [answers, depths]

    @property
    def size(self) -> int:
        """How many tokens the branches have together."""
        return sum(map(len, self.branches.values()))

    def answers(self, steps: Tensor) -> Tensor:
        """Log-probabilities `[..., answers]` from those of each branch's tokens, one branch after the other
        `[..., tokens]`."""
        import torch

        behind = steps.new_zeros(*steps.shape[:-1], 1)  # of an answer that is shorter than others
        return torch.cat([steps, behind], dim=-1)[..., self._paths].sum(dim=-1)
