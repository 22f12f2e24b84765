"""Say of MMLU-Pro's questions whether they ask for reasoning or for memory, where no `memory_reason_score` says so.

    python -m scripts.score_questions --data_file mmlu_pro.jsonl
    python -m scripts.score_questions --scorer judge --endpoint https://api.openai.com/v1 --endpoint_model gpt-4.1
    python generate_responses.py --dataset mmlu_pro --data_file artifacts/questions/mmlu_pro.rule.jsonl

Reads   MMLU-Pro from the hub, or rows like its own (--data_file)
Writes  questions/<name>.jsonl: the rows as they are, with a score from 0 (memory) to 1 (reasoning) each, to be given as
        --data_file; the answers of a judge are kept in judge/<endpoint model>.jsonl. Scores that are there are kept;
        how far the scorer's own agree with them is printed
"""

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

from thinksteer import cli, data, mmlu_pro, rows, store
from thinksteer import judge as endpoint
from thinksteer.intervals import Estimate
from thinksteer.lines import encode
from thinksteer.question_scores import PROMPT, Trust, agreement, answered_score, prompt, rule_score
from thinksteer.records import InputError
from thinksteer.rows import Row

Asked = tuple[str, list[str], str]
"""Question, options, category."""
Scores = list[float | None]
"""One for each question; None: the answer could not be read."""


def rule(args: argparse.Namespace, questions: Sequence[Asked]) -> Scores:
    return [rule_score(*asked) for asked in tqdm(questions, unit="question")]


def judge(args: argparse.Namespace, questions: Sequence[Asked]) -> Scores:
    asked = endpoint.judge_from(args, store.judge_path(args.artifacts, args.endpoint_model or ""))
    answers = dict(asked.answers([prompt(*one) for one in questions]))
    return [answered_score(answers[index]) for index in range(len(questions))]


SCORERS: dict[str, Callable[[argparse.Namespace, Sequence[Asked]], Scores]] = {"rule": rule, "judge": judge}


def parse_args() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument("--scorer", choices=SCORERS, default="rule", help="default: %(default)s")
    parser.add_argument("--data_file", type=Path, help="local JSONL, JSON or Parquet file (default: the hub's)")
    parser.add_argument("--split", default="test", help="of the hub's (default: %(default)s)")
    parser.add_argument("--n_questions", type=cli.positive_int, help="score only the first so many (default: all)")
    parser.add_argument("--name", help="of the file written (default: mmlu_pro.rule, mmlu_pro.<endpoint model>)")
    cli.add_artifacts(parser)
    endpoint.add_flags(parser)
    args = parser.parse_args()
    if args.scorer == "judge" and not args.endpoint_model:
        parser.error("--scorer judge needs --endpoint and --endpoint_model")
    return args


def main() -> None:
    args = parse_args()
    known = data.DATASETS["mmlu_pro"]
    table = rows.read(args.data_file) if args.data_file else data.from_hub(known, args.split)
    table = table[: args.n_questions]
    questions = [(*mmlu_pro.read(row)[:2], mmlu_pro.category(row)) for row in table]
    told = [mmlu_pro.score(row) for row in table]
    by = {"rule": "rule", "judge": args.endpoint_model}[args.scorer]
    output = store.questions_path(args.artifacts, args.name or f"mmlu_pro.{by}")
    settings = {"scorer": args.scorer, "split": args.split, "n_questions": args.n_questions}
    settings |= {"endpoint_model": args.endpoint_model, "prompt": PROMPT} if args.scorer == "judge" else {}
    with store.run(output, settings, [args.data_file] if args.data_file else [], args.overwrite) as run:
        scores = SCORERS[args.scorer](args, questions)
        final = [score if there is None else there for there, score in zip(told, scores, strict=True)]
        if not run.finished:
            write(output, table, final)
    print(f"{output}: {describe(final)}")
    both = [(str(index), one, other) for index, (one, other) in enumerate(zip(scores, told, strict=True))]
    if both := [(index, one, other) for index, one, other in both if one is not None and other is not None]:
        print(f"{by} against the scores that were there: {said(agreement(*zip(*both, strict=True)))}")


def write(output: Path, table: Sequence[Row], scores: Scores) -> None:
    """The rows that have a score. InputError if none has."""
    lines = [
        encode(row.values | {mmlu_pro.SCORE: score})
        for row, score in zip(table, scores, strict=True)
        if score is not None
    ]
    if not lines:
        raise InputError(f"{output}: no answer is a number from 0 to 1, so no question has a score: ask another model")
    with store.atomic(output) as partial:
        partial.write_bytes(b"".join(lines))


def describe(scores: Scores) -> str:
    kinds = Counter(mmlu_pro.kind(score) for score in scores if score is not None)
    unread = f"; {scores.count(None)} left out, as their answers are no number from 0 to 1" if None in scores else ""
    return f"{kinds.total()} questions, {kinds['reasoning']} of reasoning, {kinds['memory']} of memory{unread}"


def said(trust: Trust) -> str:
    def estimate(value: Estimate | None) -> str:
        return "undefined" if value is None else f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]"

    auc = "undefined" if trust.auc is None else f"{trust.auc:.3f}"
    return (
        f"{trust.n} questions, {estimate(trust.accuracy)} of the same kind, Cohen's kappa {estimate(trust.kappa)}, "
        f"AUC {auc}"
    )


if __name__ == "__main__":
    cli.run(main)
