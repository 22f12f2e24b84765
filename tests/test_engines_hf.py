"""The engine against transformers' own `generate`, and against itself in other batches. Float64: no ties."""

import copy
import random
from collections import Counter
from dataclasses import replace

import pytest
import torch
from test_engines_progress import Watched
from tokenizers import Tokenizer, models
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from thinksteer.engines import ENGINES, engine_class, hf
from thinksteer.engines.batch import Batch
from thinksteer.engines.hf import HFEngine
from thinksteer.engines.sampling import choose, kept, processed, sampling_from, uniforms
from thinksteer.records import Condition, Edit, InputError, Request, Sampling
from thinksteer.thinking import Template

VOCABULARY, BOS, EOS, OPEN, CLOSE, LAYERS, HIDDEN = 40, 1, 2, 3, 4, 2, 32
ENDS = (EOS, 30)
TEMPLATE = Template("tiny", open="O", close="C")
GREEDY = Sampling(max_tokens=40, temperature=0.0, top_p=1.0, top_k=0)
SAMPLED = Sampling(max_tokens=40, temperature=2.5, top_p=0.9, top_k=0)
FAMILIES = {
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, {}),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, {"head_dim": 12}),
    "llama": (LlamaForCausalLM, LlamaConfig, {}),
    "mistral": (MistralForCausalLM, MistralConfig, {"sliding_window": None}),
}


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One character, one token."""
    names = ["?", "<", ">", "O", "C", *(chr(ord("a") + i) for i in range(26)), *"0123456789"]
    words = {name: i for i, name in enumerate(names[:VOCABULARY])}
    core = Tokenizer(models.BPE(vocab=words, merges=[], unk_token="?"))
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<", eos_token=">", unk_token="?")


def make_model(family: str):
    kind, config, settings = FAMILIES[family]
    torch.manual_seed(3)
    model = kind(
        config(
            vocab_size=VOCABULARY,
            hidden_size=HIDDEN,
            intermediate_size=40,
            num_hidden_layers=LAYERS,
            num_attention_heads=4,
            num_key_value_heads=2,
            initializer_range=0.35,
            bos_token_id=BOS,
            eos_token_id=EOS,
            pad_token_id=0,
            tie_word_embeddings=False,
            **settings,
        )
    )
    model.generation_config.eos_token_id = list(ENDS)
    return model.double().eval()


def engine(model, **settings) -> HFEngine:
    return HFEngine(model, make_tokenizer(), TEMPLATE, **settings)


def narrow(model) -> HFEngine:
    """Three rows at a time in sixteen columns at first: refills, compactions and rows that outgrow the cache."""
    return engine(model, max_batch=3, first_columns=16)


def make_requests(count: int, longest: int = 12) -> list[Request]:
    rng = random.Random(5)
    prompts = [(BOS, *(rng.randrange(5, VOCABULARY) for _ in range(rng.randint(1, longest)))) for _ in range(count)]
    return [Request(f"q{i}", 0, "", prompt, seed=100 + i) for i, prompt in enumerate(prompts)]


def tokens_of(responses) -> dict[str, tuple[int, ...]]:
    return {response.id: response.token_ids for response in responses}


@pytest.fixture(scope="module")
def llama():
    return make_model("llama")


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_tokens_are_those_of_transformers(family, monkeypatch):
    model, requests = make_model(family), make_requests(20)
    calls: Counter[str] = Counter()
    for name in ("move_window", "take_out", "drop_done"):
        original = getattr(Batch, name)
        monkeypatch.setattr(Batch, name, lambda *a, f=original, n=name, **k: (calls.update([n]), f(*a, **k))[1])
    found = tokens_of(narrow(model).generate(requests, GREEDY))
    for request in requests:
        ids = torch.tensor([request.prompt_ids])
        output = model.generate(ids, max_new_tokens=40, do_sample=False, attention_mask=torch.ones_like(ids))
        assert found[request.id] == tuple(output[0, ids.shape[1] :].tolist()), request.id
    assert min(calls.values()) > 3 and len(calls) == 3
    lengths = {len(tokens) for tokens in found.values()}
    assert max(lengths) > 30 and len(lengths) > 1, "the test must see long responses and ended ones"


def test_a_record_is_sampled_alike_alone_in_any_batch_and_in_any_order(llama):
    requests = make_requests(20)
    together = tokens_of(engine(llama).generate(requests, SAMPLED))
    assert len(set(map(len, together.values()))) > 5
    assert tokens_of(narrow(llama).generate(requests, SAMPLED)) == together
    assert tokens_of(engine(llama, max_batch=5).generate(reversed(requests), SAMPLED)) == together
    for request in requests[:4]:
        assert tokens_of(engine(llama).generate([request], SAMPLED)) == {request.id: together[request.id]}


def test_a_response_is_what_a_plain_loop_draws_with_the_records_uniforms(llama):
    sampling, (request,) = Sampling(max_tokens=12, temperature=2.5, top_p=1.0, top_k=0), make_requests(1)
    draws, ids = uniforms([request.seed] * 12, range(12)), list(request.prompt_ids)
    for draw in draws:
        cumulative = torch.softmax(llama(torch.tensor([ids])).logits[0, -1].detach() / 2.5, -1).cumsum(-1)
        ids.append(int((cumulative <= draw).sum()))
        if ids[-1] in ENDS:
            break
    assert len(ids) > len(request.prompt_ids) + 3
    assert tokens_of(engine(llama).generate([request], sampling))[request.id] == tuple(ids[len(request.prompt_ids) :])


def test_samples_of_one_prompt_are_as_if_each_prompt_were_read_alone(llama):
    samples = [replace(request, id=f"{request.id}.{k}", seed=k) for request in make_requests(3) for k in range(4)]
    together = tokens_of(engine(llama).generate(samples, SAMPLED))
    assert len(set(together.values())) > 9
    for request in samples:
        assert tokens_of(engine(llama).generate([request], SAMPLED)) == {request.id: together[request.id]}


def test_another_seed_gives_another_response(llama):
    requests = make_requests(6)
    other = [replace(request, seed=request.seed + 1000) for request in requests]
    first, second = (tokens_of(engine(llama).generate(some, SAMPLED)) for some in (requests, other))
    assert all(first[request.id] != second[request.id] for request in requests)


def test_first_tokens_follow_the_models_distribution(llama):
    prompt, draws = make_requests(1)[0].prompt_ids, 4000
    requests = [Request(f"q{seed}", seed, "", prompt, seed) for seed in range(draws)]
    sampling = Sampling(max_tokens=1, temperature=1.0, top_p=1.0, top_k=0)
    counts = Counter(response.token_ids[0] for response in engine(llama).generate(requests, sampling))
    expected = draws * torch.softmax(llama(torch.tensor([prompt])).logits[0, -1].detach(), -1)
    likely = [token for token in range(VOCABULARY) if expected[token] > 5]
    chi_square = sum((counts[token] - float(expected[token])) ** 2 / float(expected[token]) for token in likely)
    assert chi_square / len(likely) < 2


def test_a_repetition_penalty_is_that_of_transformers(llama):
    requests = make_requests(6)
    found = tokens_of(narrow(llama).generate(requests, replace(GREEDY, repetition_penalty=1.3)))
    for request in requests:
        ids = torch.tensor([request.prompt_ids])
        output = llama.generate(
            ids, max_new_tokens=40, do_sample=False, repetition_penalty=1.3, attention_mask=torch.ones_like(ids)
        )
        assert found[request.id] == tuple(output[0, ids.shape[1] :].tolist())


STATED = {
    "no pair of tokens twice": {"no_repeat_ngram_size": 2},
    "no four tokens twice": {"no_repeat_ngram_size": 4},
    "suppressed tokens, one of no vocabulary": {"suppress_tokens": [0, 6, 29, 5000]},
    "suppressed at the beginning": {"begin_suppress_tokens": [*range(5, 30)]},
    "bad words, an end among them": {"bad_words_ids": [[21], [EOS], [29, 0], [0, 0, 0], [*range(5, 38)]]},
    "no end at first": {"min_new_tokens": 39},
    "all": {
        "repetition_penalty": 0.7,
        "no_repeat_ngram_size": 3,
        "suppress_tokens": [7],
        "begin_suppress_tokens": [8, 9, 10],
        "bad_words_ids": [[21], [0, 0]],
        "min_new_tokens": 9,
        "min_p": 0.2,
    },
}


def generated(model, request: Request, **stated):
    """What transformers' generate returns for a prompt with this generation_config.json."""
    config = GenerationConfig(eos_token_id=list(ENDS), pad_token_id=0, **stated)
    ids = torch.tensor([request.prompt_ids])
    return model.generate(ids, generation_config=config, attention_mask=torch.ones_like(ids))


