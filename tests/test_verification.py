from dataclasses import replace

import numpy as np
import pytest

from tests.synthetic import evaluation, record
from thinksteer.analysis import accuracy, mean_tokens, shortest
from thinksteer.published import SPREAD, Published, Stated
from thinksteer.verification import (
    Check,
    among_shortest,
    by_upstream,
    check,
    checks_table,
    stated_table,
    upstream_length,
)

RECORDS = evaluation(0, 200, 3)


def number(value: float, measure: str = "accuracy", decimals: int = 2) -> Published:
    return Published("t", "s", "m", "d", measure, value, decimals, 3, 200, None)


def upstream_short(records, percent):
    """As upstream's analysis computes it, with a stable sort."""
    shares = []
    for sample in sorted({one.sample for one in records}):
        run = [one for one in records if one.sample == sample]
        order = np.argsort([upstream_length(one) for one in run], kind="stable")
        taken = order[: int(np.floor(percent / 100 * len(run)))]
        shares.append(np.mean([run[index].correct for index in taken]))
    return 100 * np.mean(shares)


def test_accuracy_and_its_spread_are_of_the_runs():
    shares = [100 * np.mean([one.correct for one in RECORDS if one.sample == sample]) for sample in range(3)]
    assert by_upstream(number(0), RECORDS) == pytest.approx((np.mean(shares),) * 2)
    assert by_upstream(number(0, SPREAD), RECORDS) == pytest.approx((np.std(shares, ddof=1),) * 2)
    assert by_upstream(number(0, SPREAD), [one for one in RECORDS if one.sample == 0]) is None
    assert by_upstream(number(0, "tokens"), RECORDS)[0] == pytest.approx(mean_tokens(RECORDS).value)


@pytest.mark.parametrize("percent", [5, 10, 20])
def test_among_the_shortest_upstreams_sort_gives_something_within_the_range(percent):
    coarse = [replace(one, thinking_tokens=one.thinking_tokens // 30) for one in RECORDS]  # with many ties
    least, most = by_upstream(number(0, f"shortest {percent} %"), coarse)
    assert least < most and least - 1e-9 <= upstream_short(coarse, percent) <= most + 1e-9
    spread = [replace(one, thinking_tokens=1000 * one.thinking_tokens + at) for at, one in enumerate(RECORDS)]
    found = by_upstream(number(0, f"shortest {percent} %"), spread)
    assert found == pytest.approx((upstream_short(spread, percent),) * 2)  # without ties there is one answer


def test_ties_at_the_cut_leave_as_much_open_as_their_verdicts_do():
    short = [record("a", length=5, correct=True), record("b", length=5, correct=False)]
    tied = [record(f"t{at}", length=9, correct=at == 0) for at in range(3)]
    long = [record(f"l{at}", length=50) for at in range(15)]
    assert among_shortest([*long, *tied, *short], 20) == (1 / 4, 2 / 4)  # four of twenty: two of the three tied
    assert among_shortest([*long, *tied, *short], 25) == (2 / 5, 2 / 5)
    assert by_upstream(number(0, "shortest 5 %"), short) is None  # of two there is none


def test_upstream_takes_no_thinking_for_the_shortest_and_an_open_chain_for_the_longest():
    none, capped = record("n", length=None, correct=False), record("c", length=3, status="capped", correct=False)
    ended = replace(record("e", length=4, status="eos_open"), correct=False)
    rest = [record(f"q{at}", length=100 + at) for at in range(7)]
    assert [upstream_length(one) for one in (none, capped, ended, rest[0])] == [-1, float("inf"), float("inf"), 100]
    assert among_shortest([*rest, ended, capped, none], 20) == (1 / 2, 1 / 2)


def test_upstreams_records_agree_if_its_definition_gives_what_is_printed():
    value = by_upstream(number(0), RECORDS)[0]
    assert check(number(round(value, 2)), RECORDS, "upstream").verdict == "agree"
    assert check(number(round(value, 2) + 0.02), RECORDS, "upstream").verdict == "differ"
    assert check(number(round(value, 1), decimals=1), RECORDS, "upstream").verdict == "agree"
    assert check(number(1.0, SPREAD), RECORDS, "upstream").verdict == "differ"
    least, most = by_upstream(number(0, "shortest 20 %"), RECORDS)
    tied = Check(number((least + most) / 2, "shortest 20 %"), "upstream", (least, most), None, 200)
    assert tied.verdict == "agree"


def test_ones_own_records_agree_if_our_interval_holds_what_is_printed():
    found = accuracy(RECORDS)
    for value, verdict in ((found.low, "agree"), (found.high, "agree"), (found.low - 0.001, "differ"), (1, "differ")):
        one = check(number(100 * value), RECORDS, "own")
        assert one.verdict == verdict and one.n_questions == 200
        assert (one.ours.value, one.ours.low) == (100 * found.value, 100 * found.low)
    few = accuracy(shortest(RECORDS, 10))
    assert check(number(0, "shortest 10 %"), RECORDS, "own").ours.high == pytest.approx(100 * few.high)
    tokens = mean_tokens(RECORDS)
    assert check(number(tokens.high, "tokens"), RECORDS, "own").verdict == "agree"
    assert check(number(1, SPREAD), RECORDS, "own") == Check(number(1, SPREAD))
    assert Check(number(1)).verdict == "no records"


def test_other_verdicts_of_the_same_records_change_ours_only():
    right = [replace(one, correct=True) for one in RECORDS]
    one = check(number(round(by_upstream(number(0), RECORDS)[0], 2)), RECORDS, "upstream", right)
    assert one.verdict == "agree" and one.ours.value == 100 and one.theirs[0] < 100


def test_a_row_says_both_definitions_and_the_verdict():
    checks = [check(number(70.0), RECORDS, "upstream"), Check(number(33.331, decimals=3))]
    table = checks_table("name", checks, regraded=False)
    rows = [dict(zip([column.title for column in table.columns], row, strict=True)) for row in table.rows]
    assert rows[0]["upstream's definition"].value == pytest.approx(by_upstream(number(0), RECORDS)[0])
    assert rows[0]["upstream's definition"].low is None and rows[0]["questions"] == 200
    assert (rows[0]["ours"], rows[0]["verdict"], rows[0]["attainable"]) == (checks[0].ours, "differ", "yes")
    assert (rows[1]["verdict"], rows[1]["records"], rows[1]["ours"], rows[1]["attainable"]) == (
        "no records",
        None,
        None,
        "no",
    )
    assert "our grader" not in table.note and "our grader" in checks_table("name", checks, regraded=True).note
    tied = Check(number(50.0, "shortest 5 %"), "upstream", (40.0, 60.0), None, 20)
    (row,) = checks_table("name", [tied], False).rows
    assert (row[6].value, row[6].low, row[6].high) == (50, 40, 60)


def test_a_stated_number_stands_beside_what_follows():
    table = stated_table("name", [Stated("t", "s", "m", "gain", 3.0, 1, "points", 2.0)])
    assert table.rows == (("t", "m", "gain", "points", 3.0, 2.0, "differ"),)
