"""What comes from outside does no harm: docs/security.md has the list, and what else of it is tested where."""

import time
from collections.abc import Callable

import pytest

from thinksteer import annotation, equality, grading, letters, probes
from thinksteer.keywords import annotate_text

LENGTH = 100_000  # characters of a hostile response
IN_TIME_S = 2.0  # of the processor: the slowest takes a third of a second, what grows with the square 7 and more


def filled(unit: str) -> str:
    return unit * (LENGTH // len(unit))


UNITS = ["\n", "\n\n", " \n", " ", ".", "?!", ".'", " .", "...\n", "1", "1,", "111,", "-1", "1/", "(", "[", '["a', "{"]
UNITS += ["}", "\\", "\\boxed", "\\boxed{", "\\boxed{1}", "\\text{", "$", "answer is ", "answer is A or ", "(A), "]
UNITS += ["A.", "Q:", "\nQ", "```\n", "e.g. ", "Dr. ", "\n1. ", "a. ", "Wait.\n\n", "hmm. ", "not ", "x\ny "]
HOSTILE = [*map(filled, UNITS), "answer is A" + filled(","), "answer is " + filled("(A), ") + "(", filled("\n") + "x"]
READERS: dict[str, Callable[[str], object]] = {
    **{kind: lambda text, kind=kind: grading.extract(text, kind) for kind in grading.READERS},
    "strict letter": letters.strict_letter,
    "option": grading.option,
    "equality": lambda text: equality.decide(text[: equality.MAX_CHARS], text[1 : equality.MAX_CHARS] + "7"),
    "keywords": lambda text: annotate_text(text, "How many things does the man have? " * 30),
    "marks": annotation.parse,
    "answer's place": lambda text: list(probes._BEFORE.finditer(text)),
}


@pytest.mark.parametrize("reader", READERS)
def test_no_response_keeps_a_reader_busy(reader: str) -> None:
    for text in HOSTILE:
        begun = time.process_time()
        READERS[reader](text)
        assert time.process_time() - begun < IN_TIME_S, text[:20]


def test_a_looped_chain_is_annotated_in_time_copied_faithfully_or_not() -> None:
    text, begun = filled("Wait.\n\n"), time.process_time()
    annotated = annotation.render(text, annotate_text(text, "?"))
    pieces = [piece for _, piece in annotation.parse(annotated, text)]
    places = annotation.locate(text, pieces)
    assert [text[slice(*place)] for place in places] == ["Wait."] * (LENGTH // 7)
    cut = annotation.locate(text, [*pieces[:200], "not in it", *pieces[:200]])
    assert cut == [*places[:200], None, *places[200:400]]
    assert time.process_time() - begun < 2 * IN_TIME_S