@pytest.mark.parametrize("name", STATED)
def test_what_a_generation_config_states_acts_as_in_transformers(name, llama):
    model, requests = copy.deepcopy(llama).float(), make_requests(20)
    found = tokens_of(narrow(model).generate(requests, sampling_from(STATED[name] | {"do_sample": False}, 40)))
    plain = tokens_of(narrow(model).generate(requests, GREEDY))
    for request in requests:
        output = generated(model, request, max_new_tokens=40, do_sample=False, **STATED[name])
        assert found[request.id] == tuple(output[0, len(request.prompt_ids) :].tolist()), request.id
    assert sum(found[id] != plain[id] for id in plain) > 1, "the test must see a setting that matters"


def test_no_token_comes_twice_where_one_is_an_ngram(llama):
    requests = make_requests(8)
    found = tokens_of(narrow(llama).generate(requests, replace(GREEDY, max_tokens=20, no_repeat_ngram_size=1)))
    for request in requests:
        output = generated(llama, request, max_new_tokens=20, no_repeat_ngram_size=1)
        assert found[request.id] == tuple(output[0, len(request.prompt_ids) :].tolist())
        assert len(set(found[request.id])) == len(found[request.id])
    with pytest.raises(InputError, match=r"^no_repeat_ngram_size, suppress_tokens of .* leave no token to go on with"):
        list(engine(llama).generate(requests, replace(GREEDY, no_repeat_ngram_size=1, suppress_tokens=ENDS)))


