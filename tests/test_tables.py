import csv
import io
import json

import pytest

from thinksteer.intervals import Estimate
from thinksteer.tables import Column, Kind, Table, as_csv, as_html, as_json, markdown, shown

TABLE = Table(
    "name",
    "A. Title <1>",
    (Column("model", "text"), Column("gsm8k", "share"), Column("n", "count")),
    (("a|<b>", Estimate(0.91234, 0.9, 0.925, 40), 3), ("a|<b>", None, None)),
    "A note & more.",
)


@pytest.mark.parametrize(
    ("cell", "kind", "text"),
    [
        (Estimate(0.91234, 0.9, 0.925, 40), "share", "91.2 [90.0, 92.5]"),
        (Estimate(0.03, -0.01, 0.07, 40), "change", "+3.0 [-1.0, +7.0]"),
        (Estimate(812.4, 700.2, 900, 40), "tokens", "812 [700, 900]"),
        (Estimate(81.24, 70.2, 90, 40), "tokens", "81.2 [70.2, 90.0]"),
        (Estimate(5.0, None, None, 2), "token_change", "+5"),
        (0.0004, "p", "<0.001"),
        (0.0423, "p", "0.042"),
        (0.5, "share", "50.0"),
        (7, "count", "7"),
        (Estimate(0.163, 0.1, 0.25, 40), "rate", "0.16 [0.10, 0.25]"),
        (None, "share", "–"),
        ("x", "text", "x"),
    ],
)
def test_cells_are_written_as_people_read_them(cell: Estimate | float | str | None, kind: Kind, text: str):
    assert shown(cell, kind) == text


def test_markdown_has_one_line_per_row_and_keeps_bars_out_of_cells():
    lines = markdown(TABLE).splitlines()
    assert lines[2:6] == [
        "| model | gsm8k | n |",
        "| --- | ---: | ---: |",
        "| a\\|&lt;b> | 91.2 [90.0, 92.5] | 3 |",
        "| a\\|&lt;b> | – | – |",
    ]
    assert lines[-1] == "A note & more."


@pytest.mark.parametrize(
    ("outside", "inert"),
    [
        ("<img src=http://example.org/x onerror=alert(1)>", "&lt;img src=http://example.org/x onerror=alert(1)>"),
        ("![x](http://example.org/x)", "![x]\\(http://example.org/x)"),
        ("a\n\n# b\r\n| c |\u2028d\te", "a # b \\| c \\| d e"),
        ("</table><!-- <? 1<2", "&lt;/table>&lt;!-- &lt;? 1<2"),
    ],
)
def test_markdown_of_names_from_outside_is_text_on_one_line(outside: str, inert: str):
    table = Table("t", outside, (Column(outside, "text"),), ((outside,),), "")
    assert markdown(table) == f"**{inert}**\n\n| {inert} |\n| --- |\n| {inert} |\n\n\n"


FORMULAS = ["=HYPERLINK(1)", "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(1)", "\t=1", "\n=1", " =1"]
OTHERS = ["-0.4", "+1e3", "a=1", "1-2", "'=1", ""]


def test_csv_keeps_formulas_from_being_computed_and_numbers_numbers():
    cells = [*FORMULAS, *OTHERS, "a\r=1"]
    rows = list(
        csv.reader(io.StringIO(as_csv(Table("t", "", (Column("=1", "text"),), tuple(zip(cells, strict=True)), ""))))
    )
    assert [row[0] for row in rows] == ["'=1", *(f"'{cell}" for cell in FORMULAS), *OTHERS, "a =1"]


def test_csv_keeps_full_precision_in_four_columns_an_estimate():
    rows = list(csv.reader(io.StringIO(as_csv(TABLE))))
    assert rows[0] == ["model", "gsm8k value", "gsm8k low", "gsm8k high", "gsm8k n", "n"]
    assert rows[1] == ["a|<b>", "0.91234", "0.9", "0.925", "40", "3"]
    assert rows[2] == ["a|<b>", "", "", "", "", ""]


def test_json_keeps_full_precision_by_name():
    found = json.loads(json.dumps(as_json(TABLE)))
    assert found["rows"][0]["gsm8k"] == {"value": 0.91234, "low": 0.9, "high": 0.925, "n": 40}
    assert found["rows"][1]["gsm8k"] is None


def test_html_escapes_everything_and_leaves_repeats_blank():
    text = as_html(TABLE)
    assert "a|&lt;b&gt;" in text and "<b>" not in text and "Title &lt;1&gt;" in text and "note &amp; more" in text
    assert text.count("a|&lt;b&gt;") == 1 and text.count('class="starts"') == 1
