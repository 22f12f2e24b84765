r"""The data sets, read from the hub, from a local file or made here (`MADE_HERE`), as `Problem`s.

Question and reference answer are read by each data set's conventions (`DATASETS`); where a file brings its own columns,
they can be named. Reference answers follow GSM8K (`#### 18`) or MATH (`\boxed{18}` in a solution) or stand alone; a row
of a file whose column `kind` says "open" needs none.
"""

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from thinksteer import arithmetic, grading, hub, livecodebench, mmlu_pro, reasoning_tasks, rows
from thinksteer.columns import ANSWER_COLUMNS, OWN, QUESTION_COLUMNS, Columns, column, optional, row_id, value, whole
from thinksteer.records import InputError, Problem
from thinksteer.rows import Row

ARITHMETIC_QUESTIONS = 1200  # without --n_questions: as many as the embedded model's published figures rest on
# ThinkEdit's 140 problems of MATH's level 5 (20 per subject, integer answers), as row numbers in the test split of the
# subjects in the order of MATH_SUBJECTS, and their answers. Numbers only: the texts come with the data set.
LEVEL5_140 = Path(__file__).with_name("math_level5_140.json")

# In the order of get_dataset_config_names, as upstream's evaluation joins them; row numbers count through all seven.
MATH_SUBJECTS = (
    "algebra",
    "counting_and_probability",
    "geometry",
    "intermediate_algebra",
    "number_theory",
    "prealgebra",
    "precalculus",
)


@dataclass(frozen=True)
class Dataset:
    """Where a data set is on the hub (`file`: in that one of its repository, which no config leads to), its splits
    there, which rows belong to it, and how a row becomes a problem; `few_shot`: the split that is the `examples` which
    `problem` then takes as well."""

    hub: str
    configs: tuple[str, ...]
    splits: tuple[str, ...]
    problem: Callable[..., Problem]  # (row, columns, id by number)
    select: Callable[[list[Row]], list[Row]] = list
    file: str | None = None
    few_shot: str | None = None


def load(
    dataset: str,
    split: str,
    n_questions: int | None = None,
    seed: int = 0,
    data_file: Path | None = None,
    columns: Columns = OWN,
    few_shot_file: Path | None = None,
    at_most: bool = False,
) -> list[Problem]:
    """The first `n_questions` problems (None: all) of a data set's split, in its order, as upstream takes them.

    InputError if there are fewer, unless `at_most`: then they are all that there are. `seed` makes the questions of
    arithmetic and touches nothing else. With `data_file` the rows come from that file, read by the conventions of
    `dataset` if it is one of `DATASETS`; with `few_shot_file` the worked examples of a few-shot prompt come from that
    file. Ids are `<dataset>-<split>-<row number>` (row numbers from 0, counted before a selection by level) or those of
    the id column.
    """
    known = DATASETS.get(dataset)
    if few_shot_file is not None and (known is None or known.few_shot is None):
        raise InputError(f"--few_shot_file {few_shot_file}: the questions of {dataset} take no worked examples")
    if dataset in MADE_HERE and data_file is None:
        return _made_here(dataset, split, n_questions, seed, at_most)
    table = _table(dataset, known, split, data_file)
    chosen = known.select(table) if known else table
    _check_number(f"{data_file or split}", dataset, len(chosen), None if at_most else n_questions)
    used = chosen[:n_questions]
    read = known.problem if known else _math_problem
    if known and known.few_shot:
        given = few_shot_file is not None
        examples = rows.read(few_shot_file) if given else from_hub(known, known.few_shot, "--few_shot_file")
        read = partial(read, examples=examples)
    problems = [read(row, columns, f"{dataset}-{split}-{row.number}") for row in used]
    if dataset == "math_level5_140":
        _check_level5_140(used, problems)
    _check_ids(used, problems)
    return problems


def _table(dataset: str, known: Dataset | None, split: str, data_file: Path | None) -> list[Row]:
    """All rows of the split or of the file."""
    if data_file is not None and dataset in MADE_HERE:
        raise InputError(f"--data_file {data_file}: {dataset} has its own questions; name the file's with --dataset")
    if data_file is not None:
        return rows.read(data_file)
    if known is None:
        names = ", ".join([*MADE_HERE, *DATASETS])
        raise InputError(f"--dataset {dataset}: no such data set; known are {names}; or give a local file: --data_file")
    if split not in known.splits:
        raise InputError(f"--split {split}: {dataset} has {', '.join(known.splits)}")
    return from_hub(known, split)


