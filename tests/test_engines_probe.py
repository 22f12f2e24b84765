"""Probing with transformers against plain forward passes, one for each fork and answer, without cache or padding."""

import copy
import itertools
import random

import pytest
import torch
from conftest import FAMILIES, SIZES, VOCABULARY, build_model
from recurrent_model import make_model as make_recurrent
from test_engines_hf import CLOSE, OPEN, TEMPLATE, make_tokenizer
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
)

from thinksteer.confidence import Chain, Fork
from thinksteer.engines import pieces
from thinksteer.engines import probe as probing
from thinksteer.engines.hf import HFEngine
from thinksteer.records import Condition, Edit, InputError
from thinksteer.steering import applied, conditions

ANSWERS = [*itertools.product((10, 11, 12), (20, 21, 10)), (10,), (30, 20), (12, 21, 9), (12, 21, 9, 9)]
BRANCHES = 7  # none, 10, 11, 12, 30, 12 21, 12 21 9
VECTORS = torch.randn(3, 32, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
THINKING, RESPONDING = Condition(None, True), Condition(responding=True)
SOME = Condition(frozenset((5, 10, 21, 40)), True)


def make_chains(
    closing: tuple[int, ...] = (50, CLOSE, 51, 52), plain: tuple[int, ...] = (51, 52), every: int = 4
) -> list[Chain]:
    """Nine of different lengths that open their thinking, some of which close it; prompts hold delimiters, too."""
    rng, made = random.Random(5), []

    def some(count: int) -> list[int]:
        return [rng.randrange(5, 36) for _ in range(count)]  # the tokenizer has no text for those above

    for index, (asked, thought, after) in enumerate(itertools.product((1, 7, 16), (0, 9, 30), (5,))):
        prompt = (*some(asked)[: asked // 2], OPEN, *some(asked + 1)[: asked // 2 + 1])
        ids = (*some(2), OPEN, *some(thought), *([CLOSE] if index % 2 else []), *some(after))
        ends = [(at, closing if 3 <= at <= 3 + thought else plain) for at in range(0, len(ids) + 1, every)]
        made.append(Chain(f"q{index}", index, prompt, ids, tuple(Fork(at, tail) for at, tail in ends)))
    return made


def probed(model, chains, edits=(), answers=ANSWERS):
    found = dict(HFEngine(model, make_tokenizer(), TEMPLATE).probe(chains, answers, edits))
    assert list(found) == chains
    return found


def holds(where: Condition, ids: list[int], prompt_length: int) -> list[bool]:
    held, opened, closed = [], False, False
    for place, token in enumerate(ids):
        closed = closed or (opened and token == CLOSE)
        is_inside = opened and not closed
        held.append(
            (where.tokens is None or token in where.tokens)
            and (is_inside or not where.in_thinking)
            and (place >= prompt_length - 1 or not where.responding)
        )
        opened = opened or (place >= prompt_length and token == OPEN)
    return held


@torch.no_grad()
def recomputed(model, chain, edits=(), answers=ANSWERS):
    """`[forks, answers]` from the logits of whole sequences; those of one length are rows of a batch."""
    found = torch.zeros(len(chain.forks), len(answers), dtype=torch.float64)
    with applied(model, edits) as masks:
        for number, fork in enumerate(chain.forks):
            begun = [*chain.prompt_ids, *chain.token_ids[: fork.at], *fork.tail]
            for length in set(map(len, answers)):
                alike = [index for index, answer in enumerate(answers) if len(answer) == length]
                texts = [[*begun, *answers[index]] for index in alike]
                for where in conditions(edits):
                    masks[where] = torch.tensor([holds(where, ids, len(chain.prompt_ids)) for ids in texts])
                logs = model(torch.tensor(texts), use_cache=False).logits.double().log_softmax(-1)
                for index, row in zip(alike, logs, strict=True):
                    found[number, index] = sum(row[len(begun) - 1 + i, token] for i, token in enumerate(answers[index]))
    return found


def same(model, chains, edits=(), answers=ANSWERS):
    for chain, found in probed(model, chains, edits, answers).items():
        torch.testing.assert_close(found, recomputed(model, chain, edits, answers), rtol=0, atol=1e-9)


def test_forks_equal_one_plain_pass_each(model):
    """Sliding windows, too: Mistral's is 12 tokens, less than a chain and less than a fork's own."""
    same(model, make_chains()[::2])


@torch.no_grad()
def left_padded(model, chains: list[Chain], answers: list[int], prepended: bool = False):
    """By transformers' own batches, a row for each chain; `prepended`: as published with action confidence, where the
    mask of the tail stands before that of the row, so that padding is seen and the prompt's beginning is not."""
    found = {chain: [] for chain in chains}
    for at in range(len(chains[0].forks)):
        texts = [[*chain.prompt_ids, *chain.token_ids[:at]] for chain in chains]
        pads = [max(map(len, texts)) - len(text) for text in texts]
        ids = torch.tensor([[0] * pad + text for pad, text in zip(pads, texts, strict=True)])
        mask = torch.tensor([[0] * pad + [1] * len(text) for pad, text in zip(pads, texts, strict=True)])
        tail = torch.tensor([chain.forks[at].tail for chain in chains])
        mask = torch.cat([torch.ones_like(tail), mask] if prepended else [mask, torch.ones_like(tail)], dim=1)
        places = (mask.cumsum(dim=1) - 1).clamp(min=0)
        output = model(torch.cat([ids, tail], dim=1), attention_mask=mask, position_ids=places, use_cache=False)
        for chain, logs in zip(chains, output.logits[:, -1].log_softmax(-1), strict=True):
            found[chain].append(logs[answers])
    return {chain: torch.stack(rows) for chain, rows in found.items()}


def test_forks_at_every_token_equal_a_batch_with_left_padding(model):
    """Of three prompts of different lengths; that published mistake is of another size altogether."""
    forks = tuple(Fork(at, (50, CLOSE)) for at in range(39))
    chains = [Chain(one.id, 0, one.prompt_ids, one.token_ids[:38], forks) for one in make_chains()[2::3]]
    assert [len(chain.prompt_ids) for chain in chains] == [2, 8, 18]
    answers = [10, 21, 60]
    found = probed(model, chains, answers=[(token,) for token in answers])
    expected, mistaken = (left_padded(model, chains, answers, prepended) for prepended in (False, True))
    for chain in chains:
        torch.testing.assert_close(found[chain], expected[chain], rtol=0, atol=1e-9)
    for chain in chains[:-1]:  # Mistral's later forks see nothing of the prompt
        wrong = (found[chain] - mistaken[chain]).abs().amax(dim=1)
        assert (wrong > 1e-3).sum() > 25 and wrong.median() > 1e-2


@pytest.mark.parametrize("tokens, piece", [(1, 1), (60, 20), (100, 1000), (10_000, 10_000)])
def test_it_does_not_matter_what_is_read_together(models, tokens, piece, monkeypatch):
    model, chains = models["mistral"], make_chains(every=1)[1::3]
    whole = probed(model, chains)
    monkeypatch.setattr(probing, "PASS_TOKENS", tokens)
    monkeypatch.setattr(probing, "PIECE_TOKENS", piece)
    monkeypatch.setattr(probing, "LOGITS", 2 * BRANCHES * VOCABULARY)
    for chain, found in probed(model, chains).items():
        torch.testing.assert_close(found, whole[chain], rtol=0, atol=1e-12)
        torch.testing.assert_close(probed(model, [chain])[chain], whole[chain], rtol=0, atol=1e-12)


@pytest.mark.parametrize("tokens, forks, piece", [(150, 1000, 40), (10_000, 3, 30), (10_000, 1000, 20)])
def test_no_more_is_read_together_than_may_be(qwen, tokens, forks, piece, monkeypatch):
    fed, ends, together = [], [], []
    qwen.get_input_embeddings().register_forward_hook(lambda module, inputs, output: fed.append(inputs[0].numel()))
    qwen.get_output_embeddings().register_forward_hook(lambda module, inputs, output: ends.append(output.shape[1]))
    attention = pieces.scaled_dot_product_attention

    def noted(queries, keys, *more, **settings):
        together.append(queries.shape[2] if keys.shape[2] > queries.shape[2] else 0)
        return attention(queries, keys, *more, **settings)

    monkeypatch.setattr(pieces, "scaled_dot_product_attention", noted)
    monkeypatch.setattr(probing, "PASS_TOKENS", tokens)
    monkeypatch.setattr(probing, "PIECE_TOKENS", piece)
    monkeypatch.setattr(probing, "LOGITS", forks * BRANCHES * VOCABULARY)
    probed(qwen, make_chains())
    assert max(fed) <= tokens and max(ends) <= forks * BRANCHES and max(together) <= piece
    assert tokens > 150 or max(fed) > 100


def test_some_layers_may_be_windowed_and_some_not(models):
    model = copy.deepcopy(models["qwen2"])
    model.config.sliding_window, model.model.has_sliding_layers = 12, True
    model.config.layer_types = ["full_attention", "sliding_attention", "full_attention"]
    for layer, kind in zip(model.model.layers, model.config.layer_types, strict=True):
        layer.self_attn.sliding_window = 12 if kind == "sliding_attention" else None
    chains = make_chains()[-1:]
    (found,) = probed(model, chains).values()
    (plain,) = probed(models["qwen2"], chains).values()
    assert (found - plain).abs().max() > 1e-3
    torch.testing.assert_close(found, recomputed(model, chains[0]), rtol=0, atol=1e-9)


def test_forks_without_a_tail_ask_behind_the_chain_itself(qwen):
    same(qwen, make_chains(plain=()))
    same(qwen, [Chain("q", 0, (9,), (), (Fork(0, ()),))])
    chain = make_chains()[4]
    forks = tuple(Fork(at, ()) for at in range(len(chain.token_ids)))
    chain = Chain("q", 0, chain.prompt_ids, chain.token_ids, forks)
    answers = [(token,) for token in chain.token_ids]
    with torch.no_grad():
        logs = qwen(torch.tensor([chain.prompt_ids + chain.token_ids])).logits[0].log_softmax(-1)
    (found,) = probed(qwen, [chain], answers=answers).values()
    truth = [logs[len(chain.prompt_ids) - 1 + at, token] for at, token in enumerate(chain.token_ids)]
    torch.testing.assert_close(found.diagonal(), torch.stack(truth), rtol=0, atol=1e-9)


def test_forks_come_in_any_order_and_a_chain_may_have_none(qwen):
    chain = make_chains()[5]
    turned = Chain("q", 0, chain.prompt_ids, chain.token_ids, chain.forks[::-1])
    bare = Chain("r", 0, chain.prompt_ids, chain.token_ids, ())
    first, none, second = probed(qwen, [chain, bare, turned]).values()
    torch.testing.assert_close(first, second.flip(0), rtol=0, atol=1e-12)
    assert none.shape == (0, len(ANSWERS))
    assert [one.shape for one in probed(qwen, [bare]).values()] == [(0, len(ANSWERS))]


EDITS = {
    "everywhere": [("attn_out", 1.5), ("block_in", -0.5)],
    "in the thinking": [("mlp_out", 2.0, THINKING)],
    "at tokens": [("block_out", 2.0, SOME)],
    "while responding": [("attn_out", 2.0, RESPONDING), ("mlp_out", 1.0)],
    "amplified": [("block_out", -1.0, RESPONDING, "amplify"), ("mlp_out", 1.0, THINKING, "amplify")],
}


@pytest.mark.parametrize("name", EDITS)
def test_steered_forks_equal_one_plain_steered_pass_each(models, name):
    model, chains = models["qwen3"], make_chains()[::2]
    edits = [Edit(site, VECTORS, (0, 1, 2), *more) for site, *more in EDITS[name]]
    same(model, chains, edits)
    assert (probed(model, chains, edits)[chains[-1]] - probed(model, chains)[chains[-1]]).abs().max() > 1e-2


def test_an_answer_may_open_or_close_the_thinking(qwen):
    edits = [Edit("mlp_out", VECTORS, (0, 1, 2), 2.0, THINKING)]
    same(qwen, make_chains(closing=(50,))[::2], edits, [(OPEN, 10), (OPEN, 11, CLOSE, 7), (CLOSE, 7), (6, 7, 8)])


def test_chains_and_beginnings_are_read_once_and_logits_made_where_they_are_read(qwen):
    chains, fed, ends = make_chains(), [], []
    qwen.get_input_embeddings().register_forward_hook(lambda module, inputs, output: fed.append(inputs[0].numel()))
    head = qwen.get_output_embeddings()
    head.register_forward_hook(lambda module, inputs, output: ends.append(output[..., 0].numel()))
    probed(qwen, chains)
    stems = sum(len(chain.prompt_ids) + chain.forks[-1].at for chain in chains)
    forks = [fork for chain in chains for fork in chain.forks]
    assert sum(fed) == 1 + stems + sum(len(fork.tail) + BRANCHES - 1 for fork in forks), "1: what its layers cache"
    assert sum(ends) == 1 + len(forks) * BRANCHES


def test_what_is_read_together_keeps_its_order_and_fills_what_there_is():
    assert probing.packed([3, 3, 4, 9, 1, 6], float, 6) == [[3, 3], [4], [9], [1], [6]]


@pytest.mark.parametrize("every", [8, 64])
def test_a_fork_of_a_long_chain_costs_its_own_tokens(qwen, every):
    rng, fed = random.Random(1), []
    ids = tuple(rng.randrange(5, VOCABULARY) for _ in range(1060))
    chain = Chain("q", 0, ids[:60], ids[60:], tuple(Fork(at, (50, CLOSE, 51)) for at in range(0, 1001, every)))
    watch = qwen.get_input_embeddings().register_forward_hook(lambda module, inputs, _: fed.append(inputs[0].numel()))
    (found,) = probed(qwen, [chain], answers=ANSWERS[:6]).values()
    watch.remove()
    assert sum(fed) == 1 + 60 + chain.forks[-1].at + len(chain.forks) * (3 + 2), "the tail, and 10 and 11 behind it"
    some = Chain("q", 0, chain.prompt_ids, chain.token_ids, chain.forks[:: len(chain.forks) // 3])
    expected = recomputed(qwen, some, answers=ANSWERS[:6])
    torch.testing.assert_close(found[:: len(chain.forks) // 3], expected, rtol=0, atol=1e-9)


def test_the_model_is_as_before_also_when_it_ends_early(qwen):
    def plainly():
        with torch.no_grad():
            return qwen(torch.tensor([[1, 2, 3, 4]])).logits

    before, edits = plainly(), [Edit("mlp_out", VECTORS, (0, 1, 2), 2.0)]
    results = HFEngine(qwen, make_tokenizer(), TEMPLATE).probe(make_chains(), ANSWERS, edits)
    next(results)
    assert qwen.config._attn_implementation == pieces.ATTENTION
    results.close()
    assert torch.equal(plainly(), before) and qwen.config._attn_implementation == "sdpa"


def test_half_precision_is_summed_up_in_float32(qwen):
    chains = make_chains()[-1:]
    (exact,) = probed(qwen, chains).values()
    (found,) = probed(qwen.bfloat16(), chains).values()
    assert found.dtype == torch.float32 and not torch.equal(found, found.bfloat16().float())
    torch.testing.assert_close(found.double(), exact, rtol=0.1, atol=0.3)


def test_bad_input_is_named(qwen):
    chains = make_chains()
    with pytest.raises(InputError, match="nothing to weigh"):
        probed(qwen, chains, answers=[])
    with pytest.raises(InputError, match="another model"):
        probed(qwen, chains, [Edit("mlp_out", VECTORS[:2], (0,), 1.0)])
    ones = torch.ones_like(VECTORS)
    with pytest.raises(InputError, match="logits are not finite"):
        probed(qwen, chains, 2 * [Edit("mlp_out", ones, (0,), 1e308)])


def test_a_model_may_scale_its_logits(monkeypatch):
    scales = {"logits_scaling": 3.0, "attention_multiplier": 0.2, "embedding_multiplier": 2.0}
    monkeypatch.setitem(FAMILIES, "granite", (GraniteForCausalLM, GraniteConfig, scales))
    same(build_model("granite"), make_chains()[-1:])


@pytest.mark.parametrize(
    "model_class, config, says",
    [
        (GptOssForCausalLM, GptOssConfig(**SIZES, head_dim=8, num_local_experts=2, num_experts_per_tok=1), "or sinks"),
        (Gemma2ForCausalLM, Gemma2Config(**SIZES, head_dim=8), "has also pre_feedforward_layernorm"),
        (BloomForCausalLM, BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_head=4), "has no layers, norm"),
    ],
)
def test_attention_that_it_lacks_is_refused(model_class, config, says):
    with pytest.raises(InputError, match=says):
        probed(model_class(config), make_chains())


def test_a_model_of_recurrent_depth_is_refused():
    with pytest.raises(InputError, match="is of recurrent depth: its chains cannot be probed yet"):
        probed(make_recurrent(), make_chains())
