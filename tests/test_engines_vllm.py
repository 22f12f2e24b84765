"""vLLM against transformers, token by token, on one engine that can do all; other modes in processes of their own."""

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from test_engines_progress import Watched

from thinksteer import models, store
from thinksteer.confidence import Chain, Fork, tails
from thinksteer.data import Columns, load
from thinksteer.engines import Loading, default_engine, engine_class
from thinksteer.engines.hf import HFEngine
from thinksteer.engines.sampling import kept, processed, sampling_from
from thinksteer.generation import requests
from thinksteer.methods import METHODS
from thinksteer.records import EVERYWHERE, Condition, Edit, InputError, LogitBias, Request, Response, Sampling
from thinksteer.thinking import Reader, read

pytest.importorskip("vllm", reason="vLLM is not installed")

ROOT = Path(__file__).parent.parent
GREEDY = Sampling(max_tokens=120, temperature=0.0, top_p=1.0, top_k=0)
SAMPLED = Sampling(max_tokens=60, temperature=1.0, top_p=0.95, top_k=0)
PROMPTS = 40


@pytest.fixture(scope="module")
def ref() -> models.ModelRef:
    return models.resolve("tiny-reasoner", Path("nowhere"))


@pytest.fixture(scope="module")
def hf(ref) -> HFEngine:
    return HFEngine.load(ref, Loading())


@pytest.fixture(scope="module")
def vllm(ref) -> Iterator:
    engine = engine_class("vllm").load(ref, Loading(steering="any", max_length=300, native_sampling=False))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def asked(ref, hf) -> list[Request]:
    problems = load("arithmetic", "test", PROMPTS, 7, None, Columns(None, None, None))
    return requests(problems, ref.template, hf.tokenizer, "", 1, 0, set())


@pytest.fixture(scope="module")
def vectors() -> torch.Tensor:
    """Random, of the norm that directions of thinking length have in this model."""
    return torch.randn(6, 128, generator=torch.Generator().manual_seed(2))


def answers(engine, asked, sampling, edits=()) -> dict[str, Response]:
    return {response.id: response for response in engine.generate(asked, sampling, edits)}


ALL = tuple(range(6))
BREAKS, SOME = frozenset({205, 619}), frozenset(range(0, 620, 3))
EDITS = {
    "unsteered": [],
    "weight 0": [("attn_out", ALL, 0.0)],
    "attn": [("attn_out", ALL, 0.3)],
    "attn back": [("attn_out", ALL, -0.2)],
    "mlp": [("mlp_out", ALL, 2.0)],
    "block, one layer": [("block_out", (3,), 12.0)],
    "two at one place": [("mlp_out", ALL, 2.0), ("block_out", (2, 3), -6.0), ("attn_out", (5,), 1.0)],
    "breaks": [("mlp_out", ALL, 12.0, Condition(BREAKS))],
    "thinking": [("attn_out", ALL, 0.3, Condition(None, True))],
    "some, thinking": [("mlp_out", ALL, 6.0, Condition(SOME, True))],
    "several conditions": [("attn_out", ALL, 0.3, Condition(BREAKS, True)), ("mlp_out", (2,), 9.0, Condition(SOME))],
    "everywhere and thinking": [("attn_out", ALL, 0.1), ("mlp_out", ALL, 2.0, Condition(None, True))],
    "at the input of blocks": [("block_in", ALL, 0.5), ("block_in", (0,), 1.0)],
    "amplified": [(site, ALL, 8.0, EVERYWHERE, "amplify") for site in ("block_in", "attn_out", "mlp_out")],
    "ablated and added": [("block_out", ALL, -1.0, EVERYWHERE, "amplify"), ("block_out", (3,), 12.0)],
    "added and amplified, while responding": [
        ("block_out", ALL, 3.0, Condition(responding=True)),
        ("block_out", ALL, 5.0, Condition(responding=True), "amplify"),
        ("block_out", (3, 4), 2.0),
    ],
}


def edits_of(name: str, vectors: torch.Tensor) -> list[Edit]:
    return [Edit(site, vectors, layers, coef, *where) for site, layers, coef, *where in EDITS[name]]


