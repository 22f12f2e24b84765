"""The tasks as a whole, and each template's answers against a solver of its own."""

import hashlib
import json
from collections import Counter
from random import Random

import pytest

from tests import task_solvers
from thinksteer import grading
from thinksteer.reasoning_tasks import BOXED, CATEGORIES, PER_CATEGORY, TEMPLATES, WRITTEN, problems

TASKS = {split: problems(split) for split in PER_CATEGORY}
HAND_WRITTEN = [json.loads(line) for line in WRITTEN.read_text(encoding="utf-8").splitlines()]
COMPUTED = [one for templates in TEMPLATES.values() for one in templates if not isinstance(one(Random(0)), str)]
OPEN = [one for templates in TEMPLATES.values() for one in templates if one not in COMPUTED]


def test_each_category_has_as_many_tasks_as_in_the_paper_and_no_task_comes_twice():
    assert len(CATEGORIES) == 10
    for split, count in (("train", 50), ("test", 5)):
        assert Counter(task.level for task in TASKS[split]) == dict.fromkeys(CATEGORIES, count)
        assert [task.id for task in TASKS[split]] == [f"reasoning_tasks-{split}-{n}" for n in range(10 * count)]
    questions = [" ".join(task.question.split()) for tasks in TASKS.values() for task in tasks]
    assert len(set(questions)) == 550


def test_the_first_tasks_are_spread_over_the_categories_and_over_their_templates():
    for split in TASKS:
        for start in (0, 10, 40):
            assert {task.level for task in TASKS[split][start : start + 10]} == set(CATEGORIES)
    logical = [task.question for task in TASKS["train"] if task.level == "mathematical logic"]
    written = {row["question"] + BOXED for row in HAND_WRITTEN} | {row["question"] for row in HAND_WRITTEN}
    for kind in (written, {question for question in logical if "knave" in question}):
        places = [number for number, question in enumerate(logical) if question in kind]
        assert len(places) == 10 and min(places) < 15 and max(places) > 35


def test_test_tasks_are_written_by_hand_and_all_hand_written_ones_are_used():
    for split, tasks in TASKS.items():
        written = {
            row["question"] + (BOXED if "answer" in row else "") for row in HAND_WRITTEN if row["split"] == split
        }
        assert written <= {task.question for task in tasks}
        assert split == "train" or len(written) == len(tasks)


def test_a_task_is_open_or_has_an_answer_that_the_grader_reads_and_takes():
    for task in [*TASKS["train"], *TASKS["test"]]:
        assert (task.kind == "open") == (task.answer == "") == (not task.question.endswith(BOXED))
        if task.kind == "math":
            read = grading.extract(f"<think>9?</think> It is \\boxed{{{task.answer}}}.", task.kind)
            assert grading.decide(read, task.answer, task.kind) is True, task
            assert grading.decide("unknown", task.answer, task.kind) is not True, task
    assert sum(task.kind == "open" for task in TASKS["train"]) in range(100, 200)


def test_the_tasks_are_always_the_same_ones():
    """Records know their tasks by id: whoever changes tasks makes this digest anew, and responses too."""
    told = json.dumps([[task.id, task.question, task.answer] for tasks in TASKS.values() for task in tasks])
    assert hashlib.sha256(told.encode()).hexdigest()[:16] == "2c5abbfba8e3a63c"


@pytest.mark.parametrize("template", COMPUTED, ids=lambda template: template.__name__)
def test_the_answer_is_the_one_that_the_question_alone_leads_to(template):
    solve, rng = getattr(task_solvers, template.__name__), Random("other seeds")
    drawn = [template(rng) for _ in range(25)]
    assert len(set(drawn)) > 10
    for question, answer in drawn:
        assert str(solve(question)).removesuffix(".0") == answer, question


@pytest.mark.parametrize("template", OPEN, ids=lambda template: template.__name__)
def test_an_open_template_has_enough_instances_and_leaves_no_slot_empty(template):
    drawn = {template(Random(seed)) for seed in range(60)}
    assert len(drawn) > 10
    assert not [
        question for question in drawn if "{" in question or "  " in question or not question.endswith((".", "?"))
    ]
