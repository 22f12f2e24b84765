"""Generating with a recurrent-depth model, against passes over the whole text: no cache, no hooks, one row. Float64."""

from dataclasses import replace

import pytest
import torch
from recurrent_model import make_model, save_as_shipped, trace
from test_engines_hf import (
    BOS,
    CLOSE,
    ENDS,
    GREEDY,
    OPEN,
    SAMPLED,
    TEMPLATE,
    WHERES,
    holds,
    make_requests,
    make_tokenizer,
)
from test_engines_progress import Watched
from test_recurrent import first_states

from thinksteer import cli, models
from thinksteer.engines import Loading, engine_class, hf
from thinksteer.engines.hf import HFEngine
from thinksteer.engines.recurrent import Rank
from thinksteer.engines.sampling import choose, uniforms
from thinksteer.records import EVERYWHERE, Condition, Edit, InputError, Request
from thinksteer.recurrent import seed_initial_states
from thinksteer.steering import applied
from thinksteer.thinking import TEMPLATES

STEPS, WIDTH = 16, 24
VECTORS = torch.randn(STEPS, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
GREEDY, SAMPLED = replace(GREEDY, max_tokens=14), replace(SAMPLED, max_tokens=14)


@pytest.fixture(scope="module")
def model():
    made = make_model()
    made.generation_config.eos_token_id = [*ENDS, 15, 22, 33]
    seed_initial_states(made)
    return made


def engine(model, **settings) -> HFEngine:
    return HFEngine(model, make_tokenizer(), TEMPLATE, **{"max_batch": 3} | settings)


def tokens_of(responses) -> dict[str, tuple[int, ...]]:
    return {response.id: response.token_ids for response in responses}


def written_out(edits, held):
    """The changes of edits to the written-out pass, at the positions `held` `[conditions of edits][T]`."""

    def change(step, site, hidden):
        result = hidden
        for edit, mask in zip(edits, held, strict=True):
            if step in edit.layers and edit.site == site:
                v = edit.vectors[step]
                along = (hidden @ v)[..., None] * v / (v @ v) if edit.operation == "amplify" else v
                result = result + edit.coef * along * torch.tensor(mask)[:, None]
        return result

    return change


def check(model, requests, responses, sampling, edits=(), forced=0):
    """Every token is what one pass over the whole text draws there; every position steered is counted."""
    by_id = {request.id: request for request in requests}
    assert sorted(by_id) == sorted(response.id for response in responses)
    for response in responses:
        request, begin = by_id[response.id], len(by_id[response.id].prompt_ids)
        ids, cut = [*request.prompt_ids, *response.token_ids], response.forced_at
        held = [
            [
                inside and (not edit.where.responding or place >= begin - 1)
                for place, inside in enumerate(holds(edit.where, ids, begin))
            ]
            for edit in edits
        ]
        whole = torch.tensor([ids])
        logits = trace(model, whole, first_states(model, whole), written_out(edits, held))[0]
        for index, token in enumerate(response.token_ids):
            if cut is not None and cut <= index < cut + forced:
                continue
            end = begin + index
            draw = uniforms([request.seed], [index])
            assert choose(logits[:, end - 1], draw, [ids[:end]], [index], sampling).item() == token
        assert response.steered_positions == sum(any(at) for at in list(zip(*held, strict=True))[:-1])


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED])
def test_tokens_are_those_of_passes_without_a_cache(model, sampling):
    requests = make_requests(12, longest=5)
    responses = list(engine(model).generate(requests, sampling))
    check(model, requests, responses, sampling)
    assert {response.finish for response in responses} == {"stop", "length"}
    assert len({len(response.token_ids) for response in responses}) > 3, "rows must leave at different times"


EDITS = {
    "none": [],
    "prelude": [("block_out", "add", (1,), 1.5)],
    "one recurrence": [("block_in", "add", (5,), 1.5)],
    "many steps": [("mlp_out", "add", (3, 8, 12, 14), 0.7), ("attn_out", "add", (6,), 1.0)],
    "ablation": [("block_out", "amplify", (0, 7, 13), -1.0)],
    "amplified in all": [("block_in", "amplify", tuple(range(STEPS)), 0.4), ("block_out", "add", (10,), 1.0)],
}


def make_edits(name, where=EVERYWHERE):
    return [Edit(site, VECTORS, steps, coef, where, operation) for site, operation, steps, coef in EDITS[name]]


@pytest.mark.parametrize("name", EDITS)
def test_steered_tokens_are_those_of_passes_without_a_cache(model, name):
    requests, edits = make_requests(6, longest=3), make_edits(name)
    responses = list(engine(model).generate(requests, GREEDY, edits))
    check(model, requests, responses, GREEDY, edits)
    for response in responses[:1]:  # literally: token by token, each from a pass over all before it
        ids = list(next(request.prompt_ids for request in requests if request.id == response.id))
        with applied(model, edits), torch.no_grad():
            for token in response.token_ids:
                assert model(torch.tensor([ids])).logits[0, -1].argmax() == token
                ids.append(token)
    plain = tokens_of(engine(model).generate(requests, GREEDY))
    assert (tokens_of(responses) != plain) == bool(edits)
    alone = engine(model, max_batch=1).generate(requests, GREEDY)
    assert tokens_of(alone) == plain, "steering ends with the generation"


