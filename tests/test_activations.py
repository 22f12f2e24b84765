from dataclasses import replace

import pytest
import torch
from conftest import hidden_states, mid_states

from thinksteer.activations import class_means, entries_of, pack, read_at, span_states
from thinksteer.records import InputError, Passage, Reading, Span

SITES = ("attn_out", "mid", "mlp_out", "block_out")


def plain_means(model, passages, site, label):
    """One passage after the other: the mean over its span, then over examples. `[L, D]`"""
    examples = []
    for passage in passages:
        states, mids = hidden_states(model, passage.ids), mid_states(model, passage.ids)
        there = {
            "attn_out": [mid - state for mid, state in zip(mids, states[:-1], strict=True)],
            "mid": mids,
            "mlp_out": [state - mid for mid, state in zip(mids, states[1:], strict=True)],
            "block_out": states[1:],
        }[site]
        for span in passage.spans:
            if span.label == label:
                tokens = [[layer[t] for t in range(len(passage.ids)) if span.start <= t < span.end] for layer in there]
                examples.append(torch.stack([sum(layer) / len(layer) for layer in tokens]))
    return sum(examples) / len(examples)


def test_every_site_equals_the_plain_formula_in_one_pass(model, passages):
    read = class_means(model, passages, SITES, max_batch_tokens=70)
    assert read.counts == {"long": 4, "short": 3}
    for site in SITES:
        for label in ("long", "short"):
            truth = plain_means(model, passages, site, label)
            torch.testing.assert_close(read.means[site][label], truth, rtol=0, atol=1e-9)


def test_several_spans_of_one_passage_are_examples_of_their_own(qwen, passages):
    spans = (Span("a", 0, 3), Span("a", 4, 11), Span("b", 2, 12))
    passages = [replace(passages[1], spans=spans), replace(passages[2], spans=spans[:1])]
    read = class_means(qwen, passages, ["mid"], max_batch_tokens=1000)
    assert read.counts == {"a": 3, "b": 1}
    for label in ("a", "b"):
        truth = plain_means(qwen, passages, "mid", label)
        torch.testing.assert_close(read.means["mid"][label], truth, rtol=0, atol=1e-9)


def test_the_last_block_is_read_before_the_final_norm_unless_asked(qwen, passages):
    with torch.no_grad():
        upstream = [
            torch.stack([h[0, p.spans[0].start : p.spans[0].end].mean(0) for h in states[1:]])
            for p in passages
            if (states := qwen(torch.tensor([p.ids]), output_hidden_states=True).hidden_states)
        ]
    truth = sum(m for m, p in zip(upstream, passages, strict=True) if p.spans[0].label == "long") / 4
    before = class_means(qwen, passages, ["block_out"], 1000).means["block_out"]["long"]
    after = class_means(qwen, passages, ["block_out"], 1000, after_norm=True).means["block_out"]["long"]
    torch.testing.assert_close(after, truth, rtol=0, atol=1e-9)
    assert torch.equal(before[:-1], after[:-1])
    assert (before[-1] - after[-1]).abs().max() > 0.1


@pytest.mark.parametrize("max_batch_tokens", [1, 40, 65, 10**6])
def test_the_batches_do_not_change_the_means(qwen, passages, max_batch_tokens):
    one = class_means(qwen, passages, SITES, 1)
    other = class_means(qwen, passages, SITES, max_batch_tokens)
    for site in SITES:
        torch.testing.assert_close(one.means[site], other.means[site], rtol=0, atol=1e-9)


def test_batches_hold_every_passage_once_and_stay_within_the_limit(passages):
    batches = pack(passages, max_batch_tokens=60)
    assert sorted(p.id for batch in batches for p in batch) == sorted(p.id for p in passages)
    for batch in batches:
        assert len(batch) * max(p.spans[0].end for p in batch) <= 60
    assert len(batches) < len(passages)


def test_a_passage_longer_than_the_limit_is_read_alone(passages):
    assert all(len(batch) == 1 for batch in pack(passages, max_batch_tokens=3))


def test_tokens_behind_the_last_span_are_not_even_read(qwen, passages):
    outside = [replace(p, ids=p.ids[: p.spans[0].end] + (10**9,) * 5) for p in passages]
    one, other = class_means(qwen, passages, ["mid"], 100), class_means(qwen, outside, ["mid"], 100)
    assert torch.equal(one.means["mid"]["long"], other.means["mid"]["long"])


def test_sixteen_bit_activations_are_averaged_in_float64(qwen, passages):
    qwen = qwen.bfloat16()
    read = class_means(qwen, passages, ["mid"], max_batch_tokens=1).means["mid"]["short"]
    seen = []
    for layer in qwen.model.layers:
        layer.post_attention_layernorm.register_forward_pre_hook(lambda _, args: seen.append(args[0][0].double()))
    examples = []
    for passage in passages:
        if passage.spans[0].label == "short":
            seen.clear()
            with torch.no_grad():
                qwen.model(torch.tensor([passage.ids[: passage.spans[0].end]]))
            examples.append(torch.stack([h[passage.spans[0].start :].mean(0) for h in seen]))
    assert read.dtype == torch.float64
    torch.testing.assert_close(read, sum(examples) / len(examples), rtol=1e-12, atol=0)