@pytest.mark.parametrize("name", EDITS)
def test_responses_are_those_of_transformers(name, hf, vllm, asked, vectors):
    """Everything: tokens, text, status, and the number of positions at which an edit acted."""
    edits = edits_of(name, vectors)
    found, expected, plain = (
        answers(vllm, asked, GREEDY, edits),
        answers(hf, asked, GREEDY, edits),
        answers(hf, asked, GREEDY),
    )
    assert found == expected
    if name not in ("unsteered", "weight 0"):
        changed = sum(found[id].token_ids != plain[id].token_ids for id in found)
        assert changed > PROMPTS / 10, "the test must see steering that matters"


def test_forced_answers_are_those_of_transformers(ref, hf, vllm, asked, vectors):
    short = replace(GREEDY, max_tokens=25, forced_answer=ref.template.forced_answer, forced_tokens=12)
    for name in ("unsteered", "attn", "some, thinking"):
        found, expected = (answers(engine, asked, short, edits_of(name, vectors)) for engine in (vllm, hf))
        assert found == expected
    assert sum(response.forced_at is not None for response in found.values()) > PROMPTS / 2


def test_a_methods_tokens_outside_the_thinking_are_not_steered(ref, hf, vllm, asked, vectors):
    """Blank lines in the question, of which some prompts have none, and behind the thinking."""
    method, reader = METHODS["seal"], Reader.of(ref.template, hf.tokenizer)
    (blank,) = reader.tokens_with(["\n\n"])
    split = [
        replace(one, prompt_ids=(*one.prompt_ids[:9], *[blank] * (number % 3), *one.prompt_ids[9:]))
        for number, one in enumerate(asked)
    ]
    edits = method.edits(vectors, [method.layer(6)], 9.0, method.where(reader))
    found, expected = answers(vllm, split, GREEDY, edits), answers(hf, split, GREEDY, edits)
    assert found == expected
    outside = 0
    for request in split:
        response = found[request.id]
        seen = read(request.prompt_ids, response.token_ids, reader.marks, GREEDY.max_tokens, response.finish)
        ids = [*request.prompt_ids, *response.token_ids[:-1]]
        end = len(ids) if seen.end is None else seen.end
        places = [place for place, token in enumerate(ids) if token == blank]
        inside = [place for place in places if seen.start is not None and seen.start < place < end]
        assert response.steered_positions == len(inside)
        outside += len(places) - len(inside)
    assert outside > PROMPTS / 2 and found != answers(hf, split, GREEDY)


@pytest.mark.parametrize("first", [None, 6, 30, 500])
def test_a_bias_is_that_of_transformers(first, hf, vllm, asked):
    """Throughout, for the beginning, across where an answer is forced, and for longer than a response is."""
    bias = LogitBias(frozenset(range(0, 620, 2)), -5.0, first)
    sampling = replace(GREEDY, max_tokens=40, bias=bias, forced_answer=hf.template.forced_answer, forced_tokens=12)
    found, expected, plain = (
        answers(vllm, asked, sampling),
        answers(hf, asked, sampling),
        answers(hf, asked, replace(sampling, bias=None)),
    )
    assert found == expected
    assert sum(found[id].token_ids != plain[id].token_ids for id in found) > PROMPTS / 2


def test_stop_tokens_are_those_of_transformers(hf, vllm, asked):
    sampling = replace(GREEDY, stop_ids=BREAKS)
    found = answers(vllm, asked, sampling)
    assert found == answers(hf, asked, sampling)
    assert all(response.token_ids[-1] in BREAKS for response in found.values())


def test_what_was_cached_under_one_steering_serves_no_other(hf, vllm, asked, vectors):
    """Prompts of several blocks of the prefix cache, all alike but for the end."""
    begin = tuple(token for request in asked[:6] for token in request.prompt_ids)
    long = [replace(request, prompt_ids=begin + request.prompt_ids) for request in asked[:12]]
    few = replace(GREEDY, max_tokens=20)
    for name in ("unsteered", "attn", "thinking", "unsteered", "attn back", "attn"):
        edits = edits_of(name, vectors)
        assert answers(vllm, long, few, edits) == answers(hf, long, few, edits)


def test_a_record_is_sampled_alike_in_any_company(vllm, asked):
    samples = [
        replace(request, sample=k, id=f"{request.id}.{k}", seed=request.seed + 7 * k)
        for request in asked[:8]
        for k in range(3)
    ]
    together = answers(vllm, samples, SAMPLED)
    assert len({response.token_ids for response in together.values()}) > len(samples) / 2
    assert answers(vllm, samples[::-5], SAMPLED) == {request.id: together[request.id] for request in samples[::-5]}


