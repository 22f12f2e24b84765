"""MMLU-Pro: the few-shot prompt letter by letter, what a row must hold, and what kind of question it is."""

import json
import sys
from pathlib import Path

import pytest
from test_data import WRITERS, jsonl, shared

import generate_responses
from thinksteer import hub, store
from thinksteer.columns import Columns
from thinksteer.data import load
from thinksteer.mmlu_pro import SHOTS, STEPS
from thinksteer.records import InputError, Problem
from thinksteer.rows import Row


def row(question: str = "1 + 1?", category: str = "math", **more: object) -> dict[str, object]:
    made = {"question_id": 70, "question": question, "options": ["one", "two", "three"], "answer": "B"}
    return made | {"answer_index": 1, "cot_content": "", "category": category} | more


def worked(category: str = "math", count: int = SHOTS) -> list[dict[str, object]]:
    return [
        row(f"{n} of {category}?", category, cot_content=f"{STEPS}It is {n}. The answer is (B).") for n in range(count)
    ]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Where a test puts its questions, and worked examples in two categories, the five of each mixed up."""
    both = [one for pair in zip(worked(), worked("law"), strict=True) for one in pair]
    return tmp_path / "asked.jsonl", jsonl(tmp_path / "worked.jsonl", both)


def ask(files: tuple[Path, Path], *rows: dict[str, object], **more: object) -> list[Problem]:
    return load("mmlu_pro", "test", data_file=jsonl(files[0], list(rows)), few_shot_file=files[1], **more)


def test_a_prompt_is_five_worked_examples_of_the_category_and_the_question(files: tuple[Path, Path]) -> None:
    (problem,) = ask(files, row(" Who?\n", "law", options=["I", "you"], answer="A", answer_index=0))
    options = "Options are:\n(A): one\n(B): two\n(C): three\n\n"
    examples = [
        f"Q: {n} of law?\n{options}A: Let's think step by step. It is {n}. The answer is (B).\n\n" for n in range(5)
    ]
    last = "Q:  Who?\n\nOptions are:\n(A): I\n(B): you\n\nA: Let's think step by step. "
    assert problem == Problem("mmlu_pro-test-0", "".join(examples) + last, "A", "letter")


@pytest.mark.parametrize(
    "score, level", [(0.51, "reasoning"), (1, "reasoning"), (0.5, "memory"), (0, "memory"), (None, None)]
)
def test_above_a_half_is_reasoning(files: tuple[Path, Path], score: float | None, level: str | None) -> None:
    scored = row(memory_reason_score=score)
    assert ask(files, scored)[0].level == level
    assert load("mmlu_pro_questions", "test", data_file=files[0])[0].level == level


def test_the_question_alone_is_open_and_as_published(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "a.jsonl", [row(" Why \n", memory_reason_score=0.7)])
    questions = load("mmlu_pro_questions", "validation", data_file=file, columns=Columns(id="question_id"))
    assert questions == [Problem("70", " Why \n", "", "open", "reasoning")]


@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet"])
def test_every_format_gives_the_same_prompt(tmp_path: Path, files: tuple[Path, Path], suffix: str) -> None:
    file = WRITERS[suffix](tmp_path / f"a.{suffix}", [row(memory_reason_score=0.25)])
    few_shot = WRITERS[suffix](tmp_path / f"b.{suffix}", worked())
    assert load("mmlu_pro", "test", data_file=file, few_shot_file=few_shot) == ask(files, row(memory_reason_score=0.25))


WRONG = {
    "no list": ({"options": "one"}, "options must be a list of texts"),
    "a number": ({"options": ["one", 2]}, "options must be a list of texts"),
    "no option": ({"options": []}, "0 options, there must be 1 to 10"),
    "eleven": ({"options": list("abcdefghijk")}, "11 options"),
    "half a character": ({"options": ["\ud800", "b"]}, "options holds half a character"),
    "no letter": ({"answer": "two"}, "answer 'two' is no letter of its 3 options"),
    "two letters": ({"answer": "AB"}, "answer 'AB' is no letter"),
    "beyond": ({"answer": "D"}, "answer 'D' is no letter of its 3 options"),
    "another index": ({"answer_index": 2}, "answer_index 2 does not say option B"),
    "no index": ({"answer_index": "1"}, "answer_index '1' does not"),
    "yes": ({"answer": "B", "answer_index": True}, "answer_index True does not"),
    "above one": ({"memory_reason_score": 1.01}, "memory_reason_score must be a number from 0 to 1, not '1.01'"),
    "below zero": ({"memory_reason_score": -0.1}, "memory_reason_score must be"),
    "no number": ({"memory_reason_score": "0.5"}, "memory_reason_score must be"),
    "nan": ({"memory_reason_score": float("nan")}, "memory_reason_score must be"),
    "an empty question": ({"question": "  "}, "question is empty"),
    "an unknown category": ({"category": "magic"}, "category 'magic' has 0 worked examples, 5 are needed"),
    "no category": ({"category": None}, "category must be text"),
    "an example": ({"question": "3 of math?"}, r"is a worked example itself .*worked\.jsonl line 7"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_row_is_refused_with_file_and_line(files: tuple[Path, Path], case: str) -> None:
    changes, message = WRONG[case]
    with pytest.raises(InputError, match=rf"asked\.jsonl line 2: .*{message}"):
        ask(files, row(), row("2 + 2?") | changes)


def test_worked_examples_are_five_and_work(files: tuple[Path, Path], tmp_path: Path) -> None:
    four = (files[0], jsonl(tmp_path / "four.jsonl", worked(count=4)))
    with pytest.raises(InputError, match="category 'math' has 4 worked examples"):
        ask(four, row())
    six = (files[0], jsonl(tmp_path / "six.jsonl", worked(count=6)))
    assert ask(six, row()) == ask(files, row())
    silent = (files[0], jsonl(tmp_path / "silent.jsonl", [*worked(count=4), row("Last?")]))
    with pytest.raises(InputError, match=r"silent\.jsonl line 5: cot_content is empty"):
        ask(silent, row())
    other = (files[0], jsonl(tmp_path / "other.jsonl", [*worked(count=4), row("Last?", cot_content="So (B).")]))
    with pytest.raises(InputError, match=r"other\.jsonl line 5: cot_content must begin with \"A: Let's"):
        ask(other, row())
    nameless = [{name: value for name, value in one.items() if name != "question"} for one in worked()]
    without = (files[0], jsonl(tmp_path / "without.jsonl", nameless))
    with pytest.raises(InputError, match=r"without\.jsonl line 1: none of the columns question; .*: add it"):
        ask(without, row())  # a flag names the columns of --data_file alone
    with pytest.raises(InputError, match=r"none of the columns question; .* Name one with --question_column"):
        ask(files, nameless[0])
    with pytest.raises(InputError, match=r"--few_shot_file .*: the questions of arithmetic take no worked examples"):
        load("arithmetic", "test", few_shot_file=files[1])


def test_the_hubs_examples_are_its_validation_split(monkeypatch: pytest.MonkeyPatch, files: tuple[Path, Path]) -> None:
    def read(name: str, configs: tuple[str, ...], split: str) -> list[Row]:
        assert (name, configs) == ("TIGER-Lab/MMLU-Pro", ("default",))
        made = worked() if split == "validation" else [row()]
        return [Row(number, f"{split} {number}", values) for number, values in enumerate(made)]

    monkeypatch.setattr(hub, "read", read)
    assert load("mmlu_pro", "test") == ask(files, row())


def test_every_category_of_the_published_rows_is_asked_with_its_five_published_examples() -> None:
    asked, few_shot = shared("mmlu_pro_sample3000_seed8888_noscore.jsonl"), shared("mmlu_pro_validation70.jsonl")
    problems = load("mmlu_pro", "test", data_file=asked, few_shot_file=few_shot, columns=Columns(id="question_id"))
    published = [json.loads(line) for line in asked.open(encoding="utf-8")]
    examples = [json.loads(line) for line in few_shot.open(encoding="utf-8")]
    assert len(problems) == 3000 and len({one["category"] for one in published}) == 14
    for problem, one in zip(problems, published, strict=True):
        own = [example for example in examples if example["category"] == one["category"]]
        parts = problem.question.split(STEPS)
        assert (problem.id, problem.answer, problem.level) == (str(one["question_id"]), one["answer"], None)
        assert len(own) == 5 and len(parts) == 7 and parts[6] == ""
        assert parts[0].startswith(f"Q: {own[0]['question']}\nOptions are:\n(A): {own[0]['options'][0]}\n(B): ")
        for example, later, following in zip(own, parts[1:6], [*own[1:], one], strict=True):
            thought = example["cot_content"].removeprefix(STEPS)
            assert later.startswith(f"{thought}\n\nQ: {following['question']}\nOptions are:\n(A): ")
        assert (
            parts[5].endswith(f"({one['answer']}): {one['options'][one['answer_index']]}\n\n") or one["answer"] != "J"
        )


def test_the_examples_are_among_what_a_run_depends_on(
    tmp_path: Path, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    jsonl(files[0], [row()])
    flags = ("--dataset", "mmlu_pro", "--data_file", files[0], "--few_shot_file", files[1], "--max_length", 4)
    flags += ("--artifacts", tmp_path, "--n_questions", 1, "--engine", "hf", "--device", "cpu")
    monkeypatch.setattr(sys, "argv", ["generate_responses", *map(str, flags)])
    generate_responses.main()
    output = store.responses_path(tmp_path, "tiny-reasoner", "mmlu_pro")
    (record,) = store.read_records(output)
    assert record.kind == "letter" and record.reference == "B" and record.prompt.count("Q: ") == 6
    jsonl(files[1], worked(count=6))
    with pytest.raises(InputError, match=r"made otherwise[^$]*input .*worked\.jsonl"):
        generate_responses.main()
