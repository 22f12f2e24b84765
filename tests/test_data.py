"""Data sets: how rows become problems, and what is said when they cannot."""

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from thinksteer import data, grading, hub
from thinksteer.data import Columns, load
from thinksteer.records import InputError, Problem
from thinksteer.rows import Row

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("THINKEDIT_TEST_DATA", ROOT.parent / "shared" / "data"))

ROWS = [{"question": "1 + 1?", "answer": "2"}, {"question": "½ of 7?", "answer": "3.5"}]
SUM = "So it is 1,000 + 1 = <<1000+1=1001>>1,001.\n#### "


def shared(name: str) -> Path:
    if not (DATA / name).exists():
        pytest.skip(f"{DATA / name} is missing: set THINKEDIT_TEST_DATA to the folder that has it")
    return DATA / name


def jsonl(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def as_csv(path: Path, rows: list[dict[str, object]]) -> Path:
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def as_json(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text(json.dumps(rows, indent=1), "utf-8")
    return path


def as_parquet(path: Path, rows: list[dict[str, object]]) -> Path:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


WRITERS = {"jsonl": jsonl, "csv": as_csv, "json": as_json, "parquet": as_parquet}


@pytest.mark.parametrize("suffix", WRITERS)
def test_every_format_gives_the_same_problems(tmp_path: Path, suffix: str) -> None:
    file = WRITERS[suffix](tmp_path / f"mine.{suffix}", ROWS)
    assert load("mine", "test", data_file=file) == [
        Problem("mine-test-0", "1 + 1?", "2"),
        Problem("mine-test-1", "½ of 7?", "3.5"),
    ]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (SUM + "1,001", "1001"),
        (SUM + "-5", "-5"),
        (SUM + "1,450,000\n", "1450000"),
        (r"As $1+1=2$, we have $x=\boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
        (r"First \boxed{1}, then $\boxed{2}$.", "2"),
        (r"So $\boxed 3$.", "3"),
        (r"\text{Evelyn}", r"\text{Evelyn}"),
        (7, "7"),
        (0.5, "0.5"),
    ],
)
def test_references_are_read_from_gsm8k_and_math_texts(tmp_path: Path, text: object, answer: str) -> None:
    file = jsonl(tmp_path / "mine.jsonl", [{"problem": "?", "solution": 1, "answer": text}])
    assert load("mine", "test", data_file=file)[0].answer == answer


def test_columns_can_be_named_and_ids_taken_from_one(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "mine.jsonl", [{"q": "?", "a": 1, "key": "x/1"}, {"q": "??", "a": 2, "key": "x/2"}])
    problems = load("mine", "test", data_file=file, columns=Columns("q", "a", "key"))
    assert problems == [Problem("x/1", "?", "1"), Problem("x/2", "??", "2")]


def test_the_first_questions_are_taken_in_order_whatever_the_seed(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "mine.jsonl", [{"question": f"{n}?", "answer": n} for n in range(5)])
    assert [problem.answer for problem in load("mine", "test", 3, seed=7, data_file=file)] == ["0", "1", "2"]
    with pytest.raises(InputError, match=r"has 5 questions of mine, not 6 \(--n_questions\)"):
        load("mine", "test", 6, data_file=file)


def test_arithmetic_comes_from_the_embedded_world_and_its_seed() -> None:
    problems = load("arithmetic", "test", 5, seed=3)
    assert [problem.id for problem in problems] == [f"arithmetic-test-3-{n}" for n in range(5)]
    assert problems == load("arithmetic", "test", 9, seed=3)[:5]
    assert problems != load("arithmetic", "test", 5, seed=4)
    assert len(load("arithmetic", "train")) == data.ARITHMETIC_QUESTIONS


def test_facts_and_chains_are_asked_in_one_ratio_and_no_more_than_there_are() -> None:
    every = load("arithmetic_and_facts", "test", seed=2)
    assert len(every) == 288 and load("arithmetic_and_facts", "test", 7, seed=2) == every[:7]
    assert [problem.level for problem in every[:7]] == ["memory", *["reasoning"] * 5, "memory"]
    with pytest.raises(InputError, match="has 288 questions of arithmetic_and_facts, not 289"):
        load("arithmetic_and_facts", "test", 289)
    with pytest.raises(InputError, match="arithmetic_and_facts has train, test"):
        load("arithmetic_and_facts", "dev")


def write(text: str | bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(text if isinstance(text, bytes) else text.encode())


GOOD = json.dumps(ROWS[0])
BROKEN = {
    "a torn line": ("a.jsonl", write(f'{GOOD}\n{{"question": "1'), {}, r"a\.jsonl line 2: broken JSON"),
    "no object": ("a.jsonl", write(f"{GOOD}\n[1]\n"), {}, r"a\.jsonl line 2: expected a JSON object.* list"),
    "latin-1": ("a.jsonl", write(f"{GOOD}\n".encode() + b'"\xe9"'), {}, r"a\.jsonl line 2: not UTF-8"),
    "an empty file": ("a.jsonl", write("\n"), {}, r"a\.jsonl: no rows"),
    "broken JSON": ("a.json", write("[\n{]"), {}, r"a\.json line 2: broken JSON"),
    "no list": ("a.json", write(GOOD), {}, r"a\.json: expected a JSON list"),
    "too many fields": ("a.csv", write("question,answer\n1?,2\n1?,2,3\n"), {}, r"a\.csv line 3: .*2"),
    "too few fields": ("a.csv", write("question,answer\n1?\n"), {}, r"a\.csv line 2: .*2"),
    "a torn quote": ("a.csv", write('question,answer\n"1?,2\n'), {}, r"a\.csv line 2: broken CSV"),
    "no parquet": ("a.parquet", write("PAR1"), {}, r"a\.parquet: not a Parquet file"),
    "unknown suffix": ("a.txt", write("x"), {}, r"a\.txt: cannot tell its format.*\.jsonl"),
    "no file": ("a.jsonl", lambda path: None, {}, r"a\.jsonl: no such file"),
    "wrong question column": (
        "a.jsonl",
        write(GOOD),
        {"question": "q"},
        r"no column 'q'; there are question, answer",
    ),
    "wrong answer column": ("a.jsonl", write(GOOD), {"answer": "a"}, "no column 'a'.*--answer_column"),
    "wrong id column": ("a.jsonl", write(GOOD), {"id": "i"}, "no column 'i'.*--id_column"),
    "no usual column": ("a.jsonl", write('{"q": 1}'), {}, "none of the columns question, problem; there are q"),
    "an empty question": (
        "a.jsonl",
        write('{"question": " ", "answer": 1}'),
        {},
        "line 1: question is empty",
    ),
    "an empty answer": ("a.jsonl", write('{"question": "?", "answer": ""}'), {}, "line 1: answer is empty"),
    "no answer": ("a.jsonl", write('{"question": "?", "answer": null}'), {}, "line 1: answer must be text or a number"),
    "half a character": (
        "a.jsonl",
        write('{"question": "\\ud800", "answer": 1}'),
        {},
        "holds half a character",
    ),
    "no gold": ("a.jsonl", write('{"question": "?", "answer": "1 ####"}'), {}, "line 1: answer states no answer"),
    "no box": ("a.jsonl", write('{"problem": "?", "solution": "Easy."}'), {}, "line 1: solution states no answer"),
    "a solution for an answer": (
        "a.jsonl",
        write('{"question": "1+1?", "answer": "1+1=2\\nA: 2"}'),
        {},
        "line 1: answer must state one answer, on one line",
    ),
    "words after the gold": (
        "a.jsonl",
        write('{"question": "1+1?", "answer": "1+1=2\\n#### 2\\nDone."}'),
        {},
        "line 1: answer must state one answer, on one line",
    ),
    "a level that is none": (
        "a.jsonl",
        write('{"question": "?", "answer": 1, "level": {"a": 1}}'),
        {},
        "level must be",
    ),
    "the same id": ("a.jsonl", write(f"{GOOD}\n\n{GOOD}"), {"id": "answer"}, r"a\.jsonl line 3: the id '2' .*line 1"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_refused_with_file_and_line(tmp_path: Path, case: str) -> None:
    name, make, columns, message = BROKEN[case]
    make(tmp_path / name)
    with pytest.raises(InputError, match=message):
        load("mine", "test", data_file=tmp_path / name, columns=Columns(**columns))


UNCONVENTIONAL = {
    "no gold": (
        "gsm8k",
        {"question": "1+1?", "answer": "1+1=2\nA: 2"},
        r"answer lacks `#### answer` at its end.*--dataset",
    ),
    "a number alone": ("gsm8k", {"question": "1+1?", "answer": 2}, "answer lacks `#### answer`"),
    "another column": ("gsm8k", {"problem": "1+1?", "solution": r"\boxed{2}"}, "solution lacks `#### answer`"),
    "an empty gold": ("gsm8k", {"question": "1+1?", "answer": "2\n#### "}, "answer states no answer"),
    "a solution of MATH": ("MATH", {"problem": "?", "answer": "We add.\nIt is 2."}, "answer must state one answer"),
    "a choice beyond": ("mmlu_elementary_math", {"question": "?", "choices": ["a", "b"], "answer": 2}, "is no index"),
    "a negative choice": (
        "mmlu_elementary_math",
        {"question": "?", "choices": ["a", "b"], "answer": -1},
        "is no index",
    ),
    "half a choice": ("mmlu_elementary_math", {"question": "?", "choices": ["a", "b"], "answer": 0.5}, "is no index"),
    "a yes": (
        "mmlu_elementary_math",
        {"question": "?", "choices": ["a", "b"], "answer": True},
        "must be text or a number",
    ),
    "one choice": ("mmlu_elementary_math", {"question": "?", "choices": ["a"], "answer": 0}, "at least two texts"),
    "choices as numbers": (
        "mmlu_elementary_math",
        {"question": "?", "choices": [1, 2], "answer": 0},
        "at least two texts",
    ),
    "half a character": (
        "mmlu_elementary_math",
        {"question": "?", "choices": ["\ud800", "b"], "answer": 0},
        "choices holds half a character",
    ),
    "a starter that is no text": (
        "livecodebench",
        {"question_content": "?", "starter_code": {"a": 1}},
        "starter_code must be",
    ),
}


@pytest.mark.parametrize("dataset, row, message", UNCONVENTIONAL.values(), ids=UNCONVENTIONAL)
def test_a_row_against_the_conventions_of_its_data_set_is_refused(tmp_path: Path, dataset, row, message) -> None:
    with pytest.raises(InputError, match=rf"a\.jsonl line 1: .*{message}"):
        load(dataset, "test", data_file=jsonl(tmp_path / "a.jsonl", [row]))


def test_matrices_may_have_lines_and_open_questions_need_no_gold(tmp_path: Path) -> None:
    matrix = "\\begin{pmatrix} 1 \\\\\n2 \\end{pmatrix}"
    assert load("MATH", "test", data_file=jsonl(tmp_path / "a.jsonl", [{"problem": "?", "answer": matrix}])) == [
        Problem("MATH-test-0", "?", matrix)
    ]
    file = jsonl(tmp_path / "b.jsonl", [{"question": "?", "kind": "open"}])
    assert load("gsm8k", "test", data_file=file)[0].kind == "open"


def test_fewer_questions_than_a_default_are_all_used(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "mine.jsonl", ROWS)
    assert load("mine", "test", 2000, data_file=file, at_most=True) == load("mine", "test", data_file=file)
    assert len(load("mine", "test", 1, data_file=file, at_most=True)) == 1
    assert len(load("arithmetic_and_facts", "test", 2000, at_most=True)) == 288


def test_a_line_separator_inside_a_question_is_no_line_end(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"question": "one\u2028two", "answer": 1}\r\n', "utf-8")
    assert load("mine", "test", data_file=file)[0].question == "one\u2028two"


def test_unknown_names_and_splits_list_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"known are arithmetic, arithmetic_and_facts, .*--data_file"):
        load("gsm9k", "test")
    with pytest.raises(InputError, match="MATH-500 has test"):
        load("MATH-500", "train")
    with pytest.raises(InputError, match="arithmetic has train, test"):
        load("arithmetic", "dev", 1)
    with pytest.raises(InputError, match="--dataset"):
        load("arithmetic", "test", data_file=jsonl(tmp_path / "a.jsonl", ROWS))


def test_options_are_numbered_in_the_prompt_and_the_answer_is_a_number(tmp_path: Path) -> None:
    rows = [{"question": "7 + 7?", "choices": ["7", "14", "49", "77"], "answer": gold} for gold in (1, "1", "B")]
    rows[1]["choices"] = json.dumps(rows[1]["choices"])
    problems = load("mmlu_elementary_math", "test", data_file=jsonl(tmp_path / "a.jsonl", rows))
    asked = "Choose from the above options and the answer format should be '\\boxed{index}'."
    for problem in problems:
        assert problem.question == f"7 + 7?\n1. 7\n2. 14\n3. 49\n4. 77\n{asked}"
        assert (problem.answer, problem.kind) == ("2", "choice")


@pytest.mark.parametrize("gold", [4, "E", "14", -1])
def test_an_answer_outside_the_options_is_refused(tmp_path: Path, gold: object) -> None:
    row = {"question": "7 + 7?", "choices": ["7", "14", "49", "77"], "answer": gold}
    with pytest.raises(InputError, match="no index from 0 or letter of its 4 choices"):
        load("mmlu_elementary_math", "test", data_file=jsonl(tmp_path / "a.jsonl", [row]))


def test_a_level_is_selected_and_rows_keep_their_numbers(tmp_path: Path) -> None:
    levels = ["Level 5", "Level 1", 5, "Level ?"]
    rows = [{"problem": f"{n}?", "level": level, "solution": rf"\boxed{{{n}}}"} for n, level in enumerate(levels)]
    file = jsonl(tmp_path / "a.jsonl", rows)
    assert [p.id for p in load("MATH-level5", "test", data_file=file)] == ["MATH-level5-test-0", "MATH-level5-test-2"]
    assert [p.level for p in load("MATH-level5", "test", data_file=file)] == ["Level 5", "5"]
    assert [p.answer for p in load("MATH-level1", "test", data_file=file)] == ["1"]
    with pytest.raises(InputError, match="has 0 questions of MATH-level1"):
        load("MATH-level1", "test", data_file=jsonl(tmp_path / "b.jsonl", rows[2:]))


def math_test(tmp_path: Path) -> tuple[list[dict[str, object]], dict[str, list[int]]]:
    """A stand-in for MATH's 5000 test rows, with the right answers where the 140 are."""
    carried = json.loads(data.LEVEL5_140.read_text())
    answers = dict(zip(carried["rows"], carried["answers"], strict=True))
    return [{"problem": f"{n}?", "solution": rf"\boxed{{{answers.get(n, -99999)}}}"} for n in range(5000)], carried


def test_the_140_problems_are_found_by_row_number_and_checked_by_answer(tmp_path: Path) -> None:
    rows, carried = math_test(tmp_path)
    problems = load("math_level5_140", "test", data_file=jsonl(tmp_path / "a.jsonl", rows))
    assert [problem.question for problem in problems] == [f"{n}?" for n in carried["rows"]]
    assert [problem.id for problem in problems] == [f"math_level5_140-test-{n}" for n in carried["rows"]]
    only = as_csv(tmp_path / "only.csv", [rows[n] for n in carried["rows"]])
    assert [p.answer for p in load("math_level5_140", "test", data_file=only)] == list(map(str, carried["answers"]))
    with pytest.raises(InputError, match=r"a\.jsonl line 12: the answer is '-99999'.*order of the hub's algebra"):
        load("math_level5_140", "test", data_file=jsonl(tmp_path / "a.jsonl", rows[::-1]))
    with pytest.raises(InputError, match="has 141 rows; give MATH's 5000"):
        load("math_level5_140", "test", data_file=jsonl(tmp_path / "a.jsonl", rows[:141]))


def test_the_140_carried_numbers_are_the_published_ones() -> None:
    published = json.loads(shared("thinkedit_140_math_test_idx.json").read_text())
    carried = json.loads(data.LEVEL5_140.read_text())
    assert carried["rows"] == published["math_test_idx"]
    assert carried["answers"] == [int(answer) for answer in published["answers"]]


def test_all_gsm8k_references_are_the_golds_numbers() -> None:
    file = shared("gsm8k_test.jsonl")
    problems = load("gsm8k", "test", data_file=file)
    golds = [json.loads(line)["answer"].splitlines()[-1][len("#### ") :] for line in file.open(encoding="utf-8")]
    assert len(problems) == 1319
    assert [int(problem.answer) for problem in problems] == [int("".join(g.split(","))) for g in golds]
    assert problems[146].answer == "2125"  # upstream's pattern reads 2
    assert all(grading.decide(problem.answer, gold, "math") for problem, gold in zip(problems, golds, strict=True))


def test_the_mmlu_file_reads_as_published() -> None:
    file = shared("mmlu_elementary_mathematics_test.jsonl")
    problems = load("mmlu_elementary_math", "test", data_file=file)
    with shared("mmlu_elementary_mathematics_test.csv").open(encoding="utf-8", newline="") as table:
        letters = [row[-1] for row in csv.reader(table)]
    assert len(problems) == 378
    assert all(grading.decide(letter, p.answer, "choice") for letter, p in zip(letters, problems, strict=True))


def test_hub_sets_join_their_configs_in_the_stated_order(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def read(name: str, configs: tuple[str, ...], split: str) -> list[Row]:
        asked.append((name, configs, split))
        return [Row(0, "x", {"problem": "?", "level": "Level 5", "solution": r"\boxed{1}"})]

    monkeypatch.setattr(hub, "read", read)
    assert load("MATH-level5", "test") == [Problem("MATH-level5-test-0", "?", "1", level="Level 5")]
    assert asked == [("EleutherAI/hendrycks_math", tuple(sorted(data.MATH_SUBJECTS)), "test")]


# Two rows in the cache's layout, as `datasets` leaves them after a download.
CACHED = """
import sys
from pathlib import Path
from datasets import DatasetInfo, Features, SplitDict, SplitInfo, Value, Version
from datasets.arrow_writer import ArrowWriter
root = Path(sys.argv[1])
folder = root / "openai___gsm8k" / "main" / "0.0.0" / ("0" * 40)
folder.mkdir(parents=True)
features = Features({"question": Value("string"), "answer": Value("string")})
with ArrowWriter(path=str(folder / "gsm8k-test.arrow"), features=features) as writer:
    for number in range(2):
        writer.write({"question": f"{number}?", "answer": f"so #### 1,00{number}"})
    examples, size = writer.finalize()
splits = SplitDict({"test": SplitInfo("test", size, examples, dataset_name="gsm8k")}, dataset_name="gsm8k")
info = DatasetInfo(features=features, builder_name="parquet", dataset_name="gsm8k", config_name="main",
                   version=Version("0.0.0"), splits=splits)
info.write_to_directory(str(folder))
from thinksteer.data import load
print(load("gsm8k", "test"))
"""


def run_offline(code: str, cache: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HOME": str(cache), "HF_DATASETS_CACHE": str(cache), **settings}
    command = [sys.executable, "-c", code, str(cache)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)


def test_a_cached_set_is_read_without_the_hub(tmp_path: Path) -> None:
    done = run_offline(CACHED, tmp_path, HF_HUB_OFFLINE="1")
    expected = [Problem("gsm8k-test-0", "0?", "1000"), Problem("gsm8k-test-1", "1?", "1001")]
    assert done.stdout.strip() == str(expected), done.stderr


def test_without_hub_and_cache_one_error_comes_fast_and_names_the_flag(tmp_path: Path) -> None:
    code = "from thinksteer.data import load\nload('gsm8k', 'test')"
    start = time.perf_counter()
    done = run_offline(code, tmp_path, HF_ENDPOINT="http://127.0.0.1:9")  # nothing listens there
    assert time.perf_counter() - start < 30  # mostly imports; the retries of `datasets` alone take 23 s
    assert "Retrying" not in done.stderr
    assert "cannot load openai/gsm8k" in done.stderr.splitlines()[-1]
    assert "--data_file" in done.stderr.splitlines()[-1]


def test_the_flag_that_takes_a_copy_of_what_is_missing_is_named(tmp_path: Path, monkeypatch) -> None:
    def out_of_reach(*_: object) -> None:
        raise hub.OutOfReach("cannot load it")

    monkeypatch.setattr(hub, "read", out_of_reach)
    monkeypatch.setattr(hub, "file", out_of_reach)
    row = {"question": "?", "options": ["a", "b"], "answer": "A", "category": "math"}
    with pytest.raises(InputError, match=r"cannot load it; give a copy of it: --few_shot_file FILE \(\.jsonl"):
        load("mmlu_pro", "test", data_file=jsonl(tmp_path / "a.jsonl", [row]))
    for dataset in ("mmlu_pro", "gsm8k", "livecodebench"):
        with pytest.raises(InputError, match="cannot load it; give a copy of it: --data_file FILE"):
            load(dataset, "test")