def from_hub(known: Dataset, split: str, flag: str = "--data_file") -> list[Row]:
    """All rows of the split. InputError, naming the flag that takes a copy, if they are out of reach."""
    try:
        if known.file is not None:
            return rows.read(hub.file(known.hub, known.file))
        return hub.read(known.hub, known.configs, split)
    except hub.OutOfReach as error:
        raise InputError(f"{error}; give a copy of it: {flag} FILE ({', '.join(rows.READERS)})") from error


def _made_here(dataset: str, split: str, n_questions: int | None, seed: int, at_most: bool) -> list[Problem]:
    if split not in ("train", "test"):
        raise InputError(f"--split {split}: {dataset} has train, test")
    if dataset == "arithmetic":
        return list(arithmetic.problems(split, seed, n_questions or ARITHMETIC_QUESTIONS))
    both = dataset == "arithmetic_and_facts"
    made = arithmetic.problems_and_facts(split, seed) if both else reasoning_tasks.problems(split)
    _check_number(split, dataset, len(made), None if at_most else n_questions)
    return made[:n_questions]


def _check_number(where: str, dataset: str, there: int, n_questions: int | None) -> None:
    if there < (n_questions or 1):
        wanted = "" if n_questions is None else f", not {n_questions} (--n_questions)"
        raise InputError(f"{where}: has {there} questions of {dataset}{wanted}")


def _check_ids(used: Sequence[Row], problems: Sequence[Problem]) -> None:
    first: dict[str, str] = {}
    for row, problem in zip(used, problems, strict=True):
        if problem.id in first:
            raise InputError(
                f"{row.place}: the id {problem.id!r} is already that of {first[problem.id]}: give another --id_column"
            )
        first[problem.id] = row.place


def reference(text: str) -> str | None:
    r"""The answer in a GSM8K or MATH gold text: after the last `####` (without thousands commas), else the last box.

    None if it has neither. Upstream's stage 3 reads `####\s*(\d+)`, which stops at commas and misses signs: 16 of
    GSM8K's 1319 test answers come out wrong.
    """
    if "####" in text:
        return text.rpartition("####")[2].strip().replace(",", "") or None
    return grading.last_boxed(text)


def _math_problem(row: Row, columns: Columns, numbered: str) -> Problem:
    question = value(row, column(row, columns.question, QUESTION_COLUMNS, "--question_column"))
    level = optional(row, "level")  # of MATH: "Level 1" to "Level 5", or the number alone
    if row.values.get("kind") == "open":
        return Problem(row_id(row, columns, numbered), question, "", "open", level)
    name = column(row, columns.answer, ANSWER_COLUMNS, "--answer_column")
    gold = value(row, name)
    answer = reference(gold)
    if answer is None and ("####" in gold or name == "solution"):
        raise InputError(f"{row.place}: {name} states no answer (#### or \\boxed)")
    answer = answer or gold
    if "\n" in answer and "\\begin" not in answer:  # a solution, not an answer; matrices may have lines
        raise InputError(f"{row.place}: {name} must state one answer, on one line: alone, after #### or in \\boxed{{}}")
    return Problem(row_id(row, columns, numbered), question, answer, level=level)


def _gsm8k_problem(row: Row, columns: Columns, numbered: str) -> Problem:
    if row.values.get("kind") != "open":
        name = column(row, columns.answer, ANSWER_COLUMNS, "--answer_column")
        if "####" not in value(row, name):
            raise InputError(
                f"{row.place}: {name} lacks `#### answer` at its end, which gsm8k's have: add it, or, where answers "
                "stand alone, name the data otherwise with --dataset"
            )
    return _math_problem(row, columns, numbered)


