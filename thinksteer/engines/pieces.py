"""One row of many pieces: tokens that a model reads in one pass, without padding, and that attend piece by piece."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.functional import scaled_dot_product_attention
from transformers import PreTrainedModel

from thinksteer.engines.attention import replaced

ATTENTION = "by_pieces"


@dataclass(eq=False)
class Piece:
    """Tokens that attend to each other and, unless they are themselves a stem, to one.

    `ids`, `places`: `[T]`, the tokens and their positions in their texts; `held`: where each condition of the edits
    holds `[conditions][T]`. `stem`: where the stem lies in the row of stems; `before`: how many tokens of it each token
    sees `[T]`; `leads`: which of its own piece it sees `[T, T]`, itself among them. In a stem each token sees those up
    to itself.
    """

    ids: list[int]
    places: list[int]
    held: list[list[bool]]
    stem: slice | None = None
    before: Tensor | None = None
    leads: Tensor | None = None

    def mask(self, window: int | None, like: Tensor) -> Tensor | None:
        """What is added to the scores `[T, stem + T]` of a layer that attends to so many tokens (None: to all). None:
        each token sees those up to itself."""
        if window is not None and window > max(self.places):
            window = None
        if self.stem is None and window is None:
            return None
        place = {"device": like.device}
        columns = places = torch.tensor(self.places, **place)
        if self.stem is None:
            seen = torch.ones(len(places), len(places), dtype=torch.bool, **place).tril()
        else:
            above, before = torch.arange(self.stem.stop - self.stem.start, **place), self.before.to(**place)
            seen = torch.cat([above < before[:, None], self.leads.to(**place)], dim=1)
            columns = torch.cat([above, places])
        if window is not None:
            seen &= columns > places[:, None] - window
        return torch.zeros(seen.shape, dtype=like.dtype, **place).masked_fill_(~seen, -torch.inf)


class Row:
    """What a model reads under `attention_by_pieces`: rows of stems, and rows of pieces that see the stems of the last
    such row, of which the keys and values are kept."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self._pieces: Sequence[Piece] = ()
        self._masks: dict[tuple[Piece, int | None], Tensor | None] = {}  # of this pass, the same for many layers
        # Of each call of a pass, [kv_heads, T, head_dim]: a layer may attend more than once, as DiffLlama's do.
        self._stems: list[tuple[Tensor, Tensor]] = []
        self._calls = 0

    def logits(self, pieces: Sequence[Piece], at: Tensor) -> Tensor:
        """The model's logits `[N, V]` at N indices of the row of these pieces, one behind the other: all stems, or
        none."""
        self._pieces, self._masks, self._calls, device = pieces, {}, 0, self.model.device
        if pieces[0].stem is None:
            self._stems = []
        return self.model(
            input_ids=torch.tensor([[one for piece in pieces for one in piece.ids]], device=device),
            position_ids=torch.tensor([[one for piece in pieces for one in piece.places]], device=device),
            use_cache=False,
            logits_to_keep=at.to(device),
        ).logits[0]

    def attend(
        self,
        module: Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: None,
        dropout: float = 0.0,
        scaling: float | None = None,
        sliding_window: int | None = None,
        **kwargs: object,
    ) -> tuple[Tensor, None]:
        """The attention `[1, T, heads, head_dim]` of one call; query, key and value `[1, heads, T, head_dim]`."""
        # Key-value heads stand where rows would, so that nothing is copied for the query heads of each.
        queries = query[0].unflatten(0, (key.shape[1], -1))  # [kv_heads, groups, T, head_dim]
        are_stems = self._pieces[0].stem is None
        if are_stems:
            self._stems.append((key[0], value[0]))
        begin, outputs, call = 0, [], self._calls
        self._calls += 1
        for piece in self._pieces:
            own = slice(begin, begin + len(piece.ids))
            read = key[0, :, own], value[0, :, own]
            if not are_stems:
                stems = (kept[:, piece.stem] for kept in self._stems[call])
                read = tuple(torch.cat(both, dim=1) for both in zip(stems, read, strict=True))
            if (piece, sliding_window) not in self._masks:
                self._masks[piece, sliding_window] = piece.mask(sliding_window, query)
            mask = self._masks[piece, sliding_window]
            shared = (one[:, None].expand(-1, queries.shape[1], -1, -1) for one in read)
            output = scaled_dot_product_attention(
                queries[:, :, own], *shared, attn_mask=mask, is_causal=mask is None, scale=scaling
            )
            outputs.append(output)
            begin = own.stop
        return torch.cat(outputs, dim=2).flatten(0, 1).transpose(0, 1)[None], None


@contextmanager
def attention_by_pieces(model: PreTrainedModel) -> Iterator[Row]:
    """Inside the `with` the model attends as the row that it gives has it."""
    row = Row(model)
    with replaced(model, ATTENTION, row.attend):
        yield row