@pytest.mark.parametrize(
    "stated",
    [
        {"min_p": 0.1, "temperature": 1.5},
        {"min_p": 0.3, "top_p": 0.6, "top_k": 7, "temperature": 0.8},
        {"min_p": 1.0},
        {"temperature": 2.0, "top_p": 0.7, "min_p": 0.05, **STATED["all"]},
    ],
    ids=str,
)
def test_tokens_are_drawn_from_the_probabilities_of_transformers(stated, llama):
    """Step by step along what its generate samples: processors, then warpers, in its order."""
    sampling = replace(sampling_from(stated, 30), eos_ids=frozenset(ENDS))
    torch.manual_seed(1)
    for request in make_requests(6):
        whole = {"do_sample": True, "top_k": 0, **stated, "max_new_tokens": 30}
        output = generated(
            llama, request, **whole, return_dict_in_generate=True, output_scores=True, output_logits=True
        )
        ids, begin = output.sequences[0].tolist(), len(request.prompt_ids)
        for drawn, (scores, logits) in enumerate(zip(output.scores, output.logits, strict=True)):
            probabilities = kept(processed(logits, [ids[: begin + drawn]], [drawn], sampling), sampling)
            torch.testing.assert_close(probabilities / probabilities.sum(), torch.softmax(scores, -1).to(probabilities))


def test_presence_and_frequency_penalties_count_the_tokens_of_the_response(llama):
    """vLLM's definition, which is OpenAI's, written as a plain loop; forced tokens count."""
    sampling = replace(GREEDY, max_tokens=30, presence_penalty=0.5, frequency_penalty=0.25)
    requests = [Request(f"q{i}", 0, "", (BOS, i, i, i + 1, OPEN), 0) for i in range(5, 25)]
    opened = HFEngine(llama, make_tokenizer(), TEMPLATE, max_batch=3, first_columns=16)
    forced = replace(sampling, max_tokens=12, forced_answer="aCaa", forced_tokens=18)
    for rule in (sampling, forced):
        found = {response.id: response for response in opened.generate(requests, rule)}
        for request in requests:
            response, tokens = found[request.id], []
            for token in response.token_ids:
                logits = llama(torch.tensor([[*request.prompt_ids, *tokens]])).logits[0, -1].detach()
                for other, times in Counter(tokens).items():
                    logits[other] -= 0.5 + 0.25 * times
                if response.forced_at is None or not 0 <= len(tokens) - response.forced_at < 4:
                    assert token == int(logits.argmax())
                tokens.append(token)
    assert sum(response.forced_at is not None for response in found.values()) > 3
    plain = tokens_of(opened.generate(requests, replace(forced, presence_penalty=0, frequency_penalty=0)))
    assert sum(found[id].token_ids != plain[id] for id in plain) > 10