STATED = {
    "no pair of tokens twice": {"no_repeat_ngram_size": 2},
    "suppressed tokens": {"suppress_tokens": [205, 610, 611, 612, 5000]},
    "suppressed at the beginning": {"begin_suppress_tokens": [5]},
    "bad words": {"bad_words_ids": [[570], [2], [5, 205]]},
    "no end at first": {"min_new_tokens": 75},
    "presence": {"presence_penalty": 1.5},
    "frequency": {"frequency_penalty": 0.5},
    "all": {
        "repetition_penalty": 1.1,
        "presence_penalty": 0.5,
        "frequency_penalty": -0.25,
        "no_repeat_ngram_size": 3,
        "suppress_tokens": [205],
        "bad_words_ids": [[40, 41]],
        "min_new_tokens": 30,
        "min_p": 0.1,
        "top_p": 0.9,
    },
}


@pytest.mark.parametrize("name", STATED)
def test_what_a_generation_config_states_acts_as_in_transformers(name, ref, hf, vllm, asked):
    """Across where an answer is forced and where a bias ends, of which vLLM sees requests of their own."""
    sampling, few = sampling_from(STATED[name] | {"do_sample": False}, 80), asked[:12]
    forced = replace(sampling, max_tokens=15, forced_answer=ref.template.forced_answer, forced_tokens=25)
    biased = replace(sampling, max_tokens=20, bias=LogitBias(frozenset(range(0, 620, 2)), -5.0, 6))
    for rule in (sampling, forced, biased):
        found = answers(vllm, few, rule)
        assert found == answers(hf, few, rule)
        if rule is sampling:
            plain = answers(hf, few, replace(GREEDY, max_tokens=80))
            assert sum(found[id].token_ids != plain[id].token_ids for id in plain) > 1, "it must see one that matters"


@pytest.mark.parametrize(
    "settings",
    [
        {"min_p": 0.03},
        {"min_p": 0.03, "top_p": 0.8},
        {"top_k": 12, "suppress_tokens": (605,)},
    ],
    ids=str,
)
def test_tokens_are_drawn_from_the_probabilities_of_transformers(settings, hf, vllm, asked):
    """A token of which the model is in doubt, drawn 1500 times."""
    (response,) = hf.generate(asked[:1], replace(GREEDY, max_tokens=26))
    prompt = asked[0].prompt_ids + response.token_ids
    rule = replace(SAMPLED, **{"max_tokens": 1, "temperature": 2.0, "top_p": 1.0} | settings)
    draws = [Request(f"q{seed}", 0, "", prompt, seed) for seed in range(1500)]
    counts = Counter(one.token_ids[0] for one in vllm.generate(draws, rule))
    logits = hf.model(torch.tensor([prompt])).logits[:, -1].detach()
    expected = kept(processed(logits, [[*prompt]], [0], rule), rule)[0]
    expected = 1500 * expected / expected.sum()
    assert 2 < (expected > 0).sum() < 20 and counts.keys() <= {*expected.nonzero()[:, 0].tolist()}
    likely = [token for token in range(len(expected)) if expected[token] > 5]
    chi_square = sum((counts[token] - float(expected[token])) ** 2 / float(expected[token]) for token in likely)
    assert chi_square / len(likely) < 2
    assert answers(vllm, draws[:9], rule) == answers(vllm, draws[8::-1], rule)


def test_what_top_k_and_top_p_leave_out_is_what_vllm_leaves_out_by_sorting():
    from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p_pytorch

    from thinksteer.engines.vllm_worker import nucleus

    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(12, 5000, generator=generator) * torch.tensor([0.1, 1, 2, 4, 8, 16] * 2)[:, None]
    p = torch.tensor([0.95, 0.3, 1.0, 0.8] * 3)
    for k in (None, torch.tensor([5000, 20, 1] * 4)):
        mine = nucleus(logits.clone(), k, p)
        theirs = apply_top_k_top_p_pytorch(logits.clone(), None if k is None else k.clone(), p)
        assert torch.equal(mine, theirs) and (mine == -torch.inf).any(-1).sum() >= 9
    logits[0] = torch.nan  # an absurd weight: said of the responses, no end of the engine
    assert nucleus(logits.clone(), None, p)[0].isnan().all()
    alike, logits = torch.full((12,), 0.8), logits[1:].repeat(2, 1)[:12]
    assert torch.equal(nucleus(logits.clone(), None, alike), apply_top_k_top_p_pytorch(logits.clone(), None, alike))


