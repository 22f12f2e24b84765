"""Typed access to the values of JSON files that others wrote."""

import pytest

from thinksteer.fields import LARGEST, Field, Misfit

FILE = Field({"a": [{"n": 6.0, "t": "é", "f": 1, "x": None}]})


def test_a_path_leads_to_what_is_named():
    item = FILE["a"].items()[0]
    assert (item["n"].count(), item["t"].text(), item["f"].flag(), item["n"].number()) == (6, "é", True, 6.0)
    assert item["n"].path == "a[0].n"
    with pytest.raises(Misfit, match=r"a\[0\].x is None, not text"):
        item["x"].text()
    with pytest.raises(Misfit, match=r"a\[0\] has no 'y'"):
        item["y"]
    with pytest.raises(Misfit, match=r"the file is .*, not a list"):
        FILE.items()


@pytest.mark.parametrize("value", [True, None, "1", 0.5, -1, float("nan"), float("inf"), LARGEST + 1, 10**400, [1]])
def test_what_is_no_count_is_refused(value):
    with pytest.raises(Misfit, match="not a whole number of 0 or more"):
        Field(value).count()


@pytest.mark.parametrize("value", [True, None, "1", float("nan"), float("-inf"), 10**400])
def test_what_is_no_number_is_refused(value):
    with pytest.raises(Misfit, match="not a finite number"):
        Field(value).number()


@pytest.mark.parametrize("value, text", [("", ""), (7, "7"), (0.5, "0.5"), (-(10**30), "-" + "1" + "0" * 30)])
def test_an_answer_is_text_or_a_number(value, text):
    assert Field(value).answer() == text


@pytest.mark.parametrize("value", [2, -1, 1.0, "true", None, []])
def test_only_true_false_one_and_zero_are_verdicts(value):
    with pytest.raises(Misfit, match="not true or false"):
        Field(value).flag()


def test_a_message_is_one_short_line_whatever_the_value_is():
    with pytest.raises(Misfit) as error:
        Field(["line\n" * 1000] * 1000).text()
    assert "\n" not in str(error.value) and len(str(error.value)) < 400
