"""The writer of tasks, against an endpoint on this machine."""

import json
import re
import sys
from collections import Counter
from pathlib import Path

import pytest

from scripts import write_tasks
from scripts.write_tasks import normal, parse
from tests.test_judge import good, serving
from thinksteer import reasoning_tasks, store
from thinksteer.data import Columns, load
from thinksteer.reasoning_tasks import CATEGORIES
from thinksteer.records import InputError

TASKS = ["How far is it, in steps, from here?", "Why do the lamps in the hall flicker?"]


@pytest.mark.parametrize(
    "answer",
    [
        json.dumps(TASKS),
        f"Here they are:\n```json\n{json.dumps(TASKS, indent=2)}\n```\nGood luck!",
        json.dumps([{"title": "Steps", "task": TASKS[0]}, {"id": 2, "task": TASKS[1]}]),
        f"Of course.\n\n1. {TASKS[0]}\n2. {TASKS[1]}\n",
        f"1) {TASKS[0]}\n\n  2) {TASKS[1]}",
        f"**1.** {TASKS[0]}\n**2.** {TASKS[1]}",
        f"- {TASKS[0]}\n- {TASKS[1]}",
        json.dumps([*TASKS, "Task 3", "", None]),
    ],
)
def test_tasks_are_read_out_of_what_models_write(answer: str):
    assert parse(answer) == TASKS


def test_a_task_of_several_lines_stays_whole_and_no_list_is_no_task():
    assert parse(f"1. Look at this table:\n   a b c\n   d e f\n2. {TASKS[0]}") == [
        "Look at this table:\n   a b c\n   d e f",
        TASKS[0],
    ]
    assert parse("I am sorry, but I cannot write any tasks today.") == []


def writer(prompt: str, number: int) -> tuple:
    """Ten tasks, of which five are in every list of the category, and one is built in."""
    category, which = re.search(r"list (\d+) of (.+):", prompt).group(2, 1)
    own = [f"Task {n} of list {which} in {category}: think it over!" for n in range(4)]
    same = [f"TASK {n} in {category}, as  always: think it over." for n in range(5)]
    known = next(one for one in reasoning_tasks.problems("test") if one.level == category)
    return good(prompt, text=json.dumps([*own, *same, known.question.removesuffix(reasoning_tasks.BOXED).upper()]))


def run(monkeypatch, out: Path, url: str, *flags: object) -> None:
    argv = ["write_tasks", out, "--endpoint", url, "--endpoint_model", "m", "--retries", 0, *flags]
    monkeypatch.setattr(sys, "argv", list(map(str, argv)))
    write_tasks.main()


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_new_tasks_are_asked_for_until_there_are_enough_and_divided(tmp_path: Path, monkeypatch, capsys):
    out = tmp_path / "more.jsonl"
    with serving(writer) as server:
        run(monkeypatch, out, server.url, "--n_tasks", 113, "--n_test", 20)
        # 13 or 14 of each category: two lists of it give 9 + 4, and one more where that is one too few
        assert len(server.asked) == len(set(server.asked)) == 23
        assert {body["temperature"] for body in server.bodies} == {1.0}
    rows, tests = read(out), read(tmp_path / "more.test.jsonl")
    assert Counter(row["level"] for row in rows) == {c: 12 if n < 3 else 11 for n, c in enumerate(CATEGORIES)}
    assert Counter(row["level"] for row in tests) == dict.fromkeys(CATEGORIES, 2)
    assert [row["level"] for row in tests[:10]] == list(CATEGORIES)
    questions = [normal(row["question"]) for row in [*rows, *tests]]
    assert len(set(questions)) == 133 and all(row["question"].lower().startswith("task") for row in rows)
    assert len({row["id"] for row in [*rows, *tests]}) == 133
    problems = load("more", "train", data_file=out, columns=Columns(id="id"))
    assert [(one.id, one.question, one.level, one.kind) for one in problems] == [
        (row["id"], row["question"], row["level"], "open") for row in rows
    ]
    assert "113 tasks, 20 more for tests" in capsys.readouterr().out


def test_a_run_goes_on_with_the_answers_it_has_and_a_finished_one_asks_nothing(tmp_path: Path, monkeypatch):
    out = tmp_path / "more.jsonl"

    def refusing(prompt: str, number: int) -> tuple:
        return writer(prompt, number) if number < 4 else (400, {}, {"error": {"message": "no"}})

    with serving(refusing) as server, pytest.raises(InputError, match="the same command goes on"):
        run(monkeypatch, out, server.url, "--n_tasks", 40, "--concurrency", 1)
    assert not out.exists()
    with serving(writer) as server:
        run(monkeypatch, out, server.url, "--n_tasks", 40)
        assert len(server.asked) == 6
        before = out.read_bytes()
        run(monkeypatch, out, server.url, "--n_tasks", 40)
        assert len(server.asked) == 6 and out.read_bytes() == before
        with pytest.raises(InputError, match="--overwrite"):
            run(monkeypatch, out, server.url, "--n_tasks", 50)
        run(monkeypatch, out, server.url, "--n_tasks", 50, "--overwrite")
        assert len(server.asked) == 6 and len(read(out)) == 50
    assert store.read_json(store.manifest_path(out))["settings"]["model"] == "m"


def test_a_model_that_repeats_itself_is_given_up(tmp_path: Path, monkeypatch):
    with serving(lambda prompt, number: good(prompt, text=json.dumps(TASKS))) as server:
        with pytest.raises(InputError, match=r"2 of 30 tasks are new.*--n_tasks"):
            run(monkeypatch, tmp_path / "more.jsonl", server.url, "--n_tasks", 30)
        assert len(server.asked) == 10 * write_tasks.ROUNDS


def test_the_name_says_what_is_written(tmp_path: Path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, tmp_path / "more.csv", "http://127.0.0.1:9/v1")
    assert "must end in .jsonl" in capsys.readouterr().err
