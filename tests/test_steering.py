import copy
from dataclasses import replace

import pytest
import torch
from conftest import head_contribution
from synthetic import character_marks
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from thinksteer.layout import layout_of
from thinksteer.records import Condition, Edit, InputError
from thinksteer.steering import Gate, applied, head_norms, project_out
from thinksteer.thinking import Follower

IDS = torch.tensor([[1, 5, 9, 33, 20, 7, 8], [1, 3, 3, 60, 21, 2, 40]])
ALL = (0, 1, 2)


@pytest.fixture
def vectors():
    return torch.randn(3, 32, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


def with_bias(model, site, layer, vector):
    """The manual addition: a constant added to an output is a bias of the projection that makes it."""
    block = model.model.layers[layer]
    linear = block.self_attn.o_proj if site == "attn_out" else block.mlp.down_proj
    linear.bias = nn.Parameter(vector + (0 if linear.bias is None else linear.bias.data))
    return model


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


@pytest.mark.parametrize("site", ["attn_out", "mlp_out", "block_out"])
def test_steering_equals_the_addition_written_into_the_weights(model, vectors, site):
    with applied(model, [Edit(site, vectors, (0, 2), -0.7)]):
        steered = logits(model)
    manual = with_bias(with_bias(copy.deepcopy(model), site, 0, -0.7 * vectors[0]), site, 2, -0.7 * vectors[2])
    torch.testing.assert_close(steered, logits(manual), rtol=0, atol=1e-9)
    assert (steered - logits(model)).abs().max() > 1e-3


def test_several_edits_add_up(model, vectors):
    edits = [Edit("attn_out", vectors, ALL, 0.5), Edit("attn_out", -vectors.flip(0), (1,), 0.2)]
    edits.append(Edit("mlp_out", vectors.flip(1), (1,), 1.5))
    with applied(model, edits):
        steered = logits(model)
    manual = copy.deepcopy(model)
    for edit in edits:
        for layer in edit.layers:
            manual = with_bias(manual, edit.site, layer, edit.coef * edit.vectors[layer])
    torch.testing.assert_close(steered, logits(manual), rtol=0, atol=1e-9)


def test_blocks_within_blocks_add_up_too(qwen, vectors):
    edit = Edit("attn_out", vectors, ALL, 0.3)
    with applied(qwen, [edit]), applied(qwen, [edit]):
        twice = logits(qwen)
    with applied(qwen, [replace(edit, coef=0.6)]):
        torch.testing.assert_close(twice, logits(qwen), rtol=0, atol=1e-9)


def test_generation_with_a_cache_is_steered_at_every_step(model, vectors):
    manual = with_bias(copy.deepcopy(model), "attn_out", 1, 3 * vectors[1])
    settings = {"max_new_tokens": 24, "do_sample": False, "pad_token_id": 0, "eos_token_id": 10**6}
    plain = model.generate(IDS, **settings)
    with applied(model, [Edit("attn_out", vectors, (1,), 3)]):
        steered = model.generate(IDS, **settings)
    assert torch.equal(steered, manual.generate(IDS, **settings))
    assert not torch.equal(steered, plain)


def test_steering_ends_with_its_block_even_by_an_error(qwen, vectors):
    before = logits(qwen)
    with pytest.raises(RuntimeError, match="in between"), applied(qwen, [Edit("attn_out", vectors, ALL, 1)]):
        raise RuntimeError("in between")
    assert torch.equal(logits(qwen), before)
    bad = Edit("mlp_out", vectors, (3,), 1)
    with pytest.raises(InputError), applied(qwen, [Edit("attn_out", vectors, ALL, 1), bad]):
        pass
    assert torch.equal(logits(qwen), before)


def test_no_edits_and_weight_zero_change_nothing(qwen, vectors):
    for edits in ([], [Edit("attn_out", vectors, ALL, 0.0)]):
        with applied(qwen, edits):
            steered = logits(qwen)
        assert torch.equal(steered, logits(qwen))


def test_the_vector_is_cast_once_and_not_at_every_step(qwen, vectors):
    qwen = qwen.bfloat16()
    casts = 0

    class Casts(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal casts
            casts += function is torch.ops.aten._to_copy.default
            return function(*args, **(kwargs or {}))

    with Casts():
        logits(qwen)
    unsteered = casts
    with applied(qwen, [Edit("attn_out", vectors, ALL, 1.0)]):
        casts = 0
        with Casts():
            steered = logits(qwen)
    assert casts == unsteered
    assert steered.dtype == torch.bfloat16


def test_a_vector_of_another_model_is_refused_with_both_shapes(qwen):
    for shape in ((28, 1536), (3, 64), (32,)):
        text = ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")
        with (
            pytest.raises(InputError, match=rf"\({text}\).*\(3, 32\)"),
            applied(qwen, [Edit("attn_out", torch.ones(shape), (0,), 1)]),
        ):
            pass


@pytest.mark.parametrize("layer", [-1, 3])
def test_a_layer_that_is_not_there_is_refused(qwen, vectors, layer):
    with (
        pytest.raises(InputError, match=f"no layer {layer}: the model has 3"),
        applied(qwen, [Edit("attn_out", vectors, (layer,), 1)]),
    ):
        pass


def test_steering_in_the_middle_points_to_the_place_that_does_the_same(qwen, vectors):
    with pytest.raises(InputError, match="attn_out"), applied(qwen, [Edit("mid", vectors, (0,), 1)]):
        pass


def test_a_vector_that_is_not_finite_is_refused(qwen, vectors):
    vectors[2, 5] = float("nan")
    with (
        pytest.raises(InputError, match="attn_out of layer 2 is not finite"),
        applied(qwen, [Edit("attn_out", vectors, ALL, 1)]),
    ):
        pass


SITES = ["block_in", "attn_out", "mlp_out", "block_out"]


def seen_at(model, site, layer):
    """What stands at a place in a pass, recorded behind whatever steers it."""
    seen = []
    watched = layout_of(model).site(layer, site).watch(lambda hidden: seen.append(hidden.clone()))
    logits(model)
    watched.remove()
    return seen[0]


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("coef", [-1.0, -0.3, 0.1, 1.0])
def test_amplifying_equals_the_plain_formula(model, vectors, site, coef):
    """h + coef <h, v> v / |v|^2, one token at a time, for a vector of any length."""
    before = seen_at(model, site, 1)
    with applied(model, [Edit(site, 7 * vectors, (1,), coef, operation="amplify")]):
        after = seen_at(model, site, 1)
    v = vectors[1].tolist()
    square = sum(x * x for x in v)
    for row in range(2):
        for place in range(IDS.shape[1]):
            h = before[row, place].tolist()
            along = coef * sum(x * y for x, y in zip(h, v, strict=True)) / square
            expected = torch.tensor([x + along * y for x, y in zip(h, v, strict=True)], dtype=torch.float64)
            torch.testing.assert_close(after[row, place], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("site", SITES)
def test_ablation_leaves_nothing_along_the_direction(model, vectors, site):
    direction = vectors[2] / vectors[2].norm()
    assert (seen_at(model, site, 2) @ direction).abs().max() > 1e-2
    with applied(model, [Edit(site, vectors, ALL, -1.0, operation="amplify")]):
        assert (seen_at(model, site, 2) @ direction).abs().max() <= 1e-12


def test_one_direction_ablated_where_the_stream_is_written_is_gone_from_all_of_it(model, vectors):
    """As LiReFs' code does: the vector of one layer, at block inputs, attention and MLP outputs of all layers."""
    one = vectors[1].expand_as(vectors)
    direction = vectors[1] / vectors[1].norm()
    with applied(model, [Edit(site, one, ALL, -1.0, operation="amplify") for site in SITES[:3]]):
        for layer in ALL:
            for site in (*SITES, "mid"):
                assert (seen_at(model, site, layer) @ direction).abs().max() <= 1e-12


def test_edits_of_one_place_all_read_the_unsteered_activation(model, vectors):
    """So their order does not matter: ablation takes away what was there, not what another edit adds."""
    edits = [
        Edit("mlp_out", vectors, (1,), 0.5),
        Edit("mlp_out", vectors, (1,), -1.0, operation="amplify"),
        Edit("mlp_out", vectors.flip(0), (1,), 2.0, Condition(responding=True), "amplify"),
    ]
    before, mask = seen_at(model, "mlp_out", 1), torch.zeros(IDS.shape, dtype=torch.bool)
    mask[:, 4:] = True
    ablated, doubled = vectors[1] / vectors[1].norm(), vectors.flip(0)[1] / vectors.flip(0)[1].norm()
    expected = before + 0.5 * vectors[1] - (before @ ablated)[..., None] * ablated
    expected += 2 * mask[..., None] * (before @ doubled)[..., None] * doubled
    for order in (edits, edits[::-1]):
        with applied(model, order) as masks:
            masks[Condition(responding=True)] = mask
            torch.testing.assert_close(seen_at(model, "mlp_out", 1), expected, rtol=0, atol=1e-12)


def test_a_layer_without_a_direction_is_not_amplified(model, vectors):
    vectors[0] = 0
    with applied(model, [Edit("block_in", vectors, (0,), 5.0, operation="amplify")]):
        steered = logits(model)
    assert torch.equal(steered, logits(model))


def test_ablation_in_sixteen_bits_leaves_no_more_than_storing_does(qwen, vectors):
    """The projection is computed in float32: what is left is the rounding of the result alone."""
    qwen, direction = qwen.bfloat16(), (vectors[1] / vectors[1].norm()).float()
    before = seen_at(qwen, "block_out", 1).float()
    with applied(qwen, [Edit("block_out", vectors, (1,), -1.0, operation="amplify")]):
        after = seen_at(qwen, "block_out", 1)
    assert after.dtype == torch.bfloat16
    exact = before - (before @ direction)[..., None] * direction
    torch.testing.assert_close(after, exact.bfloat16(), rtol=2**-7, atol=1e-6)


def test_the_input_of_a_block_is_what_the_block_before_puts_out(model, vectors):
    with applied(model, [Edit("block_in", vectors, (2,), 0.7)]):
        steered = logits(model)
    with applied(model, [Edit("block_out", vectors.roll(-1, 0), (1,), 0.7)]):
        torch.testing.assert_close(steered, logits(model), rtol=0, atol=1e-9)


def test_positions_that_predict_the_response_begin_with_the_prompts_last_token():
    where = Condition(frozenset({7, 8}), responding=True)
    gate = Gate([Condition(responding=True), where], Follower(3, character_marks("<<", ">>")))
    ids = [7, 7, 7, 8, 5]
    assert gate.mask(ids, 0, 3) == [[False, False, True], [False, False, True]]
    assert gate.mask(ids, 3, 5) == [[True, True], [True, False]] and gate.count == 3


def plain_edit(weight, heads, head_dim, direction, strength):
    """Head by head and row by row, in the transposed convention of the paper: `W [head_dim, D]`, `W - a (W v) v^T`."""
    edited = weight.double().clone()
    length = sum(x * x for x in direction.double().tolist()) ** 0.5
    toward = direction.double() / length
    for head in heads:
        for row in range(head * head_dim, (head + 1) * head_dim):
            along = sum(edited[i, row].item() * toward[i].item() for i in range(len(toward)))
            edited[:, row] -= strength * along * toward
    return edited


@pytest.mark.parametrize("strength", [0.5, 1.0, 2.0])
def test_the_edited_weight_equals_the_plain_formula(vectors, strength):
    weight = torch.randn(32, 64, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    edited = project_out(weight, [0, 3], 16, vectors[0], strength)
    torch.testing.assert_close(edited, plain_edit(weight, [0, 3], 16, vectors[0], strength), rtol=0, atol=1e-9)
    same = project_out(weight, [3, 0, 3], 16, -5 * vectors[0], strength)  # neither order nor sign nor length matters
    torch.testing.assert_close(edited, same, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_other_heads_keep_their_bits_and_the_weight_its_dtype(vectors, dtype):
    weight = torch.randn(32, 64, generator=torch.Generator().manual_seed(5)).to(dtype)
    original = weight.clone()
    edited = project_out(weight, [2], 16, vectors[0], 1.0)
    assert edited.dtype == dtype and torch.equal(weight, original)
    assert torch.equal(edited[:, :32], weight[:, :32]) and torch.equal(edited[:, 48:], weight[:, 48:])
    truth = plain_edit(weight, [2], 16, vectors[0].float(), 1.0)
    # Computed in float32: nothing but the last rounding, at most half a unit in the last place, is lost.
    torch.testing.assert_close(edited.double(), truth, rtol=torch.finfo(dtype).eps * 0.51, atol=2e-6)


def test_norms_say_how_much_a_head_writes_along_the_direction_before_and_after(vectors):
    weight = torch.randn(32, 64, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    before = head_norms(weight, [3, 1], 16, vectors[1])
    toward = vectors[1] / vectors[1].norm()
    assert list(before) == [3, 1]
    assert before[3] == pytest.approx((weight[:, 48:].T @ toward).norm().item(), abs=1e-12)
    half, gone = (project_out(weight, [3], 16, vectors[1], strength) for strength in (0.5, 1.0))
    assert head_norms(half, [3], 16, vectors[1])[3] == pytest.approx(before[3] / 2)
    assert head_norms(gone, [3, 1], 16, vectors[1]) == pytest.approx({3: 0.0, 1: before[1]}, abs=1e-12)
    rounded = project_out(weight.bfloat16(), [3], 16, vectors[1], 1.0)
    assert 0 < head_norms(rounded, [3], 16, vectors[1])[3] < 0.02 * before[3]


def test_an_edited_head_writes_nothing_along_the_direction_in_the_model(model, vectors):
    projection = model.model.layers[1].self_attn.o_proj
    width = projection.in_features // 4
    projection.weight.data = project_out(projection.weight.data, [2], width, vectors[1], 1.0)
    toward = vectors[1] / vectors[1].norm()
    ids = tuple(IDS[0].tolist())
    assert (head_contribution(model, ids, 1, 2) @ toward).abs().max() < 1e-9
    assert (head_contribution(model, ids, 1, 1) @ toward).abs().max() > 1e-3


def test_shapes_that_do_not_fit_and_absent_heads_are_refused(vectors):
    weight = torch.randn(32, 64)
    with pytest.raises(InputError, match=r"\(32, 64\).*\(1536,\)"):
        project_out(weight, [0], 16, torch.ones(1536), 1.0)
    with pytest.raises(InputError, match="heads of 15"):
        project_out(weight, [0], 15, vectors[0], 1.0)
    for head in (-1, 4):
        with pytest.raises(InputError, match=f"no head {head}: the layer has 4"):
            head_norms(weight, [head], 16, vectors[0])
    with pytest.raises(InputError, match="zero"):
        project_out(weight, [0], 16, torch.zeros(32), 1.0)
