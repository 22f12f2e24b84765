"""Every causal architecture that transformers has: read, generated from and probed as by transformers itself, or
refused in one line. Small random models, float32."""

import re
from contextlib import suppress

import pytest
import torch
from architectures import NAMES, UNBUILT, build, small_config
from test_engines_hf import BOS, EOS, TEMPLATE, make_tokenizer

from thinksteer.activations import class_means
from thinksteer.confidence import Chain, Fork
from thinksteer.engines.hf import HFEngine
from thinksteer.layout import check_runs
from thinksteer.records import InputError, Passage, Request, Sampling, Span

# What can be generated from, steered, read and probed.
WORKS = (
    "arcee aria_text axk1 bitnet cwm deepseek_v2 deepseek_v3 diffllama dots1 emu3 ernie4_5 ernie4_5_moe "
    "exaone_moe gemma glm glm4_moe glm4_moe_lite granite helium hunyuan_v1_dense hunyuan_v1_moe hy_v3 jais2 "
    "laguna llama mellum minimax_m2 minimax_m3_vl_text ministral ministral3 mistral mixtral nemotron olmo olmoe "
    "phi3 phi4_multimodal phimoe qwen2 qwen2_moe qwen3 qwen3_moe seed_oss smollm3 solar_open stablelm starcoder2 "
    "youtu"
)
# What can only be read: attention with sinks, or caches with more than keys and values.
READ = "axk2 deepseek_v32 glm_moe_dsa gpt_oss granite_swa kimi_linear mimo_v2_flash"
ALL = {"generates", "reads", "probes"}
PROMPTS = [(BOS, 7, 9), (BOS, *range(5, 16)), (BOS, 33, 21, 30, 12, 6, 17), (BOS, 19)]
REQUESTS = [Request(str(number), 0, "", prompt, 0) for number, prompt in enumerate(PROMPTS)]
GREEDY = Sampling(max_tokens=8, temperature=0.0, top_p=1.0, top_k=0)
SITES = ("block_in", "attn_out", "mid", "mlp_out", "block_out")
ANSWERS = [(10,), (11, 12), (11, 13, 7)]
CHAIN = Chain("q", 0, PROMPTS[0], tuple(range(5, 20)), tuple(Fork(at, (9, 8)) for at in (0, 6, 14)))


class Refused(Exception):
    """With the message."""


def refusing(run, model):
    try:
        return run(model)
    except InputError as error:
        said = str(error)
        assert "\n" not in said and not re.search(r"<class|object at 0x|\[\(|\{'", said) and 30 < len(said) < 600
        raise Refused(said) from None


def engine(model) -> HFEngine:
    return HFEngine(model, make_tokenizer(), TEMPLATE, max_batch=3, first_columns=16)


@torch.no_grad()
def generates(model) -> None:
    found = {response.id: list(response.token_ids) for response in engine(model).generate(REQUESTS, GREEDY)}
    seen = set()
    for number, prompt in enumerate(PROMPTS):
        ids, how = torch.tensor([prompt]), {"do_sample": False, "eos_token_id": EOS, "pad_token_id": 0}
        output = model.generate(ids, max_new_tokens=8, output_logits=True, return_dict_in_generate=True, **how)
        expected = output.sequences[0, len(prompt) :].tolist()
        for logits, one, other in zip(output.logits, expected, found[str(number)], strict=True):
            if one != other:
                assert logits[0, one] - logits[0, other] < 1e-4, f"{expected}, not {found[str(number)]}"
                break
        seen |= set(expected)
    assert len(seen) > 4, "the tokens must vary"