def test_text_is_the_tokens_without_the_end_of_sequence(llama):
    responses = list(engine(llama).generate(make_requests(8), SAMPLED))
    assert {response.finish for response in responses} == {"stop", "length"}
    for response in responses:
        ended = response.token_ids[-1] in ENDS
        assert (response.finish == "stop") == ended
        assert response.text == make_tokenizer().decode(response.token_ids[: -1 if ended else None])
        assert not set(ENDS) & set(response.token_ids[:-1])


class Script:
    """Replaces sampling: each response follows its request's script, whatever the logits; beyond it, token 9."""

    def __init__(self, monkeypatch, scripts: dict[str, list[int]]) -> None:
        def choose(batch, logits, rows):
            return [dict(enumerate(scripts[row.request.id])).get(row.drawn, 9) for row in rows]

        monkeypatch.setattr(Batch, "_choose", choose)


def forced(llama, monkeypatch, script: list[int], text: str = "aCbb"):
    others = {f"q{i}": [9] * i + [EOS] for i in range(1, 9)}
    Script(monkeypatch, {"q0": script, **others})
    sampling = Sampling(6, 1.0, 1.0, 0, forced_answer=text, forced_tokens=3)
    responses = {response.id: response for response in narrow(llama).generate(make_requests(9), sampling)}
    assert len(responses) == 9
    return responses["q0"]


A, B = 5, 6  # the tokens of "a" and "b"


def test_thinking_cut_by_the_budget_is_closed_and_answered(llama, monkeypatch):
    response = forced(llama, monkeypatch, [OPEN, 9, 9, 9, 9, 9, *[0] * 4, 11, EOS])
    assert response.token_ids == (OPEN, 9, 9, 9, 9, 9, A, CLOSE, B, B, 11, EOS)
    assert (response.status, response.finish, response.forced_at) == ("capped", "length", 6)
    assert response.thinking_tokens is None


def test_a_forced_answer_is_cut_at_its_own_limit(llama, monkeypatch):
    response = forced(llama, monkeypatch, [OPEN])
    assert response.token_ids == (OPEN, 9, 9, 9, 9, 9, A, CLOSE, B, B, 9, 9, 9)


def test_an_answer_cut_by_the_budget_is_asked_for_without_closing_again(llama, monkeypatch):
    response = forced(llama, monkeypatch, [OPEN, 9, CLOSE, 9, 9, 9, 0, 0, EOS])
    assert response.token_ids == (OPEN, 9, CLOSE, 9, 9, 9, B, B, EOS)
    assert (response.status, response.thinking_tokens, response.forced_at) == ("closed", 3, 6)


@pytest.mark.parametrize(
    ("script", "status", "finish"),
    [
        ([OPEN, 9, EOS], "eos_open", "stop"),
        ([OPEN, 9, 9, 9, 9, EOS], "eos_open", "stop"),
        ([OPEN, 9, CLOSE, 9, 9, EOS], "closed", "stop"),
        ([9, 9, 9, 9, 9, 9], "no_think", "length"),
    ],
)
def test_nothing_is_forced_where_the_model_stopped_or_never_thought(llama, monkeypatch, script, status, finish):
    response = forced(llama, monkeypatch, script)
    assert response.token_ids == tuple(script)
    assert (response.status, response.finish, response.forced_at) == (status, finish, None)


def test_nothing_is_forced_without_a_forced_answer(llama, monkeypatch):
    assert forced(llama, monkeypatch, [OPEN], text="").token_ids == (OPEN, 9, 9, 9, 9, 9)


def test_a_forced_continuation_is_what_the_model_says_after_those_tokens(llama):
    """Greedy; the forced tokens pass through the cache one by one."""
    requests = [Request(f"q{i}", 0, "", (BOS, i, i + 1, OPEN), 0) for i in range(5, 15)]
    opened = HFEngine(llama, make_tokenizer(), TEMPLATE, max_batch=3, first_columns=16)
    sampling = replace(GREEDY, max_tokens=3, forced_answer="aCbb", forced_tokens=5)
    responses = {response.id: response.token_ids for response in opened.generate(requests, sampling)}
    cut = [request for request in requests if len(responses[request.id]) > 3]
    assert len(cut) > 4
    for request in cut:
        tokens = responses[request.id]
        assert tokens[3:7] == (A, CLOSE, B, B)
        ids = torch.tensor([[*request.prompt_ids, *tokens[:7]]])
        output = llama.generate(ids, max_new_tokens=5, do_sample=False, attention_mask=torch.ones_like(ids))
        assert tokens[7:] == tuple(output[0, ids.shape[1] :].tolist())