def _choice_problem(row: Row, columns: Columns, numbered: str) -> Problem:
    r"""A multiple-choice question in upstream's prompt format; the answer is the option's number, from 1.

    Upstream asks for `\boxed{{index}}`: its string is no f-string, so the doubled braces reach the model. Here they are
    single, which is what was meant. The file's answer is an index from 0 (as in cais/mmlu) or a letter.
    """
    question = value(row, column(row, columns.question, QUESTION_COLUMNS, "--question_column"))
    choices = row.values[column(row, None, ("choices",), None)]
    if isinstance(choices, str):  # of a CSV file
        with contextlib.suppress(json.JSONDecodeError):
            choices = json.loads(choices)
    if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(choice, str) for choice in choices):
        raise InputError(f"{row.place}: choices must be a list of at least two texts")
    choices = [whole(row, "choices", choice) for choice in choices]
    gold = value(row, column(row, columns.answer, ("answer",), "--answer_column"))
    number = int(gold) + 1 if gold.isdecimal() else grading.option(gold)
    if number is None or not 1 <= number <= len(choices):
        raise InputError(f"{row.place}: answer {gold!r} is no index from 0 or letter of its {len(choices)} choices")
    options = "\n".join(f"{index}. {choice}" for index, choice in enumerate(choices, start=1))
    asked = "Choose from the above options and the answer format should be '\\boxed{index}'."
    return Problem(row_id(row, columns, numbered), f"{question}\n{options}\n{asked}", str(number), "choice")


def _code_problem(row: Row, columns: Columns, numbered: str) -> Problem:
    content = value(row, column(row, columns.question, ("question_content",), "--question_column"))
    starter = row.values.get("starter_code")
    if not isinstance(starter, str | None):
        raise InputError(f"{row.place}: starter_code must be text, not {json.dumps(starter, default=str)[:80]}")
    asked = livecodebench.question(content, starter or "")
    level = optional(row, "difficulty")
    return Problem(row_id(row, columns, numbered), asked, livecodebench.answer(row), "code", level)


def _level(level: int) -> Callable[[list[Row]], list[Row]]:
    def select(table: list[Row]) -> list[Row]:
        name = column(table[0], None, ("level",), None)
        return [row for row in table if str(row.values.get(name)).removeprefix("Level ") == str(level)]

    return select


def _level5_140(table: list[Row]) -> list[Row]:
    """ThinkEdit's 140 rows out of the whole MATH test split, or a file of just those rows (upstream's CSV)."""
    numbers = json.loads(LEVEL5_140.read_text())["rows"]
    if len(table) == len(numbers):
        return table
    if len(table) <= max(numbers):
        have = f"{table[0].place.partition(' ')[0]} has {len(table)} rows"
        raise InputError(f"math_level5_140: {have}; give MATH's 5000 test problems, or only the 140")
    return [table[number] for number in numbers]


def _check_level5_140(used: Sequence[Row], problems: Sequence[Problem]) -> None:
    """The rows are named by number: their answers show whether these are the rows meant."""
    for row, problem, answer in zip(used, problems, json.loads(LEVEL5_140.read_text())["answers"], strict=False):
        if grading.decide(problem.answer, str(answer), "math") is not True:
            raise InputError(
                f"{row.place}: the answer is {problem.answer!r}, of math_level5_140 it is {answer}; the rows must be "
                f"in the order of the hub's {', '.join(MATH_SUBJECTS)} test splits"
            )


MADE_HERE = ("arithmetic", "arithmetic_and_facts", "reasoning_tasks")
_MATH = ("EleutherAI/hendrycks_math", MATH_SUBJECTS)
_MMLU_PRO = ("TIGER-Lab/MMLU-Pro", ("default",), ("test", "validation"))
DATASETS: dict[str, Dataset] = {
    "gsm8k": Dataset("openai/gsm8k", ("main",), ("train", "test"), _gsm8k_problem),
    "mmlu_elementary_math": Dataset(
        "cais/mmlu", ("elementary_mathematics",), ("test", "validation", "dev"), _choice_problem
    ),
    "mmlu_pro": Dataset(*_MMLU_PRO, mmlu_pro.few_shot, few_shot="validation"),
    "mmlu_pro_questions": Dataset(*_MMLU_PRO, mmlu_pro.alone),
    "MATH-500": Dataset("HuggingFaceH4/MATH-500", ("default",), ("test",), _math_problem),
    "MATH": Dataset(*_MATH, ("train", "test"), _math_problem),
    "MATH-level1": Dataset(*_MATH, ("train", "test"), _math_problem, _level(1)),
    "MATH-level5": Dataset(*_MATH, ("train", "test"), _math_problem, _level(5)),
    "math_level5_140": Dataset(*_MATH, ("test",), _math_problem, _level5_140),
    # release_v1, 400 problems, in the file's order: the releases after it are in further files.
    "livecodebench": Dataset("livecodebench/code_generation_lite", (), ("test",), _code_problem, file="test.jsonl"),
}