@torch.no_grad()
def reads(model) -> None:
    """At its sites, in a batch of unequal lengths, what transformers calls the hidden states, and their summands."""
    passages = [Passage(str(index), ids, (Span(str(index), 1, len(ids)),)) for index, ids in enumerate(PROMPTS)]
    means = class_means(model, passages, SITES, 1000, after_norm=True).means
    for index, ids in enumerate(PROMPTS):
        states = model.base_model(torch.tensor([ids]), output_hidden_states=True, use_cache=False).hidden_states
        expected = torch.stack([one[0, 1:].double().mean(dim=0) for one in states])
        x, attention, mid, mlp, out = (means[site][str(index)] for site in SITES)
        for found, truth in [
            (x, expected[:-1]),
            (out, expected[1:]),
            (mid, x + attention),
            (out[:-1], (mid + mlp)[:-1]),
        ]:
            torch.testing.assert_close(found, truth, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def probes(model) -> None:
    (found,) = dict(engine(model).probe([CHAIN], ANSWERS)).values()
    for number, fork in enumerate(CHAIN.forks):
        begun = [*CHAIN.prompt_ids, *CHAIN.token_ids[: fork.at], *fork.tail]
        for answer, log in zip(ANSWERS, found[number], strict=True):
            logs = model(torch.tensor([[*begun, *answer]]), use_cache=False).logits[0].log_softmax(-1)
            expected = sum(logs[len(begun) - 1 + place, token] for place, token in enumerate(answer))
            assert abs(log - expected) < 1e-4


def works(model) -> set[str]:
    """What can be done with it, and was found right; all else is refused in one line."""
    done = set()
    try:
        refusing(check_runs, model)  # as it is loaded
    except Refused:
        with suppress(Refused):  # of a model that was not loaded
            refusing(lambda model: list(engine(model).generate(REQUESTS, GREEDY)), model)
        return done
    for run in (generates, reads, probes):
        with suppress(Refused):
            refusing(run, model)
            done.add(run.__name__)
    return done


@pytest.mark.parametrize("name", NAMES)
def test_an_architecture_is_run_as_transformers_runs_it_or_refused(name):
    if name in UNBUILT:
        pytest.skip("cannot be built small")
    expected = ALL if name in WORKS.split() else {"reads"} if name in READ.split() else set()
    assert works(build(small_config(name))) == expected


ROPES = {
    "default": {},
    "linear": {"factor": 4.0},
    "llama3": {"factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 8},
    "proportional": {"partial_rotary_factor": 0.5},
    "dynamic": {"factor": 4.0},
    "longrope": {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "original_max_position_embeddings": 8},
}


@pytest.mark.parametrize(
    "name, rope", [(name, rope) for name in ("llama", "qwen2", "mistral") for rope in ROPES] + [("phi3", "longrope")]
)
def test_rotary_embeddings_whose_angles_depend_on_the_length_are_refused_all_others_work(name, rope):
    stated = {"rope_type": rope, "rope_theta": 1e4} | ROPES[rope]
    model = build(small_config(name, rope_parameters=stated, max_position_embeddings=32))
    refused = rope in ("dynamic", "longrope")
    assert works(model) == (set() if refused else ALL)
    if refused:
        with pytest.raises(Refused, match=f"rotary embedding of .*ForCausalLM is {rope}: its angles .* --engine vllm"):
            refusing(generates, model)


def test_a_rotary_embedding_of_some_layers_is_looked_at_too():
    stated = {kind: {"rope_type": "default", "rope_theta": 1e4} for kind in ("full_attention", "sliding_attention")}
    assert works(build(small_config("laguna", rope_parameters=stated))) == ALL
    stated["full_attention"] |= {"rope_type": "dynamic", "factor": 2.0}
    with pytest.raises(Refused, match="is dynamic"):
        refusing(generates, build(small_config("laguna", rope_parameters=stated)))


SCALED = {"attention_multiplier": 0.4, "embedding_multiplier": 3.0, "logits_scaling": 2.0}
WINDOWED = {"use_sliding_window": True, "max_window_layers": 1}
BIASED = {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True, "num_key_value_heads": 1}
SLOW = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 4}


@pytest.mark.parametrize(
    "name, settings, expected",
    [
        ("granite", SCALED | {"residual_multiplier": 1.0}, ALL),
        ("granite", SCALED | {"residual_multiplier": 0.22}, set()),
        ("llama", BIASED, ALL),
        ("llama", {"head_dim": 12}, ALL),
        ("qwen2", WINDOWED | {"sliding_window": 64}, ALL),
        ("qwen2", WINDOWED | {"sliding_window": 6}, {"reads", "probes"}),
        ("mistral", {"sliding_window": None}, ALL),
        ("mistral", {"sliding_window": 6}, {"reads", "probes"}),
        ("ministral", {"sliding_window": None}, set()),
        ("ministral3", {"rope_parameters": SLOW | {"llama_4_scaling_beta": 0.5}}, ALL),
        ("cwm", {"sliding_window": 6}, {"reads", "probes"}),
        ("exaone_moe", {"sliding_window": 6}, {"reads", "probes"}),
        ("laguna", {"num_attention_heads_per_layer": [4, 8]}, set()),
        ("olmo", {"clip_qkv": 0.5}, ALL),
        ("smollm3", {"no_rope_layers": [1, 0]}, ALL),
        ("stablelm", {"use_parallel_residual": True}, set()),
        ("stablelm", {"qk_layernorm": True, "use_qkv_bias": True}, ALL),
        ("deepseek_v3", {"first_k_dense_replace": 1, "q_lora_rank": None}, ALL),
        ("gpt_oss", {"sliding_window": 6}, {"reads"}),
        ("gemma", {"use_bidirectional_attention": True}, set()),
        ("llama", {"is_causal": False}, set()),
    ],
)
def test_what_a_config_can_turn_on_is_run_right_or_refused(name, settings, expected):
    assert works(build(small_config(name, **settings))) == expected
