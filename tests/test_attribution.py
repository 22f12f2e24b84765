"""Effects of vectors by layer against plain forward passes, one patch at a time, with derivatives of their own."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import FAMILIES, VOCABULARY, build_model
from torch.nn.functional import kl_div
from transformers import GraniteConfig, GraniteForCausalLM, Qwen2Config, Qwen2ForCausalLM

from thinksteer.attribution import ESTIMATES, MEASURES, Effects, agreement, choose, layer_effects
from thinksteer.directions import random_like, unit
from thinksteer.records import InputError, Passage, Span

LAYERS, WIDTH, SITE = 3, 32, "block_out"
# A span right after the first token, one after the prompt's last, one that begins with the last token of all.
PASSAGE = Passage(
    "p",
    tuple(torch.randint(VOCABULARY, (30,), generator=torch.Generator().manual_seed(1)).tolist()),
    (Span("a", 1, 3), Span("b", 7, 12), Span("a", 20, 30), Span("b", 29, 30)),
)
VECTORS = torch.randn(LAYERS, WIDTH, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
CONTROLS = torch.stack([random_like(VECTORS, seed) for seed in (0, 1)])


def predicted(model, ids, layer=0, vector=None, part=None):
    """Log-probabilities `[V]` after `ids`, a vector being added at the last to what a layer, or its part, gives."""

    def add(module, inputs, output):
        hidden = output[0] if isinstance(output, tuple) else output
        changed = torch.cat([hidden[:, :-1], hidden[:, -1:] + vector], dim=1)
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    block = model.model.layers[layer]
    hook = None if vector is None else (getattr(block, part) if part else block).register_forward_hook(add)
    try:
        logs = model(torch.tensor([ids]), use_cache=False).logits[0, -1].double().log_softmax(-1)
    finally:
        if hook:
            hook.remove()
    return logs


@torch.no_grad()
def predicted_state(model, ids):
    """The direction of what the head reads at the last of `ids`: along it, a token's logit grows fastest."""
    state = model.model(torch.tensor([ids])).last_hidden_state[0, -1]
    return state / state.norm() ** 2


def divergence(model, ids, layer, vector, part=None):
    with torch.no_grad():
        clean, patched = predicted(model, ids), predicted(model, ids, layer, vector, part)
    return (clean.exp() * (clean - patched)).sum()


def each(passage, measure):
    """`measure(ids before the span, the span's first token, layer)` for every span and layer: `[S, L]`."""
    rows = [
        [float(measure(passage.ids[: span.start], passage.ids[span.start], layer)) for layer in range(LAYERS)]
        for span in passage.spans
    ]
    return torch.tensor(rows, dtype=torch.float64)


def same(found, truth, atol=1e-9):
    torch.testing.assert_close(found, truth, rtol=0, atol=atol)


@pytest.mark.parametrize("attention, atol", [("sdpa", 1e-9), ("eager", 1e-6)])  # eager rounds to float32
def test_all_copies_of_one_pass_equal_patches_made_one_at_a_time(model, attention, atol):
    model.set_attn_implementation(attention)
    found = layer_effects(model, PASSAGE, SITE, VECTORS, CONTROLS, n_nodes=3, max_batch_tokens=1000)
    same(found.kl, each(PASSAGE, lambda ids, token, layer: divergence(model, ids, layer, VECTORS[layer])), atol)
    random = [each(PASSAGE, lambda ids, _, layer, v=v: divergence(model, ids, layer, v[layer])) for v in CONTROLS]
    same(found.random, sum(random) / 2, atol)
    assert found.kl.min() > 1e-3 and (found.kl - found.random).abs().max() > 0.05


def test_a_vector_is_added_where_its_method_adds_it(qwen):
    found = layer_effects(qwen, PASSAGE, "attn_out", VECTORS, CONTROLS, n_nodes=1, max_batch_tokens=1000)
    truth = each(PASSAGE, lambda ids, _, layer: divergence(qwen, ids, layer, VECTORS[layer], "self_attn"))
    same(found.kl, truth)


def test_a_vector_is_added_where_a_block_is_entered(model):
    """What enters a block is what the one before gives."""
    found = layer_effects(model, PASSAGE, "block_in", VECTORS, CONTROLS, n_nodes=1, max_batch_tokens=1000)
    before = each(PASSAGE, lambda ids, _, layer: divergence(model, ids, layer - 1, VECTORS[layer]) if layer else 0)
    same(found.kl[:, 1:], before[:, 1:])
    assert (found.kl - layer_effects(model, PASSAGE, SITE, VECTORS, CONTROLS, 1, 1000).kl).abs().max() > 1e-3


