import math
from dataclasses import replace

import pytest
import torch
from conftest import head_contribution
from torch.utils._python_dispatch import TorchDispatchMode

from thinksteer.localize import head_scores, overlap_at_k, top_heads
from thinksteer.records import Head, InputError, Passage, Span


@pytest.fixture
def direction():
    return torch.randn(3, 32, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def test_scores_equal_the_contributions_of_each_head_written_out(model, passages, direction):
    scores = head_scores(model, passages, direction, max_batch_tokens=70)
    short = [p for p in passages if p.spans[0].label == "short"]
    truth = torch.zeros(3, 4, dtype=torch.float64)
    for layer in range(3):
        against = -direction[layer] / math.sqrt(sum(x * x for x in direction[layer].tolist()))
        for head in range(4):
            for passage in short:
                span = passage.spans[0]
                written = head_contribution(model, passage.ids, layer, head)[span.start : span.end]  # [S, D]
                truth[layer, head] += (written.mean(0) * against).sum() / len(short)
    torch.testing.assert_close(scores, truth, rtol=0, atol=1e-9)


def test_a_head_made_to_write_against_the_direction_comes_first(qwen, passages, direction):
    width = qwen.model.layers[1].self_attn.head_dim
    weight = qwen.model.layers[1].self_attn.o_proj.weight.data
    outputs = []
    handle = qwen.model.layers[1].self_attn.o_proj.register_forward_pre_hook(lambda _, args: outputs.append(args[0][0]))
    with torch.no_grad():
        for passage in passages:
            qwen(torch.tensor([passage.ids]))
    handle.remove()
    usual = torch.cat(outputs)[:, 2 * width : 3 * width].mean(0)
    weight[:, 2 * width : 3 * width] = -20 * torch.outer(direction[1], usual / usual.norm())
    best = top_heads(head_scores(qwen, passages, direction, 100), 1)[0]
    assert (best.layer, best.head) == (1, 2)
    # Seen from the opposite direction, the same head comes last.
    last = top_heads(head_scores(qwen, passages, -direction, 100), 12)[-1]
    assert (last.layer, last.head) == (1, 2)


def test_only_spans_of_the_label_count_and_lengths_of_directions_do_not(qwen, passages, direction):
    mixed = [replace(p, spans=(*p.spans, Span("long", 0, 4))) for p in passages]
    one = head_scores(qwen, passages, direction, 100)
    other = head_scores(qwen, mixed, direction * torch.tensor([[3.0], [0.1], [40.0]]), 100)
    torch.testing.assert_close(one, other, rtol=0, atol=1e-9)
    with pytest.raises(InputError, match='"medium"'):
        head_scores(qwen, passages, direction, 100, label="medium")


def test_nothing_of_size_tokens_by_heads_by_hidden_is_formed(models, direction):
    tokens, heads, hidden = 96, 4, 32
    largest = 0

    class Largest(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, tuple | list) else [result]:
                largest = max(largest, tensor.numel() if isinstance(tensor, torch.Tensor) else 0)
            return result

    passages = [Passage(f"p{i}", (i,) * 16, (Span("short", 1, 16),)) for i in range(6)]
    with Largest():
        head_scores(models["llama"], passages, direction, tokens)
    assert 0 < largest < tokens * heads * hidden / 2


def test_a_direction_of_another_model_is_refused_with_both_shapes(qwen, passages):
    with pytest.raises(InputError, match=r"\(28, 1536\).*\(3, 32\)"):
        head_scores(qwen, passages, torch.ones(28, 1536), 100)


def test_the_highest_scores_come_first_and_ties_in_order_of_place():
    scores = torch.tensor([[1.0, 5.0, -9.0], [5.0, 2.0, 0.0]])
    assert top_heads(scores, 3) == [Head(0, 1, 5.0), Head(1, 0, 5.0), Head(1, 1, 2.0)]


@pytest.mark.parametrize("k", [0, 7])
def test_more_heads_than_there_are_cannot_be_chosen(k):
    with pytest.raises(InputError, match=f"--n_heads {k}: the model has 6 heads"):
        top_heads(torch.zeros(2, 3), k)


def test_scores_that_are_not_numbers_are_refused():
    with pytest.raises(InputError, match="not finite"):
        top_heads(torch.tensor([[0.0, float("nan")]]), 1)


def test_overlap_is_the_share_of_common_heads_whatever_their_order():
    first, second = [(0, 1), (2, 3), (4, 5)], [(2, 3), (9, 9), (0, 1)]
    assert overlap_at_k(first, second, 3) == pytest.approx(2 / 3)
    assert overlap_at_k(first, second, 2) == 0.5
    with pytest.raises(InputError):
        overlap_at_k(first, second, 4)
