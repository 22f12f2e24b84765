"""What an edit does: to activations at run time, or to the weights of chosen heads, out of which it is projected."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from thinksteer.directions import unit
from thinksteer.layout import check_vectors, layout_of
from thinksteer.records import EVERYWHERE, Condition, Edit, InputError, Site
from thinksteer.thinking import Finder, Follower

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, eq=False)
class Change:
    """What edits do together to an activation h `[..., D]`: `added` + (h @ read.T) @ write is added to it.

    `added`: `[D]`; `read` and `write`: `[K, D]`, a row each for every amplification (read u, write coef * u).
    """

    added: Tensor
    read: Tensor
    write: Tensor

    @classmethod
    def of_rows(cls, rows: Tensor) -> Change:
        """From its tensors as the rows of one `[1 + 2 K, D]`."""
        read, write = rows[1:].chunk(2) if len(rows) > 1 else (rows[1:], rows[1:])
        return cls(rows[0], read, write)

    def rows(self) -> Tensor:
        return torch.cat([self.added[None], self.read, self.write])

    def to(self, like: Tensor) -> Change:
        """On the device and in the dtype of the weights beside it. Projections need float32 at least: what ablation
        leaves of a large activation would be the rounding of its 16 bits."""
        wide = torch.promote_types(like.dtype, torch.float32)
        return Change(self.added.to(like), self.read.to(like.device, wide), self.write.to(like.device, wide))

    def __add__(self, other: Change) -> Change:
        read, write = torch.cat([self.read, other.read]), torch.cat([self.write, other.write])
        return Change(self.added + other.added, read, write)

    def of(self, hidden: Tensor) -> Tensor:
        """What is added to `[..., D]`."""
        if not len(self.read):
            return self.added
        return self.added + (hidden.to(self.read) @ self.read.T) @ self.write


Changes = dict[tuple[int, Site], dict[Condition, Change]]
"""(layer, site) -> what is done there, under each condition."""


@contextmanager
def applied(model: PreTrainedModel, edits: Sequence[Edit]) -> Iterator[dict[Condition, Tensor]]:
    """Within this block every forward pass of the model is steered; edits of one place add up.

    Before each pass the block puts the positions of each condition of the edits, bool `[B, T]`, into the dict that it
    is given; edits that act everywhere need none.
    """
    layout, masks = layout_of(model), {}
    with ExitStack() as hooks:
        for (layer, site), parts in changes(edits, layout.shape).items():
            # Cast and moved here, once: a hook runs at every decoding step.
            parts = {where: one.to(layout.beside(layer)) for where, one in parts.items()}
            hooks.callback(layout.site(layer, site).watch(changer(parts, masks)).remove)
        yield masks


def changer(
    parts: Mapping[Condition, Change], masks: Mapping[Condition, Tensor]
) -> Callable[[Tensor, Tensor | None], Tensor]:
    """What a hook does to `[..., D]`: each part changes it at the positions `[...]` that are then in the masks.

    `rest` is the remainder of an activation that comes in two summands, of which only the first is changed.
    """
    reads = any(len(one.read) for one in parts.values())

    def change(hidden: Tensor, rest: Tensor | None = None) -> Tensor:
        whole = hidden if rest is None or not reads else hidden + rest
        result = hidden
        for where, one in parts.items():
            steered = (result + one.of(whole)).to(hidden.dtype)
            result = steered if where == EVERYWHERE else torch.where(masks[where][..., None], steered, result)
        return result

    return change


def conditions(edits: Sequence[Edit]) -> list[Condition]:
    """The different conditions of edits that do not act everywhere."""
    return list(dict.fromkeys(edit.where for edit in edits if edit.where != EVERYWHERE))


class Gate:
    """Where on one growing sequence conditional edits act, and at how many positions they have."""

    def __init__(self, conditions: Sequence[Condition], follower: Follower) -> None:
        self.conditions, self.follower = conditions, follower
        texts = {where.text for where in conditions if where.text is not None}
        self.finders = {text: Finder(text, follower.marks.token_bytes) for text in texts}
        self.count = self._counted = 0

    def __copy__(self) -> Gate:
        """A gate that follows another continuation of the same beginning."""
        other = Gate.__new__(Gate)
        finders = {text: copy(finder) for text, finder in self.finders.items()}
        other.__dict__ |= self.__dict__ | {"follower": copy(self.follower), "finders": finders}
        return other

    def mask(self, ids: Sequence[int], begin: int, end: int) -> list[list[bool]]:
        """Whether each condition holds at the positions [begin, end) of `ids`: `[conditions][end - begin]`.

        Positions may be asked for again (a cache was dropped) or skipped (another sequence's cache served them): each
        counts once.
        """
        if not self.conditions:
            return []
        inside, first = self.follower.inside(ids, end), min(begin, self._counted)
        completing = {text: finder.upto(ids, end) for text, finder in self.finders.items()}
        rows = [
            [
                (where.tokens is None or int(ids[place]) in where.tokens)
                and (where.text is None or place in completing[where.text])
                and (not where.in_thinking or place in inside)
                and (not where.responding or place >= self.follower.prompt_length - 1)
                for place in range(first, end)
            ]
            for where in self.conditions
        ]
        self.count += sum(map(any, list(zip(*rows, strict=True))[self._counted - first :]))
        self._counted = max(self._counted, end)
        return [row[begin - first :] for row in rows]

    def count_to(self, ids: Sequence[int], length: int) -> int:
        """At how many of the first `length` positions any condition held."""
        self.mask(ids, length, length)
        return self.count


def changes(edits: Sequence[Edit], shape: tuple[int, int]) -> Changes:
    """What the edits together do at each layer, site and condition, in float64; all read the same, unchanged, h.

    `shape`: the model's number of layers and hidden size. InputError: a direction of another model's shape, a layer
    that is not there, a place that is only read, a vector that is not finite.
    """
    found: Changes = {}
    for edit in edits:
        check_vectors(edit.vectors, shape)
        if edit.site == "mid":
            raise InputError(
                '"mid" is a place to read: steer at "attn_out", which is added to the same residual stream'
            )
        for layer in edit.layers:
            if not 0 <= layer < shape[0]:
                raise InputError(f"there is no layer {layer}: the model has {shape[0]}, counted from 0")
            if not torch.isfinite(edit.coef * edit.vectors[layer]).all():
                place = f"the vector to {edit.operation} at {edit.site} of layer {layer}"
                raise InputError(f"{place} is not finite at weight {edit.coef:g}: give a smaller weight")
            one = _change(edit, layer)
            parts = found.setdefault((layer, edit.site), {})
            parts[edit.where] = parts[edit.where] + one if edit.where in parts else one
    return found


def _change(edit: Edit, layer: int) -> Change:
    vector = edit.vectors[layer].double().cpu()
    none = vector.new_zeros(0, len(vector))
    if edit.operation == "add":
        return Change(edit.coef * vector, none, none)
    read = unit(vector)[None] if vector.any() else none
    return Change(torch.zeros_like(vector), read, edit.coef * read)


def project_out(weight: Tensor, heads: Sequence[int], head_dim: int, direction: Tensor, strength: float) -> Tensor:
    """An `o_proj` weight whose heads no longer write along a direction (ThinkEdit, section 4.2).

    A head's block W `[D, head_dim]` of the weight `[D, H * head_dim]` becomes `W - strength v v^T W` with the unit
    direction v. The sign of the direction does not matter: both components along it go, the short and the long.
    Computed in float32 at least, returned in the weight's dtype; the columns of other heads are the same bits.
    """
    columns = _columns(weight, heads, head_dim, direction)
    precision = torch.promote_types(weight.dtype, torch.float32)
    toward = unit(direction.to(weight.device, precision))
    edited = weight.clone()
    for block in columns:
        old = weight[:, block].to(precision)
        edited[:, block] = (old - strength * torch.outer(toward, toward @ old)).to(weight.dtype)
    return edited


def head_norms(weight: Tensor, heads: Sequence[int], head_dim: int, direction: Tensor) -> dict[int, float]:
    """Per head, how strongly it can write along the direction: `||v^T W||` of the weight as stored.

    After `project_out` in a 16-bit dtype this is not exactly zero: rounding the edited weight leaves a remainder.
    """
    columns = _columns(weight, heads, head_dim, direction)
    precision = torch.promote_types(weight.dtype, torch.float32)
    toward = unit(direction.to(weight.device, precision))
    norms = [(toward @ weight[:, block].to(precision)).norm().item() for block in columns]
    return dict(zip(heads, norms, strict=True))


def _columns(weight: Tensor, heads: Sequence[int], head_dim: int, direction: Tensor) -> list[slice]:
    if direction.shape != weight.shape[:1] or weight.shape[1] % head_dim:
        shapes = f"o_proj {tuple(weight.shape)}, direction {tuple(direction.shape)}, heads of {head_dim}"
        raise InputError(f"{shapes} do not fit together: the direction or the heads come from another model")
    num_heads = weight.shape[1] // head_dim
    for head in heads:
        if not 0 <= head < num_heads:
            raise InputError(f"there is no head {head}: the layer has {num_heads}, counted from 0")
    return [slice(head * head_dim, (head + 1) * head_dim) for head in heads]
