"""A table as a value, and its four ways of being written: Markdown, CSV, JSON and HTML.

A cell holds a number, never text made from one; only writing turns it into "92.3 [91.0, 93.5]". Files keep full
precision: CSV and JSON have shares in [0, 1], Markdown and HTML show percentages.
"""

import csv
import html
import io
import re
from dataclasses import dataclass
from typing import Any, Literal

from thinksteer.intervals import Estimate

Kind = Literal["text", "share", "change", "tokens", "token_change", "count", "rate", "p"]
Cell = str | float | Estimate | None


@dataclass(frozen=True)
class Column:
    """A heading and what its cells are; `kind` settles how they are written."""

    title: str
    kind: Kind


@dataclass(frozen=True)
class Table:
    """Rows of cells under columns; `name` is the file's, `note` says what a reader must know to read it."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str


def _number(value: float, kind: Kind, decimals: int = 0) -> str:
    """A number as people read it; `decimals` are those of tokens."""
    if kind == "share":
        return f"{100 * value:.1f}"
    if kind == "change":
        return f"{100 * value:+.1f}"
    if kind == "rate":
        return f"{value:.2f}"
    if kind == "p":
        return f"{value:.3f}" if value >= 0.001 else "<0.001"
    return f"{value:+.{decimals}f}" if kind == "token_change" else f"{value:.{decimals}f}"


def shown(cell: Cell, kind: Kind) -> str:
    """A cell as people read it: "92.3 [91.0, 93.5]"; a dash for what does not exist."""
    if cell is None:
        return "–"
    if isinstance(cell, str):
        return cell
    if not isinstance(cell, Estimate):
        return _number(cell, kind)
    if cell.low is None or cell.high is None:
        return _number(cell.value, kind)
    decimals = 1 if max(abs(cell.low), abs(cell.high)) < 100 else 0
    value, low, high = (_number(one, kind, decimals) for one in (cell.value, cell.low, cell.high))
    return f"{value} [{low}, {high}]"


def markdown(table: Table) -> str:
    """The table as GitHub Markdown, with its title and note."""
    rules = ["---" if column.kind == "text" else "---:" for column in table.columns]
    lines = [[_inert(column.title) for column in table.columns], rules]
    lines += [[_inert(shown(cell, column.kind)) for cell, column in _row(row, table)] for row in table.rows]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"**{_inert(table.title)}**\n\n{body}\n\n{table.note}\n"


def _inert(text: str) -> str:
    """One line without cells, tags, links and pictures: names and kinds of questions come from outside."""
    line = " ".join(text.split()).replace("|", "\\|").replace("](", "]\\(")
    return re.sub(r"<(?=[!?/a-zA-Z])", "&lt;", line)


def as_csv(table: Table) -> str:
    """The table as CSV; an estimate takes four columns: value, low, high, n. Text that a spreadsheet would compute has
    an apostrophe before it."""
    wide = [any(isinstance(row[index], Estimate) for row in table.rows) for index in range(len(table.columns))]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    heading: list[str] = []
    for column, is_wide in zip(table.columns, wide, strict=True):
        heading += [f"{column.title} {part}" for part in ("value", "low", "high", "n")] if is_wide else [column.title]
    writer.writerow(map(_literal, heading))
    for row in table.rows:
        line: list[Cell] = []
        for cell, is_wide in zip(row, wide, strict=True):
            if isinstance(cell, Estimate):
                line += [cell.value, cell.low, cell.high, cell.n]
            else:
                line += [cell, None, None, None] if is_wide else [cell]
        writer.writerow(map(_literal, line))
    return out.getvalue()


def _literal(cell: Cell) -> Cell:
    if not isinstance(cell, str):
        return cell
    text = cell.replace("\r", " ")  # which Python does not quote, and readers take for the end of a row
    try:
        float(text)  # a weight, say
    except ValueError:
        return f"'{text}" if text.lstrip().startswith(("=", "+", "-", "@")) else text
    return text


def as_json(table: Table) -> dict[str, Any]:
    """The table for `json.dumps`: one object per row, an estimate as {"value", "low", "high", "n"}."""
    rows = [
        {
            column.title: vars(cell) if isinstance(cell, Estimate) else cell
            for cell, column in zip(row, table.columns, strict=True)
        }
        for row in table.rows
    ]
    return {"name": table.name, "title": table.title, "note": table.note, "rows": rows}


def as_html(table: Table) -> str:
    """The table as an HTML fragment; a rule is drawn where the first column changes, its repeats are left blank."""
    heading = "".join(f'<th class="{column.kind}">{html.escape(column.title)}</th>' for column in table.columns)
    lines, previous = [], None
    for row in table.rows:
        starts, previous = row[0] != previous, row[0]
        cells = [
            f'<td class="{column.kind}">{html.escape(shown(cell, column.kind)) if index or starts else ""}</td>'
            for index, (cell, column) in enumerate(_row(row, table))
        ]
        lines.append(('<tr class="starts">' if starts else "<tr>") + "".join(cells) + "</tr>")
    body = "\n".join(lines)
    return (
        f'<figure class="table" id="{html.escape(table.name)}"><figcaption>{html.escape(table.title)}</figcaption>\n'
        f"<table><thead><tr>{heading}</tr></thead>\n<tbody>\n{body}\n</tbody></table>\n"
        f'<p class="note">{html.escape(table.note)}</p></figure>'
    )


def _row(row: tuple[Cell, ...], table: Table) -> list[tuple[Cell, Column]]:
    return list(zip(row, table.columns, strict=True))