def test_a_layer_without_a_vector_has_no_effect(qwen):
    vectors = VECTORS * torch.tensor([[0.0], [1.0], [1.0]], dtype=torch.float64)
    found = layer_effects(qwen, PASSAGE, SITE, vectors, CONTROLS * (vectors != 0), n_nodes=1, max_batch_tokens=1000)
    for name in MEASURES:
        assert getattr(found, name)[:, 0].abs().max() < 1e-12 < getattr(found, name)[:, 1].abs().max()


def test_the_gradient_is_the_derivative_of_what_was_said(model):
    found = layer_effects(model, PASSAGE, SITE, VECTORS, CONTROLS, n_nodes=1, max_batch_tokens=1000)

    @torch.no_grad()
    def derivative(ids, token, layer, step=1e-5):
        up, down = (predicted(model, ids, layer, sign * step * VECTORS[layer])[token] for sign in (1, -1))
        return (up - down) / (2 * step)

    same(found.gradient, each(PASSAGE, derivative), atol=1e-7)
    assert found.gradient.min() < 0 < found.gradient.max()


def test_the_log_odds_gradient_is_the_derivative_of_the_odds_of_what_was_said(model):
    found = layer_effects(model, PASSAGE, SITE, VECTORS, CONTROLS, n_nodes=1, max_batch_tokens=1000)

    @torch.no_grad()
    def along(ids, token, layer, vectors, step=1e-5):
        odds = [predicted(model, ids, layer, sign * step * vectors[layer])[token].exp().logit() for sign in (1, -1)]
        return (odds[0] - odds[1]) / (2 * step)

    same(found.log_odds, each(PASSAGE, lambda *at: along(*at, VECTORS)), atol=1e-7)
    random = [each(PASSAGE, lambda *at, v=v: along(*at, v).abs()) for v in CONTROLS]
    same(found.random_log_odds, sum(random) / 2, atol=1e-7)
    said = each(PASSAGE, lambda ids, token, layer: predicted(model, ids)[token].exp().detach())
    same(found.gradient, found.log_odds * (1 - said), atol=1e-12)
    assert said.min() > 1e-3  # else the two are the same


def test_the_log_odds_of_what_is_certain_are_not_rounded_away(qwen):
    """In single precision 1 - p is 0 here."""
    qwen.lm_head.weight.data[PASSAGE.ids[7]] += 60 * predicted_state(qwen, PASSAGE.ids[:7])
    alone = replace(PASSAGE, spans=PASSAGE.spans[1:2])
    truth = layer_effects(qwen, alone, SITE, VECTORS, CONTROLS, 1, 100)
    assert predicted(qwen, PASSAGE.ids[:7])[PASSAGE.ids[7]].exp() > 1 - 1e-8
    single = layer_effects(qwen.float(), alone, SITE, VECTORS.float(), CONTROLS.float(), 1, 100)
    assert truth.log_odds.abs().min() > 1e-2
    torch.testing.assert_close(single.log_odds.double(), truth.log_odds, rtol=1e-3, atol=0)
    assert torch.isfinite(single.random_log_odds).all() and single.gradient.abs().max() < 1e-6


def test_integrated_gradients_follow_their_formula_and_sum_up_to_the_divergence(qwen):
    nodes, weights = np.polynomial.legendre.leggauss(2)

    def formula(ids, token, layer, step=1e-5):
        total = 0
        for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
            up, down = (divergence(qwen, ids, layer, (node + sign * step) * VECTORS[layer]) for sign in (1, -1))
            total += weight * (up - down) / (2 * step)
        return total

    few = layer_effects(qwen, PASSAGE, SITE, VECTORS, CONTROLS, n_nodes=2, max_batch_tokens=1000)
    many = layer_effects(qwen, PASSAGE, SITE, VECTORS, CONTROLS, n_nodes=40, max_batch_tokens=1000)
    same(few.integrated, each(PASSAGE, formula), atol=1e-7)
    same(many.integrated, many.kl, atol=1e-6)
    assert (few.integrated - few.kl).abs().max() > 1e-3