def test_only_the_decoder_runs(qwen, passages):
    qwen.lm_head.register_forward_hook(lambda *_: pytest.fail("the output layer ran"))
    class_means(qwen, passages, ["mid"], 100)


def test_no_hook_is_left_behind_even_after_an_error(qwen, passages):
    class_means(qwen, passages, SITES, 100)
    broken = [*passages, replace(passages[0], ids=(10**9,) * 9)]
    with pytest.raises(IndexError):
        class_means(qwen, broken, SITES, 100, after_norm=True)
    for module in qwen.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks


@pytest.mark.parametrize("start, end", [(-1, 4), (3, 3), (5, 4), (2, 10)])
def test_a_span_outside_its_passage_is_refused_by_name(qwen, start, end):
    passage = Passage("gsm8k-7", tuple(range(9)), (Span("long", start, end),))
    with pytest.raises(InputError, match=r"gsm8k-7.*9 tokens"):
        class_means(qwen, [passage], ["mid"], 100)


def test_a_passage_without_spans_is_refused(qwen):
    with pytest.raises(InputError, match="p has no span"):
        class_means(qwen, [Passage("p", (1, 2), ())], ["mid"], 100)


def test_an_overflow_is_an_error_and_not_a_direction(qwen, passages):
    qwen.model.layers[1].mlp.down_proj.weight.data[0, 0] = float("inf")
    with pytest.raises(InputError, match="not finite"):
        class_means(qwen, passages, ["block_out"], 100)


SPANS = {1: (Span("b", 9, 12), Span("a", 2, 7)), 4: (Span("a", 3, 4), Span("b", 1, 20), Span("a", 3, 4))}


@pytest.mark.parametrize("max_batch_tokens", [1, 40, 10**6])
@pytest.mark.parametrize("site", ["block_in", "mid", "block_out"])
def test_the_states_of_each_span_are_those_of_its_passage_read_alone(model, passages, site, max_batch_tokens):
    passages = [replace(one, spans=SPANS.get(index, one.spans)) for index, one in enumerate(passages)]
    passages.append(passages[1])  # the same one twice
    truth = []
    for passage in passages:
        layers = mid_states(model, passage.ids) if site == "mid" else hidden_states(model, passage.ids)
        for span in passage.spans:
            means = [sum(layer[span.start : span.end]) / (span.end - span.start) for layer in layers]
            truth.append((torch.stack([layer[span.end - 1] for layer in layers]), torch.stack(means)))
    found = span_states(model, passages, site, max_batch_tokens)
    for one, other in zip(found, zip(*truth, strict=True), strict=True):
        assert one.shape == (len(truth), 3 if site == "mid" else 4, 32)
        torch.testing.assert_close(one, torch.stack(other), rtol=0, atol=1e-9)


def test_a_layers_states_are_the_entry_where_it_is_read(qwen, passages):
    states = {site: span_states(qwen, passages, site, 100)[1] for site in ("block_in", "mid", "block_out")}
    for site, found in states.items():
        layers = entries_of(found, site)
        means = class_means(qwen, passages, [site], 100).means[site]["short"]
        short = [index for index, one in enumerate(passages) if one.spans[0].label == "short"]
        torch.testing.assert_close(layers[short].mean(dim=0), means, rtol=0, atol=1e-9)


def test_sixteen_bit_states_are_kept_as_they_are_and_their_means_in_more(qwen, passages):
    last, mean = span_states(qwen.bfloat16(), passages, "block_in", max_batch_tokens=1)
    assert (last.dtype, mean.dtype) == (torch.bfloat16, torch.float32)
    passage, own = passages[3], passages[3].spans[0]
    embedded = qwen.model.embed_tokens.weight.detach()[list(passage.ids)]
    assert torch.equal(last[3, 0], embedded[own.end - 1])
    torch.testing.assert_close(mean[3, 0], embedded[own.start : own.end].float().mean(dim=0))


def test_a_state_that_overflows_is_refused(qwen, passages):
    qwen.model.layers[1].mlp.down_proj.weight.data[0, 0] = float("inf")
    with pytest.raises(InputError, match="a state at block_in is not finite"):
        span_states(qwen, passages, "block_in", 100)


def test_a_whole_is_one_more_example_that_is_neither_shifted_nor_limited():
    passage = Passage("p", tuple(range(30)), (Span("b", 12, 20), Span("a", 5, 9)))
    (read,) = read_at([passage], Reading("block_out", shift=-1, limit=3, whole="all"))
    assert read.spans == (Span("b", 11, 14), Span("a", 4, 7), Span("all", 5, 20))
