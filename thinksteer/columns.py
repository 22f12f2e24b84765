"""What a row holds in its columns: texts and numbers, under the data set's own names or those that the user gives."""

import json
import math
from dataclasses import dataclass

from thinksteer.records import InputError
from thinksteer.rows import Row

QUESTION_COLUMNS, ANSWER_COLUMNS = ("question", "problem"), ("answer", "solution")  # the first that is there


@dataclass(frozen=True)
class Columns:
    """Names of a file's columns; None: the data set's own (of `QUESTION_COLUMNS`, `ANSWER_COLUMNS`), no ids."""

    question: str | None = None
    answer: str | None = None
    id: str | None = None


OWN = Columns()


def column(row: Row, named: str | None, usual: tuple[str, ...], flag: str | None) -> str:
    """The column `named`, else the first of the `usual` that is there. InputError, naming the flag if it has one, if
    none is."""
    found = named if named is not None else next((name for name in usual if name in row.values), None)
    if found is None or found not in row.values:
        missing = f"no column {named!r}" if named else f"none of the columns {', '.join(usual)}"
        cure = f". Name one with {flag}" if flag else ": add it"
        raise InputError(f"{row.place}: {missing}; there are {', '.join(map(str, row.values))}{cure}")
    return found


def value(row: Row, name: str) -> str:
    """The text (or number, as text) in a column, without white space around; empty and broken text is refused."""
    held = row.values[name]
    if type(held) not in (str, int, float) or (type(held) is float and not math.isfinite(held)):
        raise InputError(f"{row.place}: {name} must be text or a number, not {json.dumps(held, default=str)[:80]}")
    text = str(held).strip()
    if not text:
        raise InputError(f"{row.place}: {name} is empty: fill it, or leave the row out")
    return whole(row, name, text)


def optional(row: Row, name: str) -> str | None:
    """As `value`; None where the row has no such column, or nothing in it."""
    return None if row.values.get(name) in (None, "") else value(row, name)


def whole(row: Row, name: str, text: str) -> str:
    """The text itself. InputError if half a character is in it, which no tokenizer reads."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{row.place}: {name} holds half a character ({error.reason}): correct it") from error
    return text


def row_id(row: Row, columns: Columns, numbered: str) -> str:
    return numbered if columns.id is None else value(row, column(row, columns.id, (), "--id_column"))