def upstream_metric(logits, log_target):
    logs = torch.log_softmax(logits, dim=-1)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # torch advises against dividing by the size of the vocabulary, as upstream does
        return kl_div(logs, logs.detach(), log_target=log_target)


def test_upstreams_divergence_is_not_a_number_and_what_it_meant_has_no_gradient(qwen):
    """With log_target=True even the gradient's own terms cancel: p sums to one."""
    logits = predicted(qwen, PASSAGE.ids).detach().requires_grad_()
    published, meant = upstream_metric(logits, False), upstream_metric(logits, True)
    assert torch.isnan(published) and meant == 0
    assert torch.autograd.grad(meant, logits)[0].abs().max() < 1e-15
    logs = logits.detach()
    same(torch.autograd.grad(published, logits)[0], (-logs + logs.exp() * logs.sum()) / VOCABULARY, atol=1e-14)


def test_upstreams_effect_is_its_gradient_along_the_unit_vector(model):
    found = layer_effects(model, PASSAGE, SITE, 7 * VECTORS, CONTROLS, n_nodes=1, max_batch_tokens=1000)

    def published(ids, token, layer):
        shift = torch.zeros(WIDTH, dtype=torch.float64, requires_grad=True)
        loss = upstream_metric(predicted(model, ids, layer, shift), False)
        return (unit(VECTORS)[layer] @ torch.autograd.grad(loss, shift)[0]).abs()

    same(found.upstream, each(PASSAGE, published))
    assert found.upstream.min() > 0


@pytest.mark.parametrize("max_batch_tokens", [1, 5])
def test_the_batches_do_not_change_the_effects(qwen, max_batch_tokens):
    one = layer_effects(qwen, PASSAGE, SITE, VECTORS, CONTROLS, 2, 10**6)
    other = layer_effects(qwen, PASSAGE, SITE, VECTORS, CONTROLS, 2, max_batch_tokens)
    for name in MEASURES:
        assert getattr(one, name).shape == (4, LAYERS)
        same(getattr(one, name), getattr(other, name))


def test_no_pass_holds_more_than_the_passage_and_its_own_copies(qwen):
    masks = []
    attention = qwen.model.layers[0].self_attn
    attention.register_forward_pre_hook(lambda *args: masks.append(args[2]["attention_mask"]), with_kwargs=True)
    layer_effects(qwen, PASSAGE, SITE, VECTORS, CONTROLS, 2, max_batch_tokens=7)
    sizes = [tuple(mask.shape[2:]) for mask in masks[2:]]  # a trial's pass and the passage's come first
    assert max(copies for copies, _ in sizes) == 7 and {columns - copies for copies, columns in sizes} == {29}


def test_frozen_weights_and_a_single_early_span_do_as_well_and_no_hook_is_left(qwen):
    alone = replace(PASSAGE, spans=PASSAGE.spans[:1])
    before = predicted(qwen, PASSAGE.ids).detach()
    free = layer_effects(qwen, PASSAGE, SITE, VECTORS, CONTROLS, 2, 100)
    frozen = layer_effects(qwen.requires_grad_(False), alone, SITE, VECTORS, CONTROLS, 2, 100)
    for name in MEASURES:
        same(getattr(frozen, name), getattr(free, name)[:1])
    assert torch.equal(predicted(qwen, PASSAGE.ids), before)


def test_a_half_precision_model_is_measured_in_single_precision(qwen):
    """The rounding of the model remains, not that of the softmax."""
    found = layer_effects(qwen.bfloat16(), PASSAGE, SITE, VECTORS.float(), CONTROLS.float(), 2, 1000)
    assert all(getattr(found, name).dtype == torch.float32 for name in MEASURES)
    truth = layer_effects(build_model("qwen3"), PASSAGE, SITE, VECTORS, CONTROLS, 2, 1000)
    assert np.corrcoef(found.kl.flatten(), truth.kl.flatten())[0, 1] > 0.98