def test_sampling_that_vllm_does_otherwise_needs_its_processor(cramped, asked):
    with pytest.raises(ValueError, match="sampling that vLLM does itself"):
        next(cramped.generate(asked, replace(SAMPLED, no_repeat_ngram_size=2)))


@pytest.fixture(scope="module")
def cramped(ref) -> Iterator:
    """An engine without steering that reads 256 tokens a step, so that it reads most prompts in parts."""
    kind = engine_class("vllm")
    module, own = sys.modules[kind.__module__], sys.modules[kind.__module__].settings
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "settings", lambda *given: own(*given) | {"max_num_batched_tokens": 256})
        engine = kind.load(ref, Loading(max_length=900, max_num_seqs=32))
    yield engine
    engine.close()


def test_a_sample_does_not_depend_on_the_parts_its_prompt_is_read_in(vllm, cramped):
    """Many prompts, of which some are longer than a step; alone, in company, from the cache, with room for all."""
    rng = random.Random(8)
    lengths = [rng.randint(150, 220) for _ in range(252)] + [255, 256, 257, 700]
    prompts = [tuple(rng.randrange(5, 600) for _ in range(length)) for length in lengths]
    asked = [Request(f"q{i}", 0, "", prompt, seed=1000 * i) for i, prompt in enumerate(prompts)]
    few = replace(SAMPLED, max_tokens=8)
    found = answers(cramped, asked, few)
    assert len({response.token_ids for response in found.values()}) > 200
    assert answers(cramped, asked, few) == found, "what is cached is not read again"
    assert cramped.forget() and answers(cramped, asked[::-1], few) == found
    assert cramped.forget()
    for request in asked[:3] + asked[-3:]:
        assert answers(cramped, [request], few) == {request.id: found[request.id]}
    assert answers(vllm, asked, few) == found


def test_an_iterator_may_be_closed_early_and_the_engine_goes_on(hf, vllm, asked):
    responses = vllm.generate(asked, GREEDY)
    next(responses)
    responses.close()
    assert answers(vllm, asked[:5], GREEDY) == answers(hf, asked[:5], GREEDY)


def test_progress_moves_before_the_first_response_ends_and_ends_with_the_whole(vllm, asked, monkeypatch):
    module = sys.modules["thinksteer.engines.vllm"]
    monkeypatch.setattr(module, "Progress", Watched)
    monkeypatch.setattr(module, "LOOK_S", 0.001)
    sampling = replace(GREEDY, max_tokens=24, forced_answer="\n</think>\n\nThe answer is", forced_tokens=8)
    found = answers(vllm, asked, sampling)
    assert any(response.forced_at for response in found.values())
    progress = Watched.runs.pop()
    assert progress.forecast.finished == progress.forecast.responses == len(asked)
    assert progress.forecast.tokens == sum(len(response.token_ids) for response in found.values())
    early = [tokens for finished, _, tokens in progress.seen if finished == 0]
    assert early and len(set(early)) > 1
    for response in {response for _, response, _ in progress.seen}:
        tokens = [tokens for _, one, tokens in progress.seen if one == response]
        assert tokens == sorted(tokens)
    assert not progress._running


def test_steering_that_does_nothing_is_refused(vllm, asked, vectors, monkeypatch):
    steer = vllm._steer
    monkeypatch.setattr(vllm, "_tried", set())
    monkeypatch.setattr(vllm, "_steer", lambda vectors: steer({}))
    with pytest.raises(InputError, match="does not reach"):
        answers(vllm, asked, GREEDY, edits_of("attn", vectors))


