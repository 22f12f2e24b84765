"""Means of activations over spans of tokens. Sums are formed inside the hooks: no activation outlives its layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from thinksteer.cpu import fitting_batch
from thinksteer.layout import Place, layout_of
from thinksteer.records import InputError, Passage, Reading, Site, Span

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Key = TypeVar("Key")

GPU_BATCH_TOKENS = 16384


@dataclass(frozen=True, eq=False)
class ClassMeans:
    """`means[site][label]`: `[num_layers, hidden_size]` on the CPU; `counts[label]`: the examples averaged."""

    means: dict[Site, dict[str, Tensor]]
    counts: dict[str, int]


def class_means(
    model: PreTrainedModel,
    passages: Sequence[Passage],
    sites: Sequence[Site],
    max_batch_tokens: int | None,
    after_norm: bool = False,
) -> ClassMeans:
    """The mean activation of each label at each site, every layer, in one pass over the passages.

    A span is one example: its tokens are averaged first, then the examples of a label, each with the same weight
    (ThinkEdit, section 3.1). `after_norm` reads the last layer's "block_out" behind the final norm, as upstream's
    `hidden_states[1:]` does; the default reads it before, in the same space as the other layers and as steering.
    """
    layout = layout_of(model)
    places = {site: [layout.site(layer, site) for layer in range(layout.shape[0])] for site in sites}
    if after_norm and "block_out" in places:
        places["block_out"][-1] = layout.final
    return ClassMeans(span_means(model, passages, places, max_batch_tokens), count_labels(passages))


def read_at(passages: Sequence[Passage], reading: Reading) -> list[Passage]:
    """The passages with each span replaced by the positions where it is read."""

    def positions(span: Span) -> Span:
        start, end = span.start + reading.shift, span.end + reading.shift
        return replace(span, start=start, end=end if reading.limit is None else min(end, start + reading.limit))

    def spans(passage: Passage) -> tuple[Span, ...]:
        own = tuple(map(positions, passage.spans))
        if reading.whole is None:
            return own
        ends = min(span.start for span in passage.spans), max(span.end for span in passage.spans)
        return (*own, Span(reading.whole, *ends))

    return [replace(passage, spans=spans(passage)) for passage in passages]


def count_labels(passages: Sequence[Passage]) -> dict[str, int]:
    """How many spans each label has."""
    return dict(Counter(span.label for passage in passages for span in passage.spans))


def span_means(
    model: PreTrainedModel,
    passages: Sequence[Passage],
    places: Mapping[Key, Sequence[Place]],
    max_batch_tokens: int | None,
) -> dict[Key, dict[str, Tensor]]:
    """Per key and label: the mean over examples of the mean over a span, `[len(places[key]), width]` on the CPU.

    In float64: two means that differ little keep their difference, and what is the same in all examples averages to
    itself.
    """
    sums: dict[Key, list[dict[str, Tensor]]] = {key: [{} for _ in row] for key, row in places.items()}

    def add_means(totals: dict[str, Tensor], batch: Sequence[Passage], hidden: Tensor) -> None:
        for row, passage in enumerate(batch):
            for label, spans in _by_label(passage).items():
                if all(span.end - span.start == 1 for span in spans):  # many, as one step for each takes its time
                    sums = hidden[row, [span.start for span in spans]].sum(dim=0, dtype=torch.float64)
                else:
                    means = [hidden[row, span.start : span.end].mean(dim=0, dtype=torch.float64) for span in spans]
                    sums = torch.stack(means).sum(0)
                totals[label] = totals[label] + sums if label in totals else sums

    visits = [
        (place, partial(add_means, totals))
        for key, row in places.items()
        for place, totals in zip(row, sums[key], strict=True)
    ]
    _read(model, passages, visits, max_batch_tokens)
    counts = count_labels(passages)
    return {key: {label: _average(row, label, counts[label]) for label in counts} for key, row in sums.items()}


def span_states(
    model: PreTrainedModel, passages: Sequence[Passage], site: Site, max_batch_tokens: int | None
) -> tuple[Tensor, Tensor]:
    """Each span's state at its last token, in the model's dtype, and the mean over its tokens, in float32 at least (16
    bits would round away what little tells means apart): both `[num_spans, entries, hidden_size]` on the CPU.

    Entries are numbered as `hidden_states` are: k is the residual stream that enters block k, the last one what leaves
    the last block, before the final norm; for a site inside the blocks, k is that of block k (`entries_of`). In the
    order of the passages and of their spans, in one pass. The result is all that is kept in memory.
    """
    layout, number = layout_of(model), count()
    numbered = [  # by their rows in the result
        replace(passage, spans=tuple(replace(span, label=str(next(number))) for span in passage.spans))
        for passage in passages
    ]
    places = [layout.site(layer, site) for layer in range(layout.shape[0])]
    if site == "block_in":
        places.append(layout.site(layout.shape[0] - 1, "block_out"))
    elif site == "block_out":
        places.insert(0, layout.site(0, "block_in"))
    last = torch.empty(next(number), len(places), layout.shape[1], dtype=model.dtype)
    mean = torch.empty_like(last, dtype=torch.promote_types(model.dtype, torch.float32))

    def keep(entry: int, batch: Sequence[Passage], hidden: Tensor) -> None:
        found = [(row, span) for row, passage in enumerate(batch) for span in passage.spans]
        to = [int(span.label) for _, span in found]
        last[to, entry] = hidden[[row for row, _ in found], [span.end - 1 for _, span in found]].cpu()
        means = [hidden[row, span.start : span.end].mean(dim=0, dtype=mean.dtype) for row, span in found]
        mean[to, entry] = torch.stack(means).cpu()

    _read(model, numbered, [(place, partial(keep, entry)) for entry, place in enumerate(places)], max_batch_tokens)
    if not torch.isfinite(mean).all():
        raise InputError(f"a state at {site} is not finite: load the model as bfloat16 or float32")
    return last, mean


def entries_of(states: Tensor, site: Site) -> Tensor:
    """Of states `[N, entries, D]` by `span_states` those of each layer at the site: `[N, num_layers, D]`."""
    return {"block_in": states[:, :-1], "block_out": states[:, 1:]}.get(site, states)


Visit = Callable[[Sequence[Passage], Tensor], None]
"""Is given a batch and its activations `[B, T, width]` at a place."""


def _read(
    model: PreTrainedModel,
    passages: Sequence[Passage],
    visits: Sequence[tuple[Place, Visit]],
    max_batch_tokens: int | None,
) -> None:
    """Read all passages once, batch by batch (None: of `cpu.fitting_batch`). Only the decoder runs: no output layer, no
    cache."""
    device = model.get_input_embeddings().weight.device
    with ExitStack() as hooks, torch.inference_mode(), tqdm(total=len(passages), unit="passage") as progress:
        for place, visit in visits:
            hooks.callback(place.watch(lambda hidden, visit=visit: visit(batch, hidden)).remove)
        for batch in pack(passages, max_batch_tokens or fitting_batch(model, GPU_BATCH_TOKENS)):
            model.base_model(input_ids=padded(batch).to(device), use_cache=False)
            progress.update(len(batch))


def _by_label(passage: Passage) -> dict[str, list[Span]]:
    spans: dict[str, list[Span]] = {}
    for span in passage.spans:
        spans.setdefault(span.label, []).append(span)
    return spans


def pack(passages: Sequence[Passage], max_batch_tokens: int) -> list[list[Passage]]:
    """Batches of passages of like length, at most `max_batch_tokens` tokens each, padding included; longest first.

    A passage longer than that makes a batch of its own.
    """
    for passage in passages:
        _check(passage)
    batches: list[list[Passage]] = []
    for passage in sorted(passages, key=_reach, reverse=True):
        # The first of a batch is its longest: it sets the width.
        if batches and (len(batches[-1]) + 1) * _reach(batches[-1][0]) <= max_batch_tokens:
            batches[-1].append(passage)
        else:
            batches.append([passage])
    return batches


def _check(passage: Passage) -> None:
    if not passage.spans:
        raise InputError(f"passage {passage.id} has no span to read")
    for span in passage.spans:
        if not 0 <= span.start < span.end <= len(passage.ids):
            raise InputError(f"passage {passage.id}: span {span} does not lie in its {len(passage.ids)} tokens")


def _reach(passage: Passage) -> int:
    """Tokens that have to be read: attention is causal, so what follows the last span changes nothing."""
    return max(span.end for span in passage.spans)


def padded(batch: Sequence[Passage]) -> Tensor:
    """Token ids `[B, T]`, padded on the right: real tokens keep their positions and, attention being causal, never
    see the padding, so that it needs neither a mask nor a padding token."""
    ids = torch.zeros(len(batch), max(map(_reach, batch)), dtype=torch.long)
    for row, passage in zip(ids, batch, strict=True):
        row[: _reach(passage)] = torch.tensor(passage.ids[: _reach(passage)])
    return ids


def _average(layers: Sequence[Mapping[str, Tensor]], label: str, count: int) -> Tensor:
    means = torch.stack([totals[label].cpu() / count for totals in layers])
    if not torch.isfinite(means).all():
        raise InputError(f'the mean activation of "{label}" is not finite: load the model as bfloat16 or float32')
    return means
