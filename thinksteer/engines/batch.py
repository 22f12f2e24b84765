"""The running batch: rows enter by prefill, take one token a step together, and leave when done.

Invariants: row r owns slot r; the columns before `column` hold, at their right end, the `fed` tokens of each live row.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from thinksteer.cpu import fitting_batch
from thinksteer.engines.cache import SlotCache
from thinksteer.engines.sampling import choose, uniforms
from thinksteer.records import Condition, Request, Sampling
from thinksteer.steering import Gate

PREFILL_TOKENS = 8192  # of one forward pass on a GPU, padding included


@dataclass
class Row:
    """A request on its way: `ids` = prompt and response so far, of which the cache holds the first `fed`.

    The response ends at an EOS or when `ids` is `stop` long. `gate` tells where conditional edits act.
    """

    request: Request
    ids: list[int]
    stop: int
    gate: Gate
    fed: int = 0
    forced_at: int | None = None
    done: bool = False

    @property
    def drawn(self) -> int:
        """Tokens of the response so far, and so the index of the uniform that draws the next one."""
        return len(self.ids) - len(self.request.prompt_ids)


class Batch:
    """Rows in a cache. It proposes the next token of each row; the caller appends it to the row, or ends the row.

    `masks`: of the edits that the model runs under (see `steering.applied`).
    """

    def __init__(
        self, model: PreTrainedModel, cache: SlotCache, sampling: Sampling, masks: dict[Condition, Tensor]
    ) -> None:
        self.model, self.cache, self.sampling, self.masks = model, cache, sampling, masks
        self.prefill_tokens = fitting_batch(model, PREFILL_TOKENS)
        self.rows: list[Row] = []
        self.column = 0  # the next one to write

    @property
    def live(self) -> int:
        return sum(not row.done for row in self.rows)

    @property
    def begin(self) -> int:
        """The first column in use."""
        return self.column - max((row.fed for row in self.rows if not row.done), default=0)

    @property
    def full(self) -> bool:
        return self.column == self.cache.columns

    def drop_done(self) -> None:
        """The last live rows move into the slots of rows that are done, so that the live ones come first again."""
        live = self.live
        holes = [slot for slot in range(live) if self.rows[slot].done]
        movers = [slot for slot in range(live, len(self.rows)) if not self.rows[slot].done]
        if holes:
            self.cache.move(movers, holes, slice(self.begin, self.column))
        for hole, mover in zip(holes, movers, strict=True):
            self.rows[hole] = self.rows[mover]
        del self.rows[live:]

    def take_out(self, longer_than: int) -> list[Row]:
        """Ends the live rows with more than so many tokens fed; returns copies that are to be prefilled again later."""
        taken = [row for row in self.rows if not row.done and row.fed > longer_than]
        for row in taken:
            row.done = True
        return [dataclasses.replace(row, fed=0, done=False) for row in taken]

    def move_window(self, column: int) -> None:
        """The used columns now end before `column`."""
        begin = self.begin
        if self.rows and begin < self.column:
            self.cache.shift(slice(len(self.rows)), slice(begin, self.column), column - self.column)
        self.column = column

    def admit(self, rows: Sequence[Row]) -> Iterator[tuple[Row, int]]:
        """Prefills rows into the slots after those in use; yields each with its next token."""
        longest = max(len(row.ids) for row in rows)
        if self.column < longest:
            self.move_window(longest)
        begin = 0
        while begin < len(rows):
            width, end = len(rows[begin].ids), begin + 1
            while end < len(rows) and (end + 1 - begin) * max(width, len(rows[end].ids)) <= self.prefill_tokens:
                width, end = max(width, len(rows[end].ids)), end + 1
            yield from self._prefill(rows[begin:end], width)
            begin = end

    @torch.inference_mode()
    def _prefill(self, rows: Sequence[Row], width: int) -> list[tuple[Row, int]]:
        # The samples of one question share their prompt: it is computed once and copied.
        groups: dict[tuple[int, ...], list[Row]] = {}
        for row in rows:
            groups.setdefault(tuple(row.ids), []).append(row)
        repeats = [(place, row) for place, group in enumerate(groups.values()) for row in group[1:]]
        slot, first, device = len(self.rows), self.column - width, self.model.device
        # Padding repeats the first token at its own position, seeing itself alone: it cannot overflow unless that does.
        padded = [[part[0]] * (width - len(part)) + list(part) for part in groups]
        ids = torch.tensor(padded, device=device)  # [n, width]
        pads = torch.tensor([width - len(part) for part in groups], device=device)[:, None]  # [n, 1]
        places = torch.arange(width, device=device)
        query = places[:, None]  # [width, 1]
        seen = (places >= pads)[:, None] & (places <= query) | (places == query)  # [n, width, width]
        self.cache.aim(slice(slot, slot + len(groups)), first, slice(first, self.column))
        self._mask([(group[0], 0, len(part)) for part, group in groups.items()], width)
        logits = self._forward(ids, (places - pads).clamp(min=0), seen[:, None])
        self.rows += [*(group[0] for group in groups.values()), *(row for _, row in repeats)]
        for row in rows:
            row.fed = len(row.ids)
        if repeats:
            sources = [slot + place for place, _ in repeats]
            targets = list(range(slot + len(groups), len(self.rows)))
            self.cache.move(sources, targets, slice(first, self.column))
            logits = torch.cat([logits, logits[[place for place, _ in repeats]]])
        entered = self.rows[slot:]
        return list(zip(entered, self._choose(logits, entered), strict=True))

    @torch.inference_mode()
    def step(self) -> list[tuple[Row, int]]:
        """Feeds one token of every row; returns those that have no more to feed, each with its next token."""
        rows, device = self.rows, self.model.device
        begin = self.begin
        # Rows that are done but not dropped yet feed a token that nobody looks at.
        inputs = [(row.ids[-1 if row.done else row.fed], row.fed) for row in rows]
        ids, positions = torch.tensor(inputs, device=device).split(1, dim=1)  # [n, 1] each
        seen = torch.arange(begin, self.column + 1, device=device) >= self.column - positions  # [n, columns read]
        self.cache.aim(slice(len(rows)), begin, slice(self.column, self.column + 1))
        self._mask([(row, row.fed - row.done, row.fed + (not row.done)) for row in rows], 1)
        logits = self._forward(ids, positions, seen[:, None, None])
        self.column += 1
        for row in rows:
            row.fed += not row.done
        tokens = self._choose(logits, rows)
        return [
            (row, token) for row, token in zip(rows, tokens, strict=True) if not row.done and row.fed == len(row.ids)
        ]

    def _mask(self, fed: Sequence[tuple[Row, int, int]], width: int) -> None:
        """Fills the masks for a pass over the positions [begin, end) of some rows, padded at the left to a width."""
        for index, where in enumerate(fed[0][0].gate.conditions):
            held = [row.gate.mask(row.ids, begin, end)[index] for row, begin, end in fed]
            padded = [[False] * (width - len(row)) + row for row in held]
            self.masks[where] = torch.tensor(padded, device=self.model.device)

    def _forward(self, ids: Tensor, positions: Tensor, seen: Tensor) -> Tensor:
        """Logits `[n, V]` after the last of the ids `[n, t]`; positions `[n, t]`, seen `[n, 1, t, columns]`."""
        # Added to the scores; made once here, where a mask of booleans would be converted in every layer.
        mask = torch.zeros(seen.shape, dtype=self.cache.dtype, device=seen.device).masked_fill_(~seen, -torch.inf)
        output = self.model(
            input_ids=ids,
            position_ids=positions,
            attention_mask=mask,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1]

    def _choose(self, logits: Tensor, rows: Sequence[Row]) -> list[int]:
        drawn = [row.drawn for row in rows]
        draws = uniforms([row.request.seed for row in rows], drawn)
        return choose(logits, draws, [row.ids for row in rows], drawn, self.sampling).tolist()
