"""Grading: what answer a response states, and whether it equals the reference as a mathematician would say."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from thinksteer import grading
from thinksteer.grading import Grader, equal, extract
from thinksteer.records import Graded, InputError

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("THINKEDIT_TEST_DATA", ROOT.parent / "shared" / "data"))

EQUAL = [  # prediction, reference
    # numbers
    ("1,000", "1000"), ("1{,}000", "1000"), (r"1,\!000,\!000", "1000000"), ("1 000", "1000"), (r"1\,000", "1000"),
    ("1000.00", "1000"), ("0.5", r"\frac12"), (".5", r"\frac{1}{2}"), ("0.50", "1/2"), (r"\dfrac73", r"\frac{14}{6}"),
    (r"-\frac{1}{2}", r"\frac{-1}{2}"), (r"3\frac{1}{2}", "3.5"), ("3 1/2", r"\frac72"), (r"-1\frac13", r"-\frac43"),
    (r"0.1\overline{6}", r"\frac16"),
    ("1.5e3", "1500"), (r"1.5\times 10^3", "1500"), (r"2.5 \times 10^{-2}", "0.025"), ("1.5 × 10^3", "1500"),
    ("−5", "-5"), ("+5", "5"), ("5.", "5"), ("$5$", "5"), ("{5}", "5"), ("007", "7"),
    # percent
    ("50%", "0.5"), (r"50\%", r"\frac{1}{2}"), ("0.5", r"50\%"), ("50%", "50"), ("12.5 percent", r"12.5\%"),
    # units and currency
    ("$5", "5"), (r"\$18.90", "18.9"), ("18", r"\$18"), ("18 dollars", "18"), ("5 apples", "5"), ("€5", "5"),
    (r"5\text{ cm}", "5"), ("5 cm", r"5\text{ cm}"), (r"5\mbox{ cm}^2", "5"), ("5", r"5\text{ meters}"),
    ("5 meters", r"5\text{ m}"), ("2 million", "2000000"), ("$2 million", "2,000,000"), ("3 dozen", "36"),
    (r"90^\circ", "90"), ("90°", r"90^{\circ}"), ("90 degrees", "90"), (r"2\sqrt{3}\text{ cm}", r"2\sqrt3"),
    # text
    ("Evelyn", r"\text{Evelyn}"), (r"\textbf{Evelyn}", r"\text{Evelyn}"), ("Yes", "yes"), (r"\text{even}", "even"),
    (r"\text{(C)}", "C"), (r"\text{The answer is } 5", "5"), ("the answer is 5", "5"), (r"\boxed{5}", "5"),
    # radicals, pi, algebra
    (r"\sqrt{8}", r"2\sqrt2"), ("sqrt(8)", r"2\sqrt2"), ("2√2", r"\sqrt8"), (r"\frac{\sqrt3}{3}", r"\frac{1}{\sqrt3}"),
    ("2^5", "32"), ("pi/2", r"\frac{\pi}{2}"), ("π", r"\pi"), ("x^2+2x+1", "(x+1)^2"), ("p - q", "p-q"),
    ("6 - 5i", "-5i + 6"), (r"\pm 2", "2, -2"), (r"5!", "120"), (r"\binom{5}{2}", "10"),
    # equations
    ("x=5", "5"), ("5", "x = 5"), (r"x = \frac{1}{2}", "0.5"), ("y=2x+1", "2x+1"), ("y = 2x+1", "y = 1+2x"),
    # intervals, tuples, sets, lists, matrices
    ("[1,2)", "[1, 2)"), (r"(-\infty, 3)", "x<3"), (r"[1,2]\cup[3,4]", r"[3,4] \cup [1,2]"), (r"x \in [1,2]", "[1,2]"),
    (r"1 \le x \le 2", "[1,2]"), ("x >= 2", r"[2,\infty)"), (r"\langle 1, 2 \rangle", "(1,2)"),
    (r"\left(3, \frac{\pi}{2}\right)", r"(3, \pi/2)"), ("(0.5, 1)", r"\left(\frac12,1\right)"), ("1,2", "(1,2)"),
    ("2, 3, 5", "5, 3, 2"), (r"\{1,2\}", r"\{2,1\}"), ("1, 2", r"\{2, 1\}"), (r"\emptyset", r"\{\}"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    (r"\begin{pmatrix} 0.5 & 1 \\ 0 & 2 \end{pmatrix}", r"\begin{bmatrix}\frac12&1\\0&2\end{bmatrix}"),
    # ratios, times, numerals
    ("3 : 1", "3:1"), ("3:2", r"\frac{3}{2}"), ("10:30 pm", r"10:30 \text{ p.m.}"), ("101_2", "101_{2}"),
    ("101", "101_2"), (r"2AB_{16}", "2ab_{16}"),
]  # fmt: skip

DIFFERENT = [
    ("10001", "10000"), ("5", "500"), ("500", "5"), ("-2", "2"), ("0.333333", r"\frac13"), ("0.33", "1/3"),
    ("3.14", r"\pi"), (r"6.2831853", r"2\pi"), ("1,23", "123"), ("2,3", "23"), ("1.5e3", "1.5"), ("0", "-"), ("", "0"),
    ("5", "5%"), ("5", r"5\%"), ("0.05", "5"), ("5%", "500"), ("50%", r"5\%"), ("50%", "$50"),
    ("5 cm", r"5\text{ m}"), ("$5", r"5\text{ cents}"), ("2 million", "2"), ("5 x", "5"), ("5 theta", "5"), ("5x", "5"),
    (r"\text{Evelyn}", r"\text{Briana}"), ("Evelyn", r"\text{Briana}"), (r"\text{odd}", r"\text{even}"), ("on", "no"),
    ("yes", "no"), ("E", "e"), ("a", "b"), ("E", "D"), ("five", "6"),
    (r"\sqrt8", r"\sqrt2"), (r"2\sqrt{3}", r"3\sqrt{2}"), ("x+1", "x-1"), ("x=5", "6"), ("x=5", "y=5"), ("2^5", "31"),
    ("(1,23)", "(12,3)"), ("(1,2)", "(2,1)"), ("[1,2)", "[1,2]"), ("(1,2)", "[1,2]"), (r"\{1,2\}", "(1,2)"),
    ("1,2,3", "1,2"), ("1,2", "1,3"), ("(1,2)", "(1,2,3)"), ("2", r"\pm 2"), ("(1,234)", "1234"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}2\\1\end{pmatrix}"),
    (r"\begin{pmatrix}1&2\end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    ("3:1", "3"), ("3", "3:1"), ("3:1", "1:3"), ("10:30", "5:15"), ("101_2", "101_3"), ("101_2", "5"), ("x_1", "x_2"),
]  # fmt: skip

HOSTILE = {
    "a tower of powers": "9^{9^{9^9}}",
    "a megabyte of braces": "{" * 500_000 + "}" * 500_000,
    "braces below the length limit": "{" * 900 + "5" + "}" * 900,
    "deep fractions": r"\frac{1}{" * 180 + "1" + "}" * 180,
    "a huge factorial": "(10^9)!",
    "an integral": r"\int_0^1 \frac{\sin(x^{x^x})}{e^{x^7}+\cos x}\,dx",
    "unbalanced": r"\frac{1}{\sqrt{" * 50,
}


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(limit_s=20) as grader:
        yield grader


def boxed(answer: str) -> str:
    return f"<think>\n7?\n</think>\n\nSo it is \\boxed{{{answer}}}."


@pytest.mark.parametrize(("prediction", "reference"), EQUAL)
def test_equal_answers_are_equal(grader: Grader, prediction: str, reference: str) -> None:
    assert grader.grade(boxed(prediction), reference, "math").correct


@pytest.mark.parametrize(("prediction", "reference"), DIFFERENT)
def test_different_answers_are_different(grader: Grader, prediction: str, reference: str) -> None:
    assert not grader.grade(boxed(prediction), reference, "math").correct


NAMES_THE_THIRD = [
    "3",
    "3.",
    "{3}",
    "C",
    "c",
    "(C)",
    r"\text{C}",
    r"\textbf{(C)}",
    "C. 12",
    "3. p = 12",
    "3) 12",
    "Option 3",
]


@pytest.mark.parametrize("answer", NAMES_THE_THIRD)
def test_an_option_is_named_by_number_or_letter(answer: str) -> None:
    assert equal(answer, "3", "choice")
    assert not equal(answer, "2", "choice")


@pytest.mark.parametrize("answer", ["3.5", "12", "p = 12", "", "33", "CD", "3 or 4"])
def test_what_names_no_option_is_not_the_third(answer: str) -> None:
    assert not equal(answer, "3", "choice")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"<think>\boxed{1}</think>\boxed{2} or \boxed{3}", "3"),
        (r"<think>\boxed{1}</think> so 5 it is", "1"),
        (r"<think>\boxed{1} and on", "1"),
        (r"\boxed{\frac{1}{\sqrt{2}}}.", r"\frac{1}{\sqrt{2}}"),
        (r"\boxed{\{1,2\}} done", r"\{1,2\}"),
        (r"\boxed{[1, 2\}} done", r"[1, 2\}"),
        (r"\boxed{x = \boxed{5}}", "5"),
        (r"\boxed{5} and \boxed{6", "5"),
        (r"\boxed{5} and \boxed{}", "5"),
        (r"the area is $\boxed 5$.", "5"),
        (r"\fbox{7}", "7"),
        ("<think>6 or 7</think>It costs $1,234.50.", "1,234.50"),
        ("<think>7 it is", "7"),
        ("from 5-3 follows x = -2.", "-2"),
        ("10-3", "3"),
        ("3/4 of it", "3/4"),
        ("nothing", None),
        ("", None),
    ],
)
def test_the_answer_is_the_last_box_after_the_thinking_or_the_last_number(text: str, answer: str | None) -> None:
    assert extract(text) == answer


def test_an_option_named_in_words_is_read_without_a_box() -> None:
    assert extract("</think>The correct answer is (B), as 7 + 1 = 8.", "choice") == "B"
    assert extract("</think>**Answer:** 3", "choice") == "3"
    assert extract("</think>It is 2", "choice") == "2"


def test_reading_a_megabyte_of_opened_boxes_is_linear() -> None:
    start = time.perf_counter()
    assert extract(r"\boxed{" * 150_000 + "1}") == "1"
    assert time.perf_counter() - start < 2


def test_plain_numbers_are_graded_in_microseconds_without_a_process() -> None:
    text = boxed("1,234")
    with Grader() as grader:
        start = time.perf_counter()
        for _ in range(1000):
            assert grader.grade(text, "1234", "math") == Graded("1,234", True)
            assert not grader.grade(text, "1235", "math").correct
        assert (time.perf_counter() - start) / 2000 < 500e-6
        assert not grader._workers


def test_hostile_answers_are_wrong_in_time_and_the_pool_goes_on() -> None:
    limit_s = 1.0
    items = [(boxed(answer), "7", "math") for answer in HOSTILE.values()]
    with Grader(workers=2, limit_s=limit_s) as grader:
        assert grader.grade(boxed(r"\sqrt{8}"), r"2\sqrt2", "math").correct
        start = time.perf_counter()
        assert [graded.correct for graded in grader.grade_all(items)] == [False] * len(items)
        # Every answer at its limit, one after the other, and a new process (importing sympy) for each.
        assert time.perf_counter() - start < len(items) * (limit_s + 3)
        assert grader.grade(boxed(r"\sqrt{18}"), r"3\sqrt2", "math").correct
        assert not grader.grade(boxed(r"\sqrt{18}"), r"2\sqrt2", "math").correct


def test_many_workers_give_each_answer_its_own_verdict() -> None:
    items = [(boxed(rf"\sqrt{{{n * n * (2 + n % 2)}}}"), rf"{n}\sqrt2", "math") for n in range(2, 14)]
    with Grader(workers=2) as grader:
        assert [graded.correct for graded in grader.grade_all(items)] == [n % 2 == 0 for n in range(2, 14)]
        assert len(grader._workers) == 2


def test_a_process_killed_from_outside_is_no_verdict() -> None:
    with Grader(limit_s=60) as grader:
        grader.grade(boxed(r"\sqrt{8}"), r"2\sqrt2", "math")
        worker = grader._workers[0]
        os.kill(worker.process.pid, signal.SIGTERM)  # ignored: whoever stops a run signals its workers too
        assert grader.grade(boxed(r"\sqrt{18}"), r"3\sqrt2", "math").correct
        worker.give(("9^{9^{9^9}}", "7"))
        worker.process.kill()
        with pytest.raises(RuntimeError, match="killed from outside"):
            worker.verdict()


def test_a_grader_refuses_no_workers_and_no_time() -> None:
    with pytest.raises(InputError, match="at least one worker"):
        Grader(workers=0)
    with pytest.raises(InputError, match="positive limit"):
        Grader(limit_s=0)


def test_workers_start_without_torch() -> None:
    code = "import sys; import thinksteer.verifier; print('torch' in sys.modules, 'sympy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_gsm8k_references_equal_their_plain_number_only() -> None:
    file = DATA / "gsm8k_test.jsonl"
    if not file.exists():
        pytest.skip(f"{file} is missing: set THINKEDIT_TEST_DATA to the folder that has it")
    golds = [json.loads(line)["answer"].split("####")[1].strip() for line in file.read_text("utf-8").splitlines()]
    assert len(golds) == 1319
    for gold in golds:
        number = int(re.sub(",", "", gold))
        assert grading.decide(str(number), gold, "math") is True
        assert grading.decide(f"\\${number:,}.00", gold, "math") is True
        assert grading.decide(str(number + 1), gold, "math") is False
        assert grading.decide(gold.split(",")[0], gold, "math") is ("," not in gold)


def test_equal_has_no_limit_but_agrees_with_the_grader() -> None:
    assert equal(r"\frac{\sqrt{12}}{2}", r"\sqrt{3}", "math")
    assert equal("50%", "0.5", "math")
