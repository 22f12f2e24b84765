"""The embedded model as it ships: an ordinary Hugging Face folder in which the phenomenon is there."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from thinksteer import model_files, models
from thinksteer.arithmetic import problems
from thinksteer.engines.hf import HFEngine
from thinksteer.engines.sampling import sampling_from
from thinksteer.generation import records, requests
from thinksteer.grading import Grader
from thinksteer.records import Problem, Record
from thinksteer.thinking import prompt_ids

REF = models.resolve("tiny-reasoner", Path("nowhere"))


@pytest.fixture(scope="module")
def engine() -> HFEngine:
    return HFEngine(models.load_model(REF, "cpu"), models.load_tokenizer(REF), REF.template)


def answer(engine: HFEngine, asked: list[Problem], **sampling) -> list[Record]:
    rule = sampling_from(model_files.generation_config(REF), 400, forced_answer=REF.template.forced_answer, **sampling)
    with Grader() as grader:
        prompts = requests(asked, REF.template, engine.tokenizer, "", 1, 0, set())
        return list(records(engine, asked, prompts, rule, grader))


@pytest.fixture(scope="module")
def answered(engine) -> list[Record]:
    return answer(engine, list(problems("test", 99, 400)))


def test_it_is_a_small_qwen2_with_its_own_card():
    files = [path for path in models.TINY_REASONER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 8e6
    assert AutoModelForCausalLM.from_pretrained(models.TINY_REASONER).config.model_type == "qwen2"
    assert GenerationConfig.from_pretrained(models.TINY_REASONER).temperature == 0.6
    assert (models.TINY_REASONER / "README.md").is_file()


def read_ids(engine: HFEngine, problem: Problem) -> tuple[int, ...]:
    return prompt_ids(REF.template, engine.tokenizer, REF.template.prompt(problem.question))


def test_autotokenizer_and_the_chat_template_give_the_ids_that_the_package_reads(engine):
    general = AutoTokenizer.from_pretrained(models.TINY_REASONER)
    for problem in problems("test", 1, 50):
        asked = [{"role": "user", "content": problem.question}]
        ids = general.apply_chat_template(asked, add_generation_prompt=True)["input_ids"]
        assert tuple(ids) == read_ids(engine, problem)


def test_greedy_decoding_equals_transformers(engine):
    asked = list(problems("test", 2, 8))
    ours = {record.id: record.token_ids for record in answer(engine, asked, temperature=0.0)}
    greedy = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    for problem in asked:
        ids = torch.tensor([read_ids(engine, problem)])
        theirs = engine.model.generate(ids, max_new_tokens=400, **greedy)
        assert ours[problem.id] == tuple(theirs[0, ids.shape[1] :].tolist())


def test_it_is_right_mostly_but_not_where_it_thinks_least(answered):
    correct = np.array([record.correct for record in sorted(answered, key=lambda record: record.length)])
    fifth = len(correct) // 5
    assert 0.6 < correct.mean() < 0.9
    assert correct[fifth:].mean() - correct[:fifth].mean() > 0.25


def test_every_response_closes_its_thinking_and_gives_an_answer(answered):
    assert np.mean([record.status == "closed" for record in answered]) > 0.98
    assert np.mean([record.prediction is not None for record in answered]) > 0.98


def test_its_text_is_stored_as_generated(engine, answered):
    for record in answered[:50]:
        assert engine.tokenizer.decode(record.token_ids) == record.response + engine.tokenizer.eos_token


def test_a_spent_budget_is_followed_by_a_forced_answer(engine):
    asked = [problem for problem in problems("test", 3, 40)]
    rule = sampling_from(model_files.generation_config(REF), 20, forced_answer=REF.template.forced_answer)
    with Grader() as grader:
        prompts = requests(asked, REF.template, engine.tokenizer, "", 1, 0, set())
        found = list(records(engine, asked, prompts, rule, grader))
    capped = [record for record in found if record.status == "capped"]
    assert len(capped) > 20
    assert all(record.forced_at == 20 and REF.template.forced_answer in record.response for record in capped)
    assert np.mean([record.prediction is not None for record in capped]) > 0.95