def test_steering_reaches_every_position_and_ends_with_the_generation(llama):
    requests = make_requests(6)
    vectors = torch.randn(LAYERS, HIDDEN, generator=torch.Generator().manual_seed(0))
    edit = Edit("attn_out", vectors, (0, 1), 0.5)
    plain = tokens_of(engine(llama).generate(requests, GREEDY))
    steered = tokens_of(narrow(llama).generate(requests, GREEDY, [edit]))
    assert tokens_of(engine(llama).generate(requests, GREEDY)) == plain
    hooks = [
        layer.self_attn.o_proj.register_forward_hook(lambda _m, _i, out, v=vector: out + 0.5 * v.double())
        for layer, vector in zip(llama.model.layers, vectors, strict=True)
    ]
    try:
        for request in requests:
            ids = torch.tensor([request.prompt_ids])
            output = llama.generate(ids, max_new_tokens=40, do_sample=False, attention_mask=torch.ones_like(ids))
            assert steered[request.id] == tuple(output[0, ids.shape[1] :].tolist())
    finally:
        for hook in hooks:
            hook.remove()
    assert steered != plain


WHERES = {
    "tokens": Condition(frozenset(range(8, 20))),
    "thinking": Condition(in_thinking=True),
    "both": Condition(frozenset(range(8, 20)), in_thinking=True),
}


def holds(where: Condition, ids: list[int], prompt_length: int) -> list[bool]:
    """By the words of `Condition`, position by position, from the whole sequence."""
    generated = ids[prompt_length:]
    start = prompt_length + generated.index(OPEN) if OPEN in generated else len(ids)
    end = ids.index(CLOSE, start) if CLOSE in ids[start:] else len(ids)
    return [
        (where.tokens is None or ids[place] in where.tokens) and (not where.in_thinking or start < place < end)
        for place in range(len(ids))
    ]


