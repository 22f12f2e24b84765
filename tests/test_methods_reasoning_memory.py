"""LiReFs: which prompts are read where, and the direction from memory to reasoning against the plain formula."""

from argparse import ArgumentParser
from dataclasses import replace

import pytest
import torch
from conftest import VOCABULARY, hidden_states
from synthetic import marks_of, record

from thinksteer.activations import class_means, read_at
from thinksteer.directions import contrast
from thinksteer.methods import METHODS
from thinksteer.methods.method import labelled
from thinksteer.methods.reasoning_memory import PromptRule
from thinksteer.records import InputError, Span
from thinksteer.thinking import Reader

LIREFS = METHODS["reasoning_memory"]
READER = Reader(lambda prompt: tuple(map(int, prompt.split())), None, None, marks_of((), "<think>", "</think>"))


def question(name, ids, level, sample=0):
    return replace(record(name, sample), prompt=" ".join(map(str, ids)), level=level)


def questions(seed, count, last=None):
    """Prompts of random length and tokens, every third of level "memory"; `last` ends them all."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for index in range(count):
        length = int(torch.randint(3, 20, (), generator=generator))
        ids = torch.randint(VOCABULARY, (length,), generator=generator).tolist()
        level = "reasoning" if index % 3 else "memory"
        made.append(question(f"q{index}", ids if last is None else [*ids, last], level))
    return made


def direction(model, records, rule, max_batch_tokens=50):
    passages = read_at(labelled([LIREFS], records, rule, READER, 1), LIREFS.reading)
    found = class_means(model, passages, [LIREFS.reading.site], max_batch_tokens)
    return contrast(found.means[LIREFS.reading.site], found.counts, LIREFS.terms)


@pytest.mark.parametrize("states", ["last", "mean"])
def test_the_direction_is_the_difference_of_the_means_of_what_enters_each_block(model, states):
    records = questions(0, 11)
    examples = {"reasoning": [], "memory": []}
    for one in records:
        entering = torch.stack(hidden_states(model, READER.encode(one.prompt))[:-1])  # [L, T, D]
        examples[one.level].append(entering[:, -1] if states == "last" else entering.mean(dim=1))
    truth = sum(examples["reasoning"]) / 7 - sum(examples["memory"]) / 4
    found = direction(model, records, PromptRule(states))
    assert found.dtype == torch.float64
    assert ((found - truth).norm(dim=-1) / truth.norm(dim=-1)).max() < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_all_prompts_end_with_has_no_direction_where_it_enters_the_first_block(qwen, dtype):
    found = direction(qwen.to(dtype), questions(1, 40, last=7), PromptRule())
    assert not found[0].any() and found[1:].norm(dim=-1).min() > 1e-3


def test_a_question_counts_once_whatever_its_samples_and_only_if_of_a_kind():
    asked = [question("b", (3, 4, 5), "memory", sample) for sample in (0, 1)]
    asked += [question("a", (6, 7), "reasoning"), question("c", (8,), "10 days"), question("d", (9,), None)]
    found = LIREFS.passages(asked, PromptRule(), READER)
    assert [(one.id, one.sample, one.ids, one.spans) for one in found] == [
        ("b", 0, (3, 4, 5), (Span("memory", 2, 3),)),
        ("a", 0, (6, 7), (Span("reasoning", 1, 2),)),
    ]
    whole = LIREFS.passages(asked, PromptRule("mean"), READER)
    assert [one.spans for one in whole] == [(Span("memory", 0, 3),), (Span("reasoning", 0, 2),)]


def test_imported_responses_without_tokens_have_prompts_all_the_same():
    assert not record("q").token_ids and LIREFS.passages([question("q", (1,), "memory")], PromptRule(), READER)


def test_questions_of_one_kind_have_no_direction_and_it_is_said_which_have_both():
    asked = [question(f"q{index}", (1, 2), "reasoning") for index in range(9)]
    with pytest.raises(InputError, match=r"9 reasoning and 0 memory.*arithmetic_and_facts.*scripts\.score_questions"):
        labelled([LIREFS], asked, PromptRule(), READER, 1)


def test_the_paper_reads_the_last_token():
    parser = ArgumentParser()
    LIREFS.add_flags(parser)
    assert LIREFS.rule(parser.parse_args([]), None) == PromptRule("last")
    assert LIREFS.rule(parser.parse_args(["--states", "mean"]), None) == PromptRule("mean")
