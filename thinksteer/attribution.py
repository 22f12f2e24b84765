"""What adding a vector after a layer, at the one position before a span, does to the next token's distribution there.

Asked at places where a behaviour could have begun but did not, layer by layer, in five ways (`Effects`). Patching is
the truth; the gradient's estimates are here to be compared with it.

A patch changes nothing before its position, and only what is predicted there is read. So a passage is run once, and
every (span, layer, vector, length) is one more query token: a copy of the token before the span, at its position, that
sees the tokens before it in the passage's cache and itself, and is added to after its own layer alone. Any number of
copies share a pass; the loss of each depends on its own vector only, so one backward pass serves them all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from copy import copy
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import kl_div, normalize

from thinksteer.layout import Layout, check_vectors, output_head
from thinksteer.records import InputError, Passage, Site

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, eq=False)
class Effects:
    """Of a vector v, at each span in each layer, all `[num_spans, num_layers]` on the CPU. Divergences are in nats.

    - `kl`: KL(clean || patched) of the next token, where the patched run has v added in the layer.
    - `random`: the same, mean over random vectors as long as v.
    - `gradient`: <v, d log p(the span's first token) / dh>, signed: the first-order change of what was said there.
    - `log_odds`: <v, d log(p / (1 - p)) / dh> of the same token, signed: the gradient divided by 1 - p, so that what
      was said with certainty counts, too; `random_log_odds`: its size with random vectors, mean over them.
    - `integrated`: the KL's integrated gradients from h to h + v, which sum up to `kl` but for the nodes between: with
      1, 2, 4 and 8 of them they were 30, 5, 0.2 and 0.001 % off for the embedded model's
      uncertainty-estimation.onset. They cost more than `kl` itself and are worth it only as a check.
    - `upstream`: what Venhoff et al. plot as KL, from their code: |<v / |v|, d kl_div(log p, log p) / dh>|, where the
      target is log p itself, detached, without `log_target`. Do not choose layers by it: as a divergence it is NaN,
      and its gradient is that of -mean(log p' log p), p' held fixed, a mean over the vocabulary which weighs each of
      the least likely tokens by how unlikely it is. What was meant (`log_target=True`) has a gradient of exactly zero,
      a divergence being least where both sides agree. The unit vector also leaves out that norms grow with depth.
    """

    kl: Tensor
    random: Tensor
    gradient: Tensor
    integrated: Tensor
    upstream: Tensor
    log_odds: Tensor
    random_log_odds: Tensor


MEASURES = tuple(Effects.__dataclass_fields__)
ESTIMATES = ("gradient", "integrated", "upstream")
"""The measures that stand for `kl` without patching."""


def choose(passages: Sequence[Passage], own: Sequence[str], n_responses: int, n_spans: int, seed: int) -> list[Passage]:
    """At most so many responses, at random, with at most so many spans of each whose label is not one of `own`.

    In the order of ids, whatever the order of the passages. InputError if no other label is there.
    """
    rng, chosen = Random(seed), []
    others = [
        replace(passage, spans=tuple(span for span in passage.spans if span.label not in own))
        for passage in sorted(passages, key=lambda passage: (passage.id, passage.sample))
    ]
    others = [passage for passage in others if passage.spans]
    if not others:
        raise InputError(f"every span of {len(passages)} responses is labelled {' or '.join(own)}: none is left to try")
    for index in sorted(rng.sample(range(len(others)), min(n_responses, len(others)))):
        spans = others[index].spans
        taken = sorted(rng.sample(range(len(spans)), min(n_spans, len(spans))))
        chosen.append(replace(others[index], spans=tuple(spans[place] for place in taken)))
    return chosen


def layer_effects(
    model: PreTrainedModel,
    passage: Passage,
    site: Site,
    vectors: Tensor,
    controls: Tensor,
    n_nodes: int,
    max_batch_tokens: int,
) -> Effects:
    """The effects of `vectors` `[L, D]`, added at a site, at the spans of a passage; `controls` `[R, L, D]`, R > 0, are
    the random ones.

    `n_nodes`: Gauss-Legendre nodes of the integral. At once in memory: the cache of the passage, `max_batch_tokens`
    copies, and their logits (each copy about five float32 numbers per token of the vocabulary; the distributions at
    the spans, one). Freeze the model's weights (`requires_grad_(False)`) to spare what their gradients would need.
    """
    probe = _Probe(model, passage, site, max_batch_tokens)
    for each in (vectors, *controls):
        check_vectors(each, probe.shape)
    gradient, upstream, log_odds, random_log_odds = probe.gradients(vectors, controls)
    patched = probe.divergences(torch.stack([vectors, *controls]))
    nodes, weights = (torch.from_numpy(one) for one in np.polynomial.legendre.leggauss(n_nodes))  # on [-1, 1]
    slopes = probe.slopes(vectors, (nodes + 1) / 2)
    integrated = (slopes * (weights / 2).to(slopes)[:, None, None]).sum(dim=0)
    return Effects(patched[0], patched[1:].mean(dim=0), gradient, integrated, upstream, log_odds, random_log_odds)


def agreement(found: Sequence[Effects]) -> dict[str, dict[str, float | None]]:
    """How well the size of each estimate goes with `kl`: correlations, None where nothing differs.

    `spearman`, `pearson`: of all single (span, layer); `..._of_layers`: of the layers' means, each response alike.
    """
    from scipy.stats import pearsonr, spearmanr  # half a second that most stages never need

    def correlations(first: Tensor, second: Tensor, name: str) -> dict[str, float | None]:
        first, second = first.double().flatten(), second.double().flatten()
        flat = len(first) < 2 or first.std() == 0 or second.std() == 0
        both = {"spearman": spearmanr, "pearson": pearsonr}
        return {kind + name: None if flat else float(of(first, second).statistic) for kind, of in both.items()}

    sizes = {name: [getattr(one, name).abs() for one in found] for name in ("kl", *ESTIMATES)}
    single = {name: torch.cat(each) for name, each in sizes.items()}
    layers = {name: torch.stack([one.mean(dim=0) for one in each]).mean(dim=0) for name, each in sizes.items()}
    return {
        name: correlations(single["kl"], single[name], "") | correlations(layers["kl"], layers[name], "_of_layers")
        for name in ESTIMATES
    }


class _Probe:
    """One passage, and copies of its tokens before the spans that are run again, each with something added to it."""

    def __init__(self, model: PreTrainedModel, passage: Passage, site: Site, max_batch_tokens: int) -> None:
        from transformers import DynamicCache

        layout, self.head = Layout(model), output_head(model)
        self.model, self.shape, self.max_batch_tokens = model, layout.shape, max_batch_tokens
        self.sites = [layout.site(layer, site) for layer in range(layout.shape[0])]
        self.device = model.get_input_embeddings().weight.device
        self.dtype = torch.promote_types(model.dtype, torch.float32)
        for span in passage.spans:
            if not 0 < span.start < len(passage.ids):
                raise InputError(f"passage {passage.id}: nothing comes before {span} in its {len(passage.ids)} tokens")
        self.ids = torch.tensor(passage.ids, device=self.device)
        self.starts = torch.tensor([span.start for span in passage.spans], device=self.device)
        last = int(self.starts.max())
        self.window = _window(model, last)
        with torch.no_grad():  # a cache made without a config drops no token that slid out of a window
            self.prefix = model.base_model(
                input_ids=self.ids[None, :last], past_key_values=DynamicCache(), use_cache=True
            ).past_key_values
            self.rows = torch.arange(len(self.starts), device=self.device).split(max_batch_tokens)
            self.clean = torch.cat([self._predict(rows, lambda layer: None) for rows in self.rows])  # [S, V]

    def gradients(self, vectors: Tensor, controls: Tensor) -> tuple[Tensor, ...]:
        """`Effects.gradient`, `upstream`, `log_odds` and `random_log_odds`; one copy per span serves all layers."""
        vectors, controls = (one.to(self.device, self.dtype) for one in (vectors, controls))
        parts = []
        for rows in self.rows:
            size = (len(rows), self.shape[1])
            added = [torch.zeros(size, dtype=self.dtype, device=self.device, requires_grad=True) for _ in self.sites]
            logs = self._predict(rows, added.__getitem__)  # [C, V]
            first = self.ids[self.starts[rows], None]
            said = logs.gather(1, first)
            # 1 - p by the other tokens: of a p near 1 nothing would be left of the difference.
            odds = said - logs.scatter(1, first, -torch.inf).logsumexp(dim=1, keepdim=True)
            # Upstream's loss, a mean over the vocabulary, of each copy. Its value is NaN.
            published = kl_div(logs, logs.detach(), reduction="none").mean(dim=-1)
            gradient, upstream, log_odds = (
                torch.stack(torch.autograd.grad(loss.sum(), added, retain_graph=True), dim=1)  # [C, L, D]
                for loss in (said, published, odds)
            )
            along = [(gradient * vectors).sum(-1), (upstream * normalize(vectors, dim=-1)).sum(-1).abs()]
            along += [(log_odds * vectors).sum(-1), (log_odds * controls[:, None]).sum(-1).abs().mean(dim=0)]
            parts.append(torch.stack(along))  # [4, C, L]
        return tuple(torch.cat(parts, dim=1).cpu())

    @torch.no_grad()
    def divergences(self, vectors: Tensor) -> Tensor:
        """KL(clean || patched) with each of the vectors `[A, L, D]`: `[A, num_spans, L]`."""
        vectors = vectors.to(self.device, self.dtype)

        def measure(which: Tensor, rows: Tensor, layers: Tensor) -> Tensor:
            return self._divergence(rows, layers, vectors[which, layers])

        return self._each(len(vectors), measure)

    def slopes(self, vectors: Tensor, alphas: Tensor) -> Tensor:
        """d KL(clean || patched with alpha * vectors) / d alpha at each of the alphas `[A]`: `[A, num_spans, L]`."""
        vectors, alphas = vectors.to(self.device, self.dtype), alphas.to(self.device, self.dtype)

        def measure(which: Tensor, rows: Tensor, layers: Tensor) -> Tensor:
            alpha = alphas[which].requires_grad_()
            divergence = self._divergence(rows, layers, alpha[:, None] * vectors[layers])
            return torch.autograd.grad(divergence.sum(), alpha)[0]

        return self._each(len(alphas), measure)

    def _each(self, count: int, measure: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
        """What `measure` makes `[C]` of copies, given as [alternative, span, layer] `[C]` each, of all there are."""
        sizes = (count, len(self.starts), self.shape[0])
        copies = torch.cartesian_prod(*(torch.arange(size, device=self.device) for size in sizes)).view(-1, 3)
        return torch.cat([measure(*batch.unbind(1)) for batch in copies.split(self.max_batch_tokens)]).view(sizes).cpu()

    def _divergence(self, rows: Tensor, layers: Tensor, vectors: Tensor) -> Tensor:
        """KL(clean || patched) `[C]` where the copy of span rows[i] has vectors[i] `[D]` added after layers[i]."""
        patched = self._predict(rows, lambda layer: vectors * (layers == layer)[:, None])
        return kl_div(patched, self.clean[rows], log_target=True, reduction="none").sum(dim=-1)

    def _predict(self, rows: Tensor, added: Callable[[int], Tensor | None]) -> Tensor:
        """Log-probabilities `[C, V]` of the token after each copy, with `added(layer)` `[C, D]` put on every layer."""

        def adder(layer: int) -> Callable[[Tensor], Tensor | None]:
            def add(hidden: Tensor) -> Tensor | None:
                vectors = added(layer)
                return None if vectors is None else hidden + vectors.to(hidden)

            return add

        places = self.starts[rows] - 1
        cache = copy(self.prefix)  # its layers put what they see in new tensors, the prefix's stay as they are
        cache.layers = [copy(layer) for layer in self.prefix.layers]
        with ExitStack() as hooks:
            for layer, place in enumerate(self.sites):
                hooks.callback(place.watch(adder(layer)).remove)
            hidden = self.model.base_model(
                input_ids=self.ids[None, places],
                position_ids=places[None],
                attention_mask=self._mask(places),
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state[0]
        return self.head(hidden).to(self.device, self.dtype).log_softmax(dim=-1)

    def _mask(self, places: Tensor) -> Tensor:
        """What each copy does not see, as a number to add `[1, 1, C, T + C]`: all but what is before it, and itself."""
        columns = torch.arange(self.prefix.get_seq_length(), device=self.device)
        before = columns < places[:, None]
        if self.window is not None:
            before &= columns > places[:, None] - self.window
        seen = torch.cat([before, torch.eye(len(places), dtype=torch.bool, device=self.device)], dim=1)
        mask = torch.zeros(seen.shape, dtype=self.model.dtype, device=self.device)
        return mask.masked_fill(~seen, torch.finfo(mask.dtype).min)[None, None]


def _window(model: PreTrainedModel, length: int) -> int | None:
    """How many tokens each layer attends to, None: all. InputError where that differs between layers."""
    window = getattr(model.config, "sliding_window", None)
    if window is None or window >= length:
        return None
    if len(set(getattr(model.config, "layer_types", None) or ["alike"])) > 1:
        raise InputError(
            f"some layers attend to {window} tokens, some to all, and a passage has {length}: patches of such a model "
            "cannot be run together"
        )
    return window