@pytest.mark.parametrize("name", WHERES)
def test_a_conditional_edit_acts_exactly_where_its_condition_holds(name, llama):
    """Every token is the one that a single pass over the whole sequence draws, with hooks at the right positions."""
    where, requests = WHERES[name], [replace(one, prompt_ids=(*one.prompt_ids, OPEN, 9)) for one in make_requests(60)]
    vectors = 2 * torch.randn(LAYERS, HIDDEN, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    edits = [Edit("block_out", vectors, (0,), 1.0, where)]
    sampling = replace(SAMPLED, forced_answer="abC", forced_tokens=5)
    plain = tokens_of(narrow(llama).generate(requests, sampling))
    by_id, counts = {request.id: request for request in requests}, []
    for response in list(narrow(llama).generate(requests, sampling, edits)):
        request = by_id[response.id]
        ids = [*request.prompt_ids, *response.token_ids]
        mask = torch.tensor(holds(where, ids, len(request.prompt_ids)))[:, None]
        hook = llama.model.layers[0].register_forward_hook(lambda *a, m=mask: a[2] + m * vectors[0])
        logits = llama(torch.tensor([ids])).logits[0].detach()
        hook.remove()
        begin, forced = len(request.prompt_ids), response.forced_at
        for index, token in enumerate(response.token_ids):
            if forced is not None and forced <= index < forced + 3:
                continue
            draw = uniforms([request.seed], [index])
            assert (
                choose(logits[None, begin + index - 1], draw, [ids[: begin + index]], [index], sampling).item() == token
            )
        assert response.steered_positions == int(mask[:-1].sum())
        counts.append(response.steered_positions)
        if response.steered_positions == 0:
            assert response.token_ids == plain[response.id]
    assert len(set(counts)) > 5, "the test must see different numbers of steered positions"


def test_the_number_of_steered_positions_is_zero_without_edits_and_all_but_the_last_with_one_everywhere(llama):
    vectors = torch.ones(LAYERS, HIDDEN)
    for edits in ([], [Edit("attn_out", vectors, (0,), 0.1)]):
        for response in narrow(llama).generate(requests := make_requests(6), SAMPLED, edits):
            prompt = next(one.prompt_ids for one in requests if one.id == response.id)
            expected = len(prompt) + len(response.token_ids) - 1 if edits else 0
            assert response.steered_positions == expected


def test_the_model_attends_as_before_once_the_responses_are_read_or_dropped(llama):
    before = llama.config._attn_implementation
    responses = engine(llama).generate(make_requests(4), GREEDY)
    next(responses)
    responses.close()
    assert llama.config._attn_implementation == before


def test_a_budget_too_small_for_one_response_is_an_error_before_anything_runs(llama):
    with pytest.raises(InputError, match="lower --max_length or raise"):
        next(engine(llama, cache_gib=1e-5).generate(make_requests(2), GREEDY))


def test_the_cache_stays_within_its_budget(llama):
    per_token = LAYERS * 2 * 2 * 8 * 8  # layers, keys and values, kv heads, head_dim, bytes
    made: list[int] = []
    run = engine(llama, cache_gib=100 * per_token / 2**30, first_columns=16)
    requests, original = make_requests(12), Batch.__init__

    def spy(batch, model, cache, *rest):
        made.append(cache.slots * cache.columns)
        original(batch, model, cache, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Batch, "__init__", spy)
        found = tokens_of(run.generate(requests, SAMPLED))
    assert found == tokens_of(engine(llama).generate(requests, SAMPLED))
    assert len(made) == 3 and max(made) <= 100


def test_a_sliding_window_shorter_than_a_response_may_get_is_refused(llama):
    FAMILIES["short window"] = (MistralForCausalLM, MistralConfig, {"sliding_window": 16})
    try:
        model = make_model("short window")
    finally:
        del FAMILIES["short window"]
    with pytest.raises(InputError, match="attends to 16 tokens"):
        next(engine(model).generate(make_requests(2), GREEDY))
    short = replace(GREEDY, max_tokens=3)
    requests = make_requests(5)
    full = tokens_of(engine(make_model("mistral")).generate(requests, short))
    assert tokens_of(engine(model).generate(requests, short)) == full


def test_a_prompt_longer_than_the_model_reads_is_refused_before_any_is_answered(llama, monkeypatch):
    monkeypatch.setattr(llama.config, "max_position_embeddings", 12)
    long, short = (Request(name, 0, "", (BOS,) * size, 0) for name, size in (("long", 13), ("short", 12)))
    with pytest.raises(InputError, match="'long' has 13 tokens, the model reads 12: shorten"):
        next(engine(llama).generate([short, long], GREEDY))
    assert len(list(engine(llama).generate([short], GREEDY))) == 1


def test_an_empty_prompt_and_a_forced_answer_that_closes_nothing_are_named(llama):
    with pytest.raises(InputError, match="'empty'"):
        next(engine(llama).generate([Request("empty", 0, "", (), 0)], GREEDY))
    with pytest.raises(InputError, match="lacks 'C'"):
        next(engine(llama).generate(make_requests(1), replace(GREEDY, forced_answer="bb")))


def test_no_requests_give_no_responses(llama):
    assert list(engine(llama).generate([], GREEDY)) == []


def test_the_table_knows_the_engine():
    assert "hf" in ENGINES
    assert engine_class("hf") is HFEngine


def test_progress_moves_with_every_token_and_ends_with_the_whole(llama, monkeypatch):
    monkeypatch.setattr(hf, "Progress", Watched)
    sampling = replace(SAMPLED, forced_answer="C", forced_tokens=3)
    responses = list(narrow(llama).generate(make_requests(8), sampling))
    progress = Watched.runs.pop()
    assert progress.forecast.finished == progress.forecast.responses == 8
    assert progress.forecast.tokens == sum(len(one.token_ids) for one in responses)
    assert progress.forecast.max_tokens >= max(len(one.token_ids) for one in responses)
    first = [tokens for finished, _, tokens in progress.seen if finished == 0]
    assert sorted(set(first)) == list(range(1, max(first) + 1)) and max(first) >= len(responses[0].token_ids) - 1
    for response in {response for _, response, _ in progress.seen}:  # each grows, also over a move to another phase
        tokens = [tokens for _, one, tokens in progress.seen if one == response]
        assert tokens == sorted(set(tokens)) and tokens[0] == 1
    assert not progress._running