def test_steering_that_reaches_prompts_alone_is_refused(vllm, asked, vectors, monkeypatch):
    """As if what decodes ran on graphs captured before."""
    sample = vllm._sample

    async def only_prompts(ids, params, name):
        whole = await sample(ids, params, name)
        plainly, vllm._salt = params.clone(), "plain"
        await vllm._llm.collective_rpc("steer", args=(save({}), [], [b"<think>", b"</think>", []]))
        unsteered = await sample(ids, plainly, name + " again")
        whole.logprobs[1:] = unsteered.logprobs[1:]
        return whole

    monkeypatch.setattr(vllm, "_tried", set())
    monkeypatch.setattr(vllm, "_sample", only_prompts)
    with pytest.raises(InputError, match="does not reach"):
        answers(vllm, asked, GREEDY, edits_of("attn", vectors))


def test_bad_input_is_named(vllm, asked, vectors):
    with pytest.raises(InputError, match="lower --max_length"):
        next(vllm.generate(asked, replace(GREEDY, max_tokens=10_000)))
    with pytest.raises(InputError, match="empty prompt"):
        next(vllm.generate([replace(asked[0], prompt_ids=())], GREEDY))
    with pytest.raises(InputError, match="another model"):
        next(vllm.generate(asked, GREEDY, [Edit("attn_out", vectors[:3], (0,), 1.0)]))
    with pytest.raises(InputError, match="top_p"):
        next(vllm.generate(asked, replace(GREEDY, top_p=0.0)))
    for temperature in (0.001, 2.5):
        with pytest.raises(InputError, match=rf"temperature is {temperature}; vLLM .* use --engine hf"):
            next(vllm.generate(asked, replace(SAMPLED, temperature=temperature)))


