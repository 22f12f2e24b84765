"""MMLU-Pro (Wang et al. 2024, arXiv 2406.01574), asked as LiReFs ask it (Hong et al. 2025, arXiv 2503.23084).

The prompt is their Intervention/utils.py's: five worked examples of the question's category, an empty line between,
then the question likewise, down to the words that every example's chain of thought begins with:

    Q: {question}
    Options are:
    (A): {option}
    (B): {option}

    A: Let's think step by step.

The white space at the prompt's end belongs to it. LiReFs leave two empty lines before the last "A:" and one before
those of the examples; here it is one throughout, as in jasonrichdarmawan/steering-model-with-latent-reasoning. Texts
stand as published, with their white space and with the options "N/A", which MMLU-Pro's own code leaves out.
"""

from collections.abc import Sequence

from thinksteer.columns import OWN, Columns, column, row_id, value, whole
from thinksteer.records import InputError, Problem
from thinksteer.rows import Row

LETTERS = "ABCDEFGHIJ"
SHOTS = 5
STEPS = "A: Let's think step by step. "
SCORE = "memory_reason_score"


def few_shot(row: Row, columns: Columns, numbered: str, examples: Sequence[Row]) -> Problem:
    """A question after the first `SHOTS` of the `examples` of its category; the answer is a letter."""
    question, options, answer = read(row, columns)
    field = category(row)
    alike = [one for one in examples if one.values.get("category") == field][:SHOTS]
    if len(alike) < SHOTS:
        raise InputError(f"{row.place}: category {field!r} has {len(alike)} worked examples, {SHOTS} are needed")
    if same := [one.place for one in alike if one.values.get("question") == question]:
        raise InputError(f"{row.place}: the question is a worked example itself ({same[0]}), its answer in the prompt")
    prompt = "".join(map(_worked, alike)) + _asked(question, options) + STEPS
    return Problem(row_id(row, columns, numbered), prompt, answer, "letter", level(row))


def alone(row: Row, columns: Columns, numbered: str) -> Problem:
    """The question without its options, which nothing grades: what LiReFs read states at."""
    return Problem(row_id(row, columns, numbered), read(row, columns)[0], "", "open", level(row))


def read(row: Row, columns: Columns | None = None) -> tuple[str, list[str], str]:
    """Question, options and the answer's letter of a row. InputError if they are not that or do not fit together.

    `columns`: what flags call them (None: no flag does, and they have their own names). Some published rows have a
    single option.
    """
    own = columns or OWN
    asked = column(row, own.question, ("question",), "--question_column" if columns else None)
    value(row, asked)
    question, options = str(row.values[asked]), row.values[column(row, None, ("options",), None)]
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        raise InputError(f"{row.place}: options must be a list of texts, not {str(options)[:80]!r}")
    if not 1 <= len(options) <= len(LETTERS):
        raise InputError(f"{row.place}: {len(options)} options, there must be 1 to {len(LETTERS)}")
    options = [whole(row, "options", option) for option in options]
    answer = value(row, column(row, own.answer, ("answer",), "--answer_column" if columns else None))
    if answer not in list(LETTERS[: len(options)]):
        raise InputError(f"{row.place}: answer {answer!r} is no letter of its {len(options)} options")
    index = row.values.get("answer_index")
    if index is not None and (type(index) is not int or index != LETTERS.index(answer)):
        raise InputError(f"{row.place}: answer_index {index!r} does not say option {answer}, as answer does")
    return question, options, answer


def category(row: Row) -> str:
    return value(row, column(row, None, ("category",), None))


def score(row: Row) -> float | None:
    """Between 0, pure recall, and 1, pure reasoning; None: the row does not say."""
    held = row.values.get(SCORE)
    if held is None:
        return None
    if type(held) not in (int, float) or not 0 <= held <= 1:
        raise InputError(f"{row.place}: {SCORE} must be a number from 0 to 1, not {str(held)[:80]!r}")
    return float(held)


def level(row: Row) -> str | None:
    """What LiReFs count a question as."""
    held = score(row)
    return None if held is None else kind(held)


def kind(score: float) -> str:
    return "reasoning" if score > 0.5 else "memory"


def _asked(question: str, options: Sequence[str]) -> str:
    listed = "".join(f"({letter}): {option}\n" for letter, option in zip(LETTERS, options, strict=False))
    return f"Q: {question}\nOptions are:\n{listed}\n"


def _worked(row: Row) -> str:
    question, options, _ = read(row)
    name = column(row, None, ("cot_content",), None)
    thought = value(row, name)
    if not thought.startswith(STEPS):
        raise InputError(f"{row.place}: {name} must begin with {STEPS!r}, as the prompt does")
    return f"{_asked(question, options)}{thought}\n\n"
