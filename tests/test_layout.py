import pytest
import torch
from recurrent_model import make_model
from torch import nn
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
)

from thinksteer.layout import Layout, check_runs, layout_of, output_head
from thinksteer.places import Place
from thinksteer.records import InputError


def test_the_layout_is_asked_of_the_model(model):
    layout = layout_of(model)
    assert layout.shape == (3, 32) and layout.beside(1) is model.model.layers[1].input_layernorm.weight
    width = 16 if model.config.model_type == "qwen3" else 8
    assert (len(layout.layers), layout.hidden_size, layout.num_heads, layout.head_dim) == (3, 32, 4, width)
    assert tuple(layout.o_proj(2).weight.shape) == (32, 4 * width)


def test_the_final_place_is_behind_the_last_norm(model):
    seen, ids = [], torch.tensor([[3, 4, 5]])
    handle = layout_of(model).final.watch(seen.append)
    expected = model(ids, output_hidden_states=True).hidden_states[-1]
    handle.remove()
    assert torch.equal(seen[0], expected)


def test_depth_steps_are_no_layers():
    with pytest.raises(InputError, match="RecurrentForCausalLM runs the same blocks at many depth steps"):
        Layout(make_model())


def test_other_architectures_are_refused_with_what_they_lack_or_have_too_much():
    gpt = GPT2LMHeadModel(GPT2Config(vocab_size=8, n_embd=8, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=1))
    with pytest.raises(InputError, match="GPT2LMHeadModel's decoder has no layers, norm"):
        layout_of(gpt)
    gemma = Gemma2ForCausalLM(
        Gemma2Config(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, head_dim=4)
    )
    with pytest.raises(InputError, match="has also pre_feedforward_layernorm, post_feedforward_layernorm"):
        Layout(gemma)


@pytest.mark.parametrize("name", ["self_attn.o_proj", "mlp", "post_attention_layernorm"])
def test_a_layer_without_a_part_is_named_with_the_part(qwen, name):
    *parents, part = name.split(".")
    owner = qwen.model.layers[1]
    for parent in parents:
        owner = getattr(owner, parent)
    delattr(owner, part)
    with pytest.raises(InputError, match=rf"layer 1 of Qwen3ForCausalLM has no {name}:"):
        Layout(qwen)


@pytest.mark.parametrize("scale", [1.0, 0.22])
def test_layers_that_scale_what_their_parts_add_are_refused(scale):
    sizes = {"vocab_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    config = GraniteConfig(**sizes, num_attention_heads=2, num_key_value_heads=2, residual_multiplier=scale)
    model = GraniteForCausalLM(config)
    if scale == 1:
        assert Layout(model).shape == (1, 8)
    else:
        with pytest.raises(InputError, match=r"layer 0 of Granite.* scales .*\(residual_multiplier 0.22\)"):
            Layout(model)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_layers_that_do_not_add_up_are_refused_also_where_sums_are_rounded(model, dtype):
    check_runs(model.to(dtype))
    handle = model.model.layers[1].register_forward_hook(lambda *call: call[2] * 1.1)
    with pytest.raises(
        InputError, match=r"layer 1 does not add up at block_out in \w+ForCausalLM: models of this arch"
    ):
        check_runs(model)
    handle.remove()
    check_runs(model)


def test_granites_layers_are_scaled_by_what_they_hold_not_by_what_its_config_says():
    sizes = {"vocab_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2}
    model = GraniteForCausalLM(GraniteConfig(**sizes, num_attention_heads=2, num_key_value_heads=2))
    check_runs(model)
    model.model.layers[1].residual_multiplier = 0.5
    with pytest.raises(InputError, match="layer 1 does not add up at mid in GraniteForCausalLM"):
        check_runs(model)


def test_a_part_that_runs_twice_or_never_is_no_place(qwen):
    norm, layer = qwen.model.norm, qwen.model.layers[2]
    handle = layer.register_forward_hook(lambda *call: norm(call[2]) * 0 + call[2])
    with pytest.raises(InputError, match="does not run each part of its layers, and its final norm, once"):
        check_runs(qwen)
    handle.remove()
    qwen.config.num_hidden_layers = 2
    with pytest.raises(InputError, match="does not run each part"):
        check_runs(qwen)


def test_a_model_whose_tokens_see_those_after_them_is_refused(qwen):
    qwen.config.is_causal = False
    with pytest.raises(InputError, match="Qwen3ForCausalLM lets a token see those after it"):
        check_runs(qwen)


def test_what_transformers_cannot_run_is_one_line(qwen):
    qwen.model.layers[1].mlp.down_proj = nn.Linear(5, 32)
    with pytest.raises(
        InputError, match=r"^transformers fails to run Qwen3\w+ on a few tokens \(RuntimeError: .*vllm$"
    ):
        check_runs(qwen)


def test_the_head_makes_the_logits_or_is_refused(qwen):
    assert output_head(qwen) is qwen.lm_head
    sizes = {"vocab_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2}
    config = GraniteConfig(**sizes, num_attention_heads=2, num_key_value_heads=2, logits_scaling=4.0)
    with pytest.raises(InputError, match="GraniteForCausalLM scales or bends its logits: they cannot be read off"):
        output_head(GraniteForCausalLM(config))


def test_only_plain_weights_are_scored_by_head_and_edited(qwen):
    class Packed(nn.Linear):
        pass

    packed = Packed(64, 32)
    qwen.model.layers[1].self_attn.o_proj = packed
    layout = Layout(qwen)
    assert layout.o_proj(0) is qwen.model.layers[0].self_attn.o_proj
    with pytest.raises(
        InputError, match=r"o_proj of layer 1 is stored in another form \(Packed\).*without quantization"
    ):
        layout.o_proj(1)


class Pair(nn.Module):
    def forward(self, x, more=0):
        return x + 1 + more, "weights"


def test_a_watched_output_can_be_the_first_of_a_tuple_and_the_rest_is_kept():
    pair, seen = Pair(), []
    x = torch.zeros(1, 2, 3)
    handle = Place(pair, "output").watch(seen.append)  # append returns None: only reads
    assert pair(x)[1] == "weights" and torch.equal(seen[0], x + 1)
    handle.remove()
    handle = Place(pair, "output").watch(lambda hidden: hidden * 10)
    assert torch.equal(pair(x)[0], x + 10) and pair(x)[1] == "weights"
    handle.remove()
    handle = Place(pair, "input").watch(lambda hidden: hidden + 4)
    assert torch.equal(pair(x)[0], x + 5)
    handle.remove()
    assert torch.equal(pair(x)[0], x + 1) and len(seen) == 1


def test_a_watched_input_may_be_given_by_its_name():
    pair, seen = Pair(), []
    x = torch.zeros(1, 2, 3)
    handle = Place(pair, "input").watch(seen.append)
    assert torch.equal(pair(more=2, x=x)[0], x + 3) and seen == [x]
    handle.remove()
    handle = Place(pair, "input").watch(lambda hidden: hidden + 4)
    assert torch.equal(pair(x=x)[0], x + 5) and torch.equal(pair(x, more=2)[0], x + 7)
    with pytest.raises(InputError, match="Pair is called with more, not with its input x"):
        pair(more=2)
    handle.remove()
