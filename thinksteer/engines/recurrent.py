"""Generating with a recurrent-depth model.

Such a model masks no padding, so rows that run together must be of one length. They take a token each at a time, and
leave when done; one that a forced answer made longer is read again, with others of its new length.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from thinksteer.engines.batch import Batch, Row
from thinksteer.layout import layout_of
from thinksteer.records import Condition, Sampling


def bytes_per_token(model: PreTrainedModel) -> int:
    """Of the cache, where each attention head has keys and values of its own."""
    steps, width = layout_of(model).shape
    return 2 * steps * width * model.dtype.itemsize


def in_step(
    model: PreTrainedModel,
    rows: Sequence[Row],
    together: int,
    sampling: Sampling,
    masks: dict[Condition, Tensor],
    settle: Callable[[Iterable[tuple[Row, int]]], Iterator[Row]],
) -> Iterator[Row]:
    """Runs rows, at most so many together; yields those that are done. `settle` gives rows the tokens drawn, and
    yields those that this ended."""
    waiting = list(rows)
    while waiting:
        alike = [row for row in waiting if len(row.ids) == len(waiting[0].ids)][:together]
        taken = set(map(id, alike))
        waiting = [row for row in waiting if id(row) not in taken]
        rank = Rank(model, alike, sampling, masks)
        while rank.rows:
            yield from settle(rank.step())
            waiting += rank.leave()


class StepCache:
    """Keys and values `[B, heads, T, head_dim]` of every depth step, as the model numbers them.

    In place of the model's own: Huginn's holds each token in a tensor of its own, and stacks them in every step.
    `checksums`: see `recurrent.seed_initial_states`.
    """

    def __init__(self, rows: int) -> None:
        self.parts: dict[int, tuple[Tensor, Tensor]] = {}
        self.checksums = [0] * rows

    def update(self, keys: Tensor, values: Tensor, step: int | Tensor) -> tuple[Tensor, Tensor]:
        """Adds new columns; returns all."""
        parts = self.parts.get(int(step))
        if parts is not None:
            keys, values = torch.cat([parts[0], keys], dim=2), torch.cat([parts[1], values], dim=2)
        self.parts[int(step)] = keys, values
        return keys, values

    def keep(self, rows: Sequence[int]) -> None:
        for step, parts in self.parts.items():
            self.parts[step] = tuple(part[list(rows)] for part in parts)
        self.checksums = [self.checksums[row] for row in rows]


class Rank(Batch):
    """Rows of one length."""

    def __init__(
        self, model: PreTrainedModel, rows: Sequence[Row], sampling: Sampling, masks: dict[Condition, Tensor]
    ) -> None:
        super().__init__(model, StepCache(len(rows)), sampling, masks)
        self.rows = list(rows)

    @torch.inference_mode()
    def step(self) -> list[tuple[Row, int]]:
        """Feeds all rows what they have that is not fed; returns each with its next token."""
        begin, end, device = self.rows[0].fed, len(self.rows[0].ids), self.model.device
        self._mask([(row, begin, end) for row in self.rows], end - begin)
        output = self.model(
            input_ids=torch.tensor([row.ids[begin:end] for row in self.rows], device=device),
            cache_position=torch.arange(begin, end, device=device),
            past_key_values=self.cache,
            use_cache=True,
        )
        for row in self.rows:
            row.fed = end
        return list(zip(self.rows, self._choose(output.logits[:, -1], self.rows), strict=True))

    def leave(self) -> list[Row]:
        """Drops the rows that are done; takes out those that became longer, to be read from the start."""
        length = self.rows[0].fed + 1
        kept = [place for place, row in enumerate(self.rows) if not row.done and len(row.ids) == length]
        longer = [replace(row, fed=0) for row in self.rows if not row.done and len(row.ids) > length]
        if len(kept) < len(self.rows):
            self.cache.keep(kept)
            self.rows = [self.rows[place] for place in kept]
        return longer
