"""More reasoning tasks like those of `reasoning_tasks`, written by a language model (Venhoff et al., 2025, section 3).

    python -m scripts.write_tasks tasks.jsonl --n_tasks 300 --endpoint http://localhost:8000/v1 --endpoint_model NAME
    python generate_responses.py --dataset NAME --data_file tasks.jsonl --id_column id --n_questions 300

Reads   the answers of an OpenAI-compatible endpoint, kept in <OUT>.answers.jsonl: the same command goes on with them
Writes  <OUT>.jsonl and, with --n_test, <OUT>.test.jsonl: JSON lines with the columns id, question, level (the
        category) and kind ("open": nothing is graded); none of the tasks is a built-in one or comes twice
"""

import argparse
import hashlib
import json
import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from thinksteer import cli, judge, reasoning_tasks, store
from thinksteer.judge import Judge
from thinksteer.reasoning_tasks import CATEGORIES
from thinksteer.records import InputError

PER_ANSWER = 10
ROUNDS = 6  # a model that has nothing new to say by then will not have it later
TEMPERATURE = 1.0
PROMPT = """Write {count} tasks in {category} for an examination of how well a language model reasons.

Each task must be understood without anything else, take several steps of thought, and invite checking or a change of \
approach; some should have one right answer, others several good ones. Make them as different from each other as you \
can, in subject, form and difficulty, and do not use well-known puzzles. Do not solve them.

This is list {number} of {category}: take subjects that few others would take.
Answer with a JSON list of {count} strings, the tasks, and nothing else."""


def parse_args() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument("out", type=Path, metavar="OUT.jsonl")
    parser.add_argument("--n_tasks", type=cli.positive_int, default=500, help="in OUT.jsonl (default: %(default)s)")
    parser.add_argument("--n_test", type=cli.natural_int, default=0, help="in OUT.test.jsonl (default: %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="remove an earlier output and begin anew")
    judge.add_flags(parser)
    args = parser.parse_args()
    if args.out.suffix != ".jsonl":
        parser.error(f"{args.out}: the name must end in .jsonl")
    return args


def main() -> None:
    args = parse_args()
    asked = judge.judge_from(args, args.out.with_suffix(".answers.jsonl"), TEMPERATURE)
    settings = {"n_tasks": args.n_tasks, "n_test": args.n_test, "model": asked.endpoint.model, "prompt": PROMPT}
    with store.run(args.out, settings, [], args.overwrite) as run:
        if not run.finished:
            tasks = write(asked, args.n_tasks + args.n_test)
            if args.n_test:
                store.write_text(args.out.with_suffix(".test.jsonl"), lines(tasks[: args.n_test]))
            store.write_text(args.out, lines(tasks[args.n_test :]))
    print(f"{args.out}: {args.n_tasks} tasks" + (f", {args.n_test} more for tests" if args.n_test else ""))


def write(asked: Judge, count: int) -> list[tuple[str, str]]:
    """`count` new (category, task), the categories in turns. InputError if the endpoint has not as many."""
    seen = {
        normal(task.question.removesuffix(reasoning_tasks.BOXED))
        for split in reasoning_tasks.PER_CATEGORY
        for task in reasoning_tasks.problems(split)
    }
    wanted = {category: len(range(place, count, len(CATEGORIES))) for place, category in enumerate(CATEGORIES)}
    found: dict[str, list[str]] = {category: [] for category in CATEGORIES}
    lists = dict.fromkeys(CATEGORIES, 0)
    for _ in range(ROUNDS):
        prompts = []
        for category, number in wanted.items():
            for _ in range(-(-(number - len(found[category])) // PER_ANSWER)):
                lists[category] += 1
                prompts.append((category, PROMPT.format(count=PER_ANSWER, category=category, number=lists[category])))
        answers = dict(asked.answers([prompt for _, prompt in prompts]))
        for index, (category, _) in enumerate(prompts):  # in this order, whatever the one in which they arrived
            for task in parse(answers[index]):
                if normal(task) not in seen and len(found[category]) < wanted[category]:
                    seen.add(normal(task))
                    found[category].append(task)
        if all(len(found[category]) == number for category, number in wanted.items()):
            return list(islice(((name, found[name][turn]) for turn in range(count) for name in CATEGORIES), count))
    got = sum(map(len, found.values()))
    raise InputError(
        f"{asked.endpoint.model}: after {ROUNDS} rounds {got} of {count} tasks are new and readable; ask for fewer "
        "with --n_tasks, or use another --endpoint_model"
    )


def parse(answer: str) -> list[str]:
    """The tasks of an answer: the strings of a JSON list (or of its objects, the longest), else the points of a list.

    What has fewer than five words is no task.
    """
    try:
        tasks = [longest(item) for item in json.loads(answer[answer.index("[") : answer.rindex("]") + 1])]
    except (ValueError, RecursionError):
        tasks = re.split(r"(?m)^[ \t]*(?:\*\*)?(?:\d+[.):]|[-*•])(?:\*\*)?[ \t]+", answer)[1:]
    return [task.strip() for task in tasks if len(task.split()) >= 5]


def longest(item: object) -> str:
    texts = list(item.values()) if isinstance(item, dict) else [item]
    return max((text for text in texts if isinstance(text, str)), key=len, default="")


def normal(task: str) -> str:
    """What two tasks have in common that differ in case, spaces and punctuation alone."""
    return " ".join(re.findall(r"\w+", task.casefold()))


def lines(tasks: Sequence[tuple[str, str]]) -> str:
    """An id is made of the task itself, so that it stays when more are written."""
    rows = [
        {"id": hashlib.sha256(task.encode()).hexdigest()[:16], "question": task, "level": category, "kind": "open"}
        for category, task in tasks
    ]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


if __name__ == "__main__":
    cli.run(main)