@pytest.mark.parametrize("where", [*WHERES.values(), Condition(responding=True)])
def test_a_conditional_edit_acts_exactly_where_its_condition_holds(model, where):
    requests = [replace(one, prompt_ids=(*one.prompt_ids, OPEN, 9)) for one in make_requests(10, longest=3)]
    sampling, edits = replace(SAMPLED, forced_answer="abC", forced_tokens=3), make_edits("many steps", where)
    responses = list(engine(model).generate(requests, sampling, edits))
    check(model, requests, responses, sampling, edits, forced=3)


def test_rows_are_sampled_alike_alone_in_any_batch_and_in_any_order(model):
    requests = make_requests(14, longest=4)
    expected = tokens_of(engine(model, max_batch=1).generate(requests, SAMPLED))
    assert tokens_of(engine(model, max_batch=5).generate(requests[::-1], SAMPLED)) == expected
    assert len(set(expected.values())) == len(requests)
    again = [replace(request, seed=request.seed + 1) for request in requests]
    assert tokens_of(engine(model).generate(again, SAMPLED)) != expected


def test_progress_moves_with_every_token_and_ends_with_the_whole(model, monkeypatch):
    monkeypatch.setattr(hf, "Progress", Watched)
    responses = list(engine(model).generate(make_requests(4, longest=3), SAMPLED))
    progress = Watched.runs.pop()
    assert [finished for finished, _, _ in progress.seen[:5]] == [0] * 5
    assert len(progress.seen) == sum(len(one.token_ids) - 1 for one in responses)
    assert progress.forecast.tokens == sum(len(one.token_ids) for one in responses)


def test_rows_of_one_length_run_together_as_far_as_the_cache_holds(model, monkeypatch):
    together = []
    monkeypatch.setattr(Rank, "step", lambda rank, step=Rank.step: together.append(len(rank.rows)) or step(rank))
    requests = [Request(f"q{i}", 0, "", (BOS, i, i + 1, *[7] * (i % 2)), i) for i in range(8)]
    list(engine(model, max_batch=8).generate(requests, GREEDY))
    assert max(together) == 4
    assert min(together) < 4, "those that are done leave"
    together.clear()
    per_row = (4 + 14) * 2 * STEPS * WIDTH * 8
    list(engine(model, max_batch=8, cache_gib=2.5 * per_row / 2**30).generate(requests, GREEDY))
    assert max(together) == 2
    together.clear()
    list(engine(model, max_batch=8, cache_gib=0.1 * per_row / 2**30).generate(requests, GREEDY))
    assert set(together) == {1}


def test_a_forced_answer_is_read_and_continued_at_its_new_length(model):
    requests = [replace(one, prompt_ids=(*one.prompt_ids, OPEN)) for one in make_requests(12, longest=2)]
    opened = HFEngine(model, make_tokenizer(), TEMPLATE, max_batch=4)
    sampling = replace(GREEDY, max_tokens=3, forced_answer="aCbb", forced_tokens=5)
    responses = list(opened.generate(requests, sampling))
    cut = [response for response in responses if response.forced_at is not None]
    assert len(cut) > 4
    for response in cut:
        assert response.token_ids[3:7] == (5, CLOSE, 6, 6) and 7 < len(response.token_ids) <= 12
    check(model, requests, [replace(one, steered_positions=0) for one in responses], sampling, forced=4)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    save_as_shipped(make_model(), tmp_path / "small")
    make_tokenizer().save_pretrained(tmp_path / "small")
    return tmp_path / "small"


def test_the_engine_for_transformers_loads_such_a_model_with_its_code_and_recurrences(folder):
    ref, requests = models.ModelRef("small", str(folder), TEMPLATES["plain"]), make_requests(4, longest=3)
    with pytest.raises(
        InputError, match=r"^\S+small comes with Python code.* read it there, then add --trust_remote_code$"
    ):
        engine_class("hf").load(ref, Loading())
    found = {}
    parser = cli.parser("")
    cli.add_loading(parser)
    for asked, recurrences in ((None, 4), (4, 4), (9, 9)):
        flags = ["--device", "cpu", "--trust_remote_code", *(["--mean_recurrence", str(asked)] if asked else [])]
        loaded = engine_class("hf").load(ref, Loading.of(parser.parse_args(flags)))
        runs = []
        loaded.model.transformer.adapter.register_forward_hook(lambda *_, runs=runs: runs.append(1))
        edit = Edit("block_out", torch.ones(4 + 3 * recurrences, WIDTH), (3,), 0.1)
        found[asked] = tokens_of(loaded.generate(requests, GREEDY, [edit]))
        assert len(runs) % recurrences == 0 and len(runs) > recurrences
    assert found[None] == found[4] != found[9]
