"""LiveCodeBench: its prompt, its packed tests, what is refused, and problems graded from file to verdict."""

import base64
import json
import pickle
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest

from thinksteer import hub, livecodebench
from thinksteer.data import Columns, load
from thinksteer.grading import Grader, shown
from thinksteer.livecodebench import Case, Suite, unpack
from thinksteer.records import Graded, InputError, Problem, Record, Response

linux = pytest.mark.skipif(sys.platform != "linux", reason="programs are only run on Linux")


def cases(*pairs: tuple[str, str], kind: str = "stdin") -> str:
    return json.dumps([{"input": given, "output": expected, "testtype": kind} for given, expected in pairs])


def packed(value: object, protocol: int = 4) -> str:
    """As the data set's authors packed private tests."""
    return base64.b64encode(zlib.compress(pickle.dumps(value, protocol))).decode()


STDIN = {
    "question_title": "A. Sum",
    "question_content": "Add the numbers.",
    "platform": "codeforces",
    "question_id": "1873_A",
    "contest_id": "1873",
    "contest_date": "2023-08-21T00:00:00",
    "starter_code": "",
    "difficulty": "easy",
    "public_test_cases": cases(("1 2\n", "3\n")),
    "private_test_cases": packed(cases(("4 5\n", "9\n"), ("0 0\n", "0\n"))),
    "metadata": "{}",
}
CALL = STDIN | {
    "question_id": "2824",
    "starter_code": "class Solution:\n    def count(self, nums: List[int], target: int) -> int:\n        ",
    "difficulty": "medium",
    "public_test_cases": cases(("[1, 2]\n2", "1"), kind="functional"),
    "private_test_cases": cases(("[]\n0", "0"), kind="functional"),
    "metadata": json.dumps({"func_name": "count"}),
}


