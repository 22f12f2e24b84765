"""The script that scores questions: by rule, by a judge, resumed, and against scores that are there."""

import json
from pathlib import Path

import pytest
from test_annotate import command
from test_data import WRITERS, jsonl
from test_judge import bad, environment, good, serving  # noqa: F401 (a fixture)
from test_mmlu_pro import row, worked

from thinksteer import hub, store
from thinksteer.data import load
from thinksteer.question_scores import rule_score
from thinksteer.rows import Row

SUM = row("Calculate 12 times 34 and find the rest modulo 7.", options=["1", "2", "3"])
NAME = row("Who is the author of this?", "history", src="x")


def read(root: Path, name: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in store.questions_path(root, name).read_text("utf-8").splitlines()]


@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet"])
def test_the_rule_adds_a_score_to_rows_that_are_otherwise_as_they_were(tmp_path: Path, suffix: str) -> None:
    rows = [SUM | {"src": "é"}, NAME]
    file = WRITERS[suffix](tmp_path / f"a.{suffix}", rows)
    out = command("score_questions", "--artifacts", tmp_path, "--data_file", file)
    expected = [
        one | {"memory_reason_score": rule_score(*(one[f] for f in ("question", "options", "category")))}
        for one in rows
    ]
    assert read(tmp_path, "mmlu_pro.rule") == expected
    path = store.questions_path(tmp_path, "mmlu_pro.rule")
    assert out == f"{path}: 2 questions, 1 of reasoning, 1 of memory\n"
    few_shot = jsonl(tmp_path / "b.jsonl", [*worked(), *worked("history")])
    asked = load("mmlu_pro", "test", data_file=path, few_shot_file=few_shot)
    assert [problem.level for problem in asked] == ["reasoning", "memory"]
    before = path.stat().st_mtime_ns
    assert command("score_questions", "--artifacts", tmp_path, "--data_file", file) == out
    assert path.stat().st_mtime_ns == before
    error = command("score_questions", "--artifacts", tmp_path, "--data_file", file, "--n_questions", 1, code=2)
    assert "made otherwise" in error and "n_questions" in error


def test_scores_that_are_there_are_kept_and_compared(tmp_path: Path) -> None:
    rows = [SUM | {"memory_reason_score": 0.2}, NAME | {"memory_reason_score": 0.1}, SUM | {"question": "2 + 2 = 4?"}]
    out = command("score_questions", "--artifacts", tmp_path, "--data_file", jsonl(tmp_path / "a.jsonl", rows))
    scores = [one["memory_reason_score"] for one in read(tmp_path, "mmlu_pro.rule")]
    assert scores[:2] == [0.2, 0.1] and scores[2] > 0.5
    assert "3 questions, 1 of reasoning, 2 of memory" in out
    assert "rule against the scores that were there: 2 questions, 0.500 [0.095, 0.905] of the same kind" in out


def test_the_hubs_rows_are_those_of_the_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def table(name: str, configs: tuple[str, ...], split: str) -> list[Row]:
        assert (name, configs, split) == ("TIGER-Lab/MMLU-Pro", ("default",), "validation")
        return [Row(0, "x", SUM), Row(1, "y", NAME)]

    monkeypatch.setattr(hub, "read", table)
    command("score_questions", "--artifacts", tmp_path, "--split", "validation", "--n_questions", 1, "--name", "mine")
    assert [one["question"] for one in read(tmp_path, "mine")] == [SUM["question"]]


def judged(root: Path, server: object, file: Path, *flags: object, code: int = 0) -> str:
    flags = ("--scorer", "judge", "--endpoint", server.url, "--endpoint_model", "org/m", "--retries", 0, *flags)
    return command("score_questions", "--artifacts", root, "--data_file", file, *flags, code=code)


def test_a_judges_unreadable_answers_are_counted_and_left_out(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "a.jsonl", [SUM, NAME, row("What?")])

    def reply(asked: str, number: int) -> object:
        return good(asked, text="0.9" if "Calculate" in asked else "0.25" if "Who" in asked else "hard to say")

    with serving(reply) as server:
        out = judged(tmp_path, server, file)
        assert judged(tmp_path, server, file) == out and len(server.asked) == 3
    assert [one["memory_reason_score"] for one in read(tmp_path, "mmlu_pro.org/m")] == [0.9, 0.25]
    assert "2 questions, 1 of reasoning, 1 of memory; 1 left out, as their answers are no number" in out
    settings = store.run_settings(store.questions_path(tmp_path, "mmlu_pro.org/m"))
    assert settings["endpoint_model"] == "org/m" and "memory alone" in settings["prompt"]


def test_a_judge_that_stopped_is_asked_only_for_the_rest(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "a.jsonl", [SUM, NAME, row("What?")])
    with serving(lambda asked, number: good(asked, text="0.5") if number < 2 else bad(400)) as server:
        judged(tmp_path, server, file, "--concurrency", 1, code=2)
        assert not store.questions_path(tmp_path, "mmlu_pro.org/m").exists()
        server.reply = lambda asked, number: good(asked, text="0.5")
        judged(tmp_path, server, file)
        assert len(server.asked) == 4  # one was refused
    assert len(read(tmp_path, "mmlu_pro.org/m")) == 3


def test_a_judge_without_any_number_writes_nothing(tmp_path: Path) -> None:
    with serving(lambda asked, number: good(asked, text="no idea")) as server:
        error = judged(tmp_path, server, jsonl(tmp_path / "a.jsonl", [SUM]), code=2)
    assert "no answer is a number" in error and not store.questions_path(tmp_path, "mmlu_pro.org/m").exists()


def test_a_wrong_row_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "a.jsonl", [SUM, NAME | {"answer": "J"}])
    with serving() as server:
        assert "line 2: answer 'J'" in judged(tmp_path, server, file, code=2)
        assert server.asked == []


def test_what_is_missing_is_named_with_a_flag_that_the_script_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for missing in ("question", "options", "answer", "category"):
        row = {name: value for name, value in SUM.items() if name != missing}
        error = command("score_questions", "--data_file", jsonl(tmp_path / "a.jsonl", [row]), code=2)
        assert f"line 1: none of the columns {missing}" in error and error.endswith(": add it")

    def out_of_reach(*_: object) -> None:
        raise hub.OutOfReach("cannot load it")

    monkeypatch.setattr(hub, "read", out_of_reach)
    assert "give a copy of it: --data_file FILE" in command("score_questions", "--artifacts", tmp_path, code=2)