def test_layers_with_different_windows_are_refused_where_the_window_cuts():
    sizes = {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": LAYERS}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "use_sliding_window": True, "max_window_layers": 1}
    for window in (12, 29):
        model = Qwen2ForCausalLM(Qwen2Config(**sizes, sliding_window=window)).double().eval()
        if window == 12:
            with pytest.raises(InputError, match="some layers attend to 12 tokens"):
                layer_effects(model, PASSAGE, SITE, VECTORS, CONTROLS, 1, 100)
        else:
            layer_effects(model, PASSAGE, SITE, VECTORS, CONTROLS, 1, 100)


def test_what_does_not_fit_is_refused(qwen):
    with pytest.raises(InputError, match=r"shape \(2, 32\)"):
        layer_effects(qwen, PASSAGE, SITE, VECTORS[:2], CONTROLS, 1, 100)
    for start, end in ((0, 3), (30, 31)):
        with pytest.raises(InputError, match="passage p: nothing comes before"):
            layer_effects(qwen, replace(PASSAGE, spans=(Span("a", start, end),)), SITE, VECTORS, CONTROLS, 1, 100)


def test_a_model_that_scales_its_logits_is_refused(monkeypatch):
    monkeypatch.setitem(FAMILIES, "granite", (GraniteForCausalLM, GraniteConfig, {"logits_scaling": 3.0}))
    with pytest.raises(InputError, match="GraniteForCausalLM scales or bends its logits"):
        layer_effects(build_model("granite"), PASSAGE, SITE, VECTORS, CONTROLS, 1, 100)


def labelled(id, labels, sample=0):
    spans = tuple(Span(label, 1 + place, 2 + place) for place, label in enumerate(labels))
    return Passage(id, tuple(range(40)), spans, sample)


MANY = [labelled(f"q{index}", "abcabcab"[: 3 + index % 5], sample=index % 2) for index in range(20)]


def test_only_spans_of_other_labels_are_chosen_evenly_and_the_same_in_any_order():
    chosen = choose([*MANY, labelled("own", "aaa")], ["a"], n_responses=8, n_spans=2, seed=0)
    assert len(chosen) == 8 and all(len(passage.spans) == 2 for passage in chosen)
    assert {span.label for passage in chosen for span in passage.spans} == {"b", "c"}
    assert all([s.start for s in p.spans] == sorted(s.start for s in p.spans) for p in chosen)
    assert chosen == choose(MANY[::-1], ["a"], 8, 2, seed=0) != choose(MANY, ["a"], 8, 2, seed=1)
    everything = choose(MANY, ["a", "b"], 100, 100, seed=0)
    assert [p.id for p in everything] == sorted(p.id for p in MANY)
    assert all(p.spans == tuple(s for s in q.spans if s.label == "c") for p in everything for q in MANY if q.id == p.id)
    with pytest.raises(InputError, match="every span of 1 responses is labelled a or b: none is left"):
        choose([labelled("own", "ab")], ["a", "b"], 8, 2, seed=0)


def planted(seed, **values):
    rng = np.random.default_rng(seed)
    made = {name: torch.tensor(rng.uniform(0.1, 1, size=(5, 4))) for name in MEASURES}
    return Effects(**made | {name: value(made["kl"]) for name, value in values.items()})


def test_agreement_is_one_for_what_says_the_same_and_small_for_noise():
    found = [
        planted(seed, gradient=lambda kl: -2 * kl, integrated=lambda kl: kl**3, upstream=torch.zeros_like)
        for seed in range(40)
    ]
    here = agreement(found)
    assert list(here) == list(ESTIMATES)
    assert [here["gradient"][name] for name in ("pearson", "spearman")] == pytest.approx(
        [1, 1]
    )  # its size, not its sign
    assert here["integrated"]["spearman"] == pytest.approx(1) and 0.8 < here["integrated"]["pearson"] < 0.95
    assert set(here["upstream"].values()) == {None}  # nothing to correlate
    noise = agreement([planted(seed) for seed in range(40)])
    assert abs(noise["gradient"]["spearman"]) < 0.1 and abs(noise["gradient"]["pearson"]) < 0.1


def test_agreement_of_layers_is_that_of_their_means_over_responses():
    """Responses with many spans weigh no more than others."""
    flat = torch.ones(1, 3)
    first = Effects(flat * torch.tensor([1.0, 2, 3]), flat, flat * torch.tensor([1.0, 2, 3]), *[flat] * 4)
    second = Effects(
        *(torch.zeros(9, 3) + torch.tensor(row) for row in ([3.0, 2, 3], [0.0] * 3, [9.0, 0, 0])), *[flat] * 4
    )
    by_hand = np.corrcoef([2, 2, 3], [5, 1, 1.5])[0, 1]
    second = replace(second, integrated=torch.ones(9, 3), upstream=torch.ones(9, 3))
    assert agreement([first, second])["gradient"]["pearson_of_layers"] == pytest.approx(by_hand)