def file(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "test.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def problems(folder: Path, *rows: dict[str, Any]) -> list[Problem]:
    return load("livecodebench", "test", data_file=file(folder, *rows))


def test_rows_become_problems_with_the_published_prompt(tmp_path: Path) -> None:
    stdin, call = problems(tmp_path, STDIN, CALL)
    assert (stdin.id, stdin.kind, stdin.level) == ("livecodebench-test-0", "code", "easy")
    assert stdin.question == (
        "You will be given a question (problem specification) and will generate a correct Python program that matches "
        "the specification and passes all tests.\n\nQuestion: Add the numbers.\n\nRead the inputs from stdin solve the "
        "problem and write the answer to stdout (do not directly test on the sample inputs). Enclose your code within "
        "delimiters as follows. Ensure that when the python program runs, it reads the inputs, runs the algorithm and "
        "writes output to STDOUT.\n```python\n# YOUR CODE HERE\n```\n\n"
    )
    assert call.level == "medium"
    assert call.question.endswith(
        "\n\nYou will use the following starter code to write the solution to the problem and enclose your code within "
        f"delimiters.\n```python\n{CALL['starter_code']}\n```\n\n"
    )


def test_public_and_private_tests_are_read_packed_or_not(tmp_path: Path) -> None:
    stdin, call = problems(tmp_path, STDIN, CALL)
    assert unpack(stdin.answer) == Suite(None, (Case("1 2\n", "3\n"), Case("4 5\n", "9\n"), Case("0 0\n", "0\n")))
    assert unpack(call.answer) == Suite("count", (Case("[1, 2]\n2", "1"), Case("[]\n0", "0")))


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_every_way_of_pickling_a_text_is_read(tmp_path: Path, protocol: int) -> None:
    long = cases(("ä" * 100_000, "1"))
    [problem] = problems(tmp_path, STDIN | {"private_test_cases": packed(long, protocol)})
    assert unpack(problem.answer).cases[1] == Case("ä" * 100_000, "1")


def test_ids_can_be_the_data_set_s_own(tmp_path: Path) -> None:
    [problem] = load("livecodebench", "test", data_file=file(tmp_path, STDIN), columns=Columns(id="question_id"))
    assert problem.id == "1873_A"


class Hostile:
    """Unpickled, it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def broken(**values: object) -> dict[str, object]:
    return STDIN | values


BROKEN = {
    "no tests": (broken(public_test_cases="[]", private_test_cases="[]"), "no tests"),
    "no column": ({k: v for k, v in STDIN.items() if k != "metadata"}, "no column metadata"),
    "a number": (broken(private_test_cases=5), "private_test_cases is no text"),
    "broken JSON": (broken(public_test_cases='[{"input'), "public: broken JSON"),
    "no list": (broken(public_test_cases="[]", private_test_cases=packed("7")), "a test has no input"),
    "no output": (broken(public_test_cases='[{"input": "1", "testtype": "stdin"}]'), "no input or no output"),
    "no base64": (broken(private_test_cases="???"), "private tests cannot be read"),
    "no zlib": (broken(private_test_cases="AAAA"), "private tests cannot be read"),
    "cut": (broken(private_test_cases=STDIN["private_test_cases"][:40]), "private tests are cut"),
    "a pickled list": (broken(private_test_cases=packed(["x"])), "something else than one text"),
    "a pickled dictionary": (broken(private_test_cases=packed({"a": "b"})), "something else than one text"),
    "a pickled number": (broken(private_test_cases=packed(5)), "something else than one text"),
    "a call with no name": (broken(public_test_cases=cases(("1", "1"), kind="functional")), "is functional, but"),
    "a name with no call": (broken(metadata='{"func_name": "f"}'), "is stdin, but"),
    "arguments that are no JSON": (CALL | {"public_test_cases": cases(("x", "1"), kind="functional")}, "broken JSON"),
    "metadata that is no object": (broken(metadata="[]"), "not a problem in LiveCodeBench's format"),
    "no question": (broken(question_content=""), "question_content is empty"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_row_is_named(tmp_path: Path, name: str) -> None:
    row, message = BROKEN[name]
    with pytest.raises(InputError, match=rf"test\.jsonl line 2: .*{message}"):
        problems(tmp_path, CALL, row)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_hostile_pickle_is_refused_and_never_run(tmp_path: Path, protocol: int) -> None:
    trace = tmp_path / "trace"
    pickle.loads(pickle.dumps(Hostile(trace), protocol))
    assert trace.exists()  # it is hostile
    trace.unlink()
    with pytest.raises(InputError, match="something else than one text"):
        problems(tmp_path, broken(private_test_cases=packed(Hostile(trace), protocol)))
    assert not trace.exists()


def test_tests_that_unpack_to_too_much_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(livecodebench, "MAX_BYTES", 1 << 20)
    with pytest.raises(InputError, match="or more than 1 MiB"):
        problems(tmp_path, broken(private_test_cases=packed(" " * (1 << 21))))


def test_the_hub_s_file_is_read_and_its_script_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, asked = file(tmp_path, STDIN, CALL), []
    monkeypatch.setattr(hub, "hf_hub_download", lambda *args, **more: asked.append((args, more)) or str(path))
    assert len(load("livecodebench", "test", 1)) == 1
    assert asked == [(("livecodebench/code_generation_lite", "test.jsonl"), {"repo_type": "dataset"})]


def test_a_hub_out_of_reach_says_which_flag_takes_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "reachable", lambda: False)
    with pytest.raises(InputError, match=r"cannot load test\.jsonl of livecodebench/.*--data_file"):
        load("livecodebench", "test")


RIGHT = "<think>\n```python\nprint(0)\n```\n</think>So\n```python\nprint(sum(map(int, input().split())))\n```"
SOLUTION = "</think>```python\nclass Solution:\n  def count(self, nums: List[int], target: int):\n    return {}\n```"


@linux
def test_responses_are_graded_by_running_their_programs(tmp_path: Path) -> None:
    stdin, call = problems(tmp_path, STDIN, CALL)
    with Grader() as grader:
        assert grader.grade(RIGHT, stdin.answer, "code") == Graded("print(sum(map(int, input().split())))", True)
        wrong = RIGHT.replace("sum(", "max(")
        thought = "```python\nprint(sum(map(int, input().split())))\n```</think>I give up."
        items = [
            (wrong, stdin.answer, "code"),
            ("</think>7", stdin.answer, "code"),
            (SOLUTION.format("nums.count(target)"), call.answer, "code"),
            (SOLUTION.format("len(nums)"), call.answer, "code"),
            (r"\boxed{\sqrt{8}}", r"2\sqrt2", "math"),
            (thought, stdin.answer, "code"),
        ]
        graded = grader.grade_all(items)
    assert [one.correct for one in graded] == [False, False, True, False, True, True]
    assert graded[1].prediction is None


@linux
def test_a_record_states_its_tests_in_a_line(tmp_path: Path) -> None:
    [problem] = problems(tmp_path, broken(public_test_cases=cases(("1 1\n" + " " * 100_000, "2"))))
    response = Response(problem.id, 0, "?", (1,), RIGHT, (1,), 1, "closed", "stop", None, 0)
    with Grader() as grader:
        graded = grader.grade(RIGHT, problem.answer, "code")
    record = Record.from_response(response, problem, shown(problem.answer, "code"), graded)
    assert record.correct and record.kind == "code" and record.level == "easy"
    assert record.reference.startswith("3 tests, sha256 ") and len(record.reference) == 80
    [other] = problems(tmp_path, STDIN)
    assert livecodebench.summary(other.answer) != record.reference


@linux
def test_a_grader_says_before_the_first_response_that_it_cannot_grade_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thinksteer.sandbox.MACHINES", {})
    with Grader() as grader:
        grader.prepare(["math", "choice"])
        with pytest.raises(InputError, match="cannot be confined here"):
            grader.prepare(["math", "code"])