def test_which_engine_is_the_default(ref, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert default_engine(ref) == "hf"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert default_engine(ref) == "vllm"
    monkeypatch.setattr("thinksteer.engines.vllm.ModelRegistry.get_supported_archs", lambda: ["LlamaForCausalLM"])
    assert default_engine(ref) == "hf"


def stage(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400)


def test_one_compiled_engine_serves_a_whole_sweep_and_gives_the_tokens_of_transformers(tmp_path, vectors):
    """17 weights x 2 sites through the stage, biases under torch.compile."""
    weights = [round(0.1 * step, 1) for step in range(-8, 9)]
    told: dict[str, str] = {}
    for engine in ("hf", "vllm"):
        for control in ("thinking_length_attn", "thinking_length_mlp"):
            file = store.direction_path(tmp_path / engine, "tiny-reasoner", control)
            store.write_safetensors(file, {"direction": 4 * vectors}, {"method": control})
        flags = ("--control", "thinking_length_attn", "thinking_length_mlp", "--direction_weight", *weights)
        asked = ("--n_questions", 12, "--max_length", 150, "--temperature", 0, "--data_seed", 5)
        done = stage("steer_eval.py", "--artifacts", tmp_path / engine, "--engine", engine, *flags, *asked)
        assert done.returncode == 0, done.stderr
        told[engine] = done.stderr
    assert told["vllm"].count("checkpoint shards: 100%") == 1, "the model is loaded once"
    files = sorted(path.relative_to(tmp_path / "hf") for path in (tmp_path / "hf" / "steering").rglob("*.jsonl"))
    assert len(files) == 34
    answers = {}
    for file in files:
        ours, theirs = (store.read_records(tmp_path / engine / file) for engine in ("hf", "vllm"))
        assert sorted(ours, key=lambda one: one.id) == sorted(theirs, key=lambda one: one.id), file
        answers[file] = tuple(one.token_ids for one in sorted(ours, key=lambda one: one.id))
    assert len(set(answers.values())) > 20, "the test must see steering that matters"
    manifest = store.read_json(store.manifest_path(tmp_path / "vllm" / files[0]))
    assert manifest["settings"]["engine"] == "vllm" and manifest["device"] == "cpu"


def test_a_killed_stage_leaves_no_process_and_loses_nothing(tmp_path):
    flags = ("--artifacts", tmp_path, "--model", "tiny-reasoner", "--engine", "vllm", "--max_num_seqs", 8)
    flags = ("evaluate_models.py", *flags, "--n_questions", 60, "--n_samples", 4, "--max_length", 200)
    file = store.evaluation_path(tmp_path, "tiny-reasoner", "arithmetic", "")
    command = [sys.executable, *map(str, flags)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not file.exists() or file.read_bytes().count(b"\n") < 20:
        assert process.poll() is None
        time.sleep(0.05)
    children = descendants(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = file.read_bytes().rpartition(b"\n")[0]
    assert 0 < kept.count(b"\n") < 239
    deadline = time.monotonic() + 30
    while alive := [pid for pid in children if is_running(pid)]:
        assert time.monotonic() < deadline, f"processes {alive} go on"
        time.sleep(0.2)
    assert len(children) >= 2

    done = stage(*flags)
    assert done.returncode == 0, done.stderr
    assert file.read_bytes().startswith(kept)
    assert len(store.read_records(file)) == 240
    assert store.is_complete(file)


def descendants(parent: int) -> list[int]:
    found = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout.split()
    pairs = list(zip(map(int, found[::2]), map(int, found[1::2]), strict=True))
    family = [parent]
    for member in family:
        family += [pid for pid, above in pairs if above == member]
    names = {pid: Path(f"/proc/{pid}/comm").read_text().strip() for pid in family[1:] if Path(f"/proc/{pid}").exists()}
    return [pid for pid, name in names.items() if name.startswith(("VLLM", "python"))]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_recurrence_is_refused_before_anything_starts(ref):
    with pytest.raises(InputError, match="--mean_recurrence: vLLM runs no recurrent-depth models"):
        engine_class("vllm").load(ref, Loading(mean_recurrence=4))


def digits(hf, text: str) -> tuple[int, ...]:
    return tuple(hf.tokenizer(text, add_special_tokens=False).input_ids)


@pytest.fixture(scope="module")
def chains(ref, hf, asked) -> list[Chain]:
    """Chains of thought with forks every 20 tokens, one with forks at every token."""
    closing, suffix = tails(ref.template, hf.tokenizer, "\n\n\\boxed{")
    made = []
    for index, request in enumerate(asked[:12]):
        (response,) = hf.generate([request], GREEDY)
        places = range(0, len(response.token_ids) + 1, 20 if index else 1)
        forks = tuple(Fork(at, closing if at else suffix) for at in places)
        made.append(Chain(request.id, 0, request.prompt_ids, response.token_ids, forks))
    return made


@pytest.mark.parametrize(
    "name", ["unsteered", "attn", "several conditions", "amplified", "added and amplified, while responding"]
)
def test_probabilities_at_forks_are_those_of_transformers(name, hf, vllm, chains, vectors):
    """Two-token answers, and one token and three that begin alike; cached under one steering, asked under the next."""
    answers = [digits(hf, text) for text in (*map(str, range(10, 60, 3)), "4", "47}")]
    edits = edits_of(name, vectors)
    found, expected = (dict(engine.probe(chains, answers, edits)) for engine in (vllm, hf))
    assert found.keys() == expected.keys()
    for chain, logs in found.items():
        torch.testing.assert_close(logs, expected[chain].double(), rtol=0, atol=1e-3)
    if name != "unsteered":
        plain = dict(hf.probe(chains, answers))
        assert max((plain[chain] - expected[chain]).abs().max() for chain in chains) > 0.1


def test_forks_share_what_their_chain_has_cached(hf, vllm, chains):
    """And an answer may be any of more tokens than vLLM weighs in one request."""
    assert vllm.forget()
    answers = [(token,) for token in range(300)]
    found, expected = (dict(engine.probe(chains, answers)) for engine in (vllm, hf))
    for chain, logs in found.items():
        torch.testing.assert_close(logs, expected[chain].double(), rtol=0, atol=1e-3)
    forks = [len(chain.prompt_ids) + fork.at + len(fork.tail) for chain in chains for fork in chain.forks]
    assert vllm.cache_use.tokens == 3 * sum(forks)
    assert vllm.cache_use.share > 0.7


def test_probing_may_end_early_and_names_what_is_too_long(hf, vllm, chains):
    results = vllm.probe(chains, [(5,)])
    next(results)
    results.close()
    assert next(vllm.probe(chains[:1], [(5,)]))[0] == chains[0]
    with pytest.raises(InputError, match=f"{chains[0].id} sample 0 has .* tokens with its tail and answer"):
        next(vllm.probe(chains, [(5,) * 4_500]))
    with pytest.raises(InputError, match="nothing to weigh"):
        next(vllm.probe(chains, []))
    assert list(vllm.probe([], [(5,)])) == []
    bare = replace(chains[0], forks=())
    assert next(vllm.probe([bare], [(5,)]))[1].shape == (0, 1)
