"""How many questions, with how many samples each, show a change in accuracy of 1, 2, 5 or 10 points?

    python -m scripts.questions_needed --model deepseek-qwen-1.5b ThinkEdit-deepseek-qwen-1.5b --dataset gsm8k

Reads   evaluations/<model>/<dataset>/ of a model and of an edit of it, a pilot: two samples each of some 200 questions
Writes  reports/<dataset>.<model>.<edit>.questions_needed: .md, .csv and .json

Paired: the edit answers the base's questions. Unpaired: each has its own, as where a figure is held against one from a
paper. A larger change comes with a larger spread: plan with a pilot of the edit in question.
"""

import argparse

from thinksteer import cli, store
from thinksteer.analysis import graded
from thinksteer.power import LEAST, Spread, questions_needed, spread
from thinksteer.records import InputError, Record
from thinksteer.report_files import write_tables
from thinksteer.tables import Column, Table

POINTS = (1, 2, 5, 10)
SAMPLES = (1, 2, 4, 10)


def main() -> None:
    args = parse()
    names = [store.slug(model) for model in args.model]
    paths = [store.evaluation_path(args.artifacts, model, args.dataset, args.instruction) for model in names]
    name = ".".join([store.slug(args.dataset), *names, "questions_needed"])
    folder = store.reports_path(args.artifacts)
    settings = {"models": names, "dataset": args.dataset, "instruction": args.instruction}
    with store.run(folder / f"{name}.json", settings, paths, args.overwrite) as run:
        if not run.finished:
            base, edit = (graded(store.read_records(path)) for path in paths)
            write_tables([table(name, " and ".join(names), base, edit)], folder)
    print((folder / f"{name}.md").read_text(encoding="utf-8"))


def parse() -> argparse.Namespace:
    parser = cli.parser(__doc__ or "")
    parser.add_argument("--model", nargs=2, action=cli.Distinct, required=True, help="a model and an edit of it")
    parser.add_argument("--dataset", default="arithmetic", help="that both have answered (default: %(default)s)")
    parser.add_argument("--instruction", default="", help="as given to evaluate_models.py (default: none)")
    cli.add_artifacts(parser)
    return parser.parse_args()


def table(name: str, models: str, base: list[Record], edit: list[Record]) -> Table:
    """A row per size of the change. InputError: the two share no response, or have one sample per question."""
    before = {(one.id, one.sample): one.correct for one in base}
    pairs = [
        (one.id, float(one.correct) - before[one.id, one.sample]) for one in edit if (one.id, one.sample) in before
    ]
    if not pairs:
        raise InputError(f"{models} share no (question, sample): evaluate both on the same questions")
    paired = spread(*zip(*pairs, strict=True))
    unpaired = of_accuracy(base) + of_accuracy(edit)
    kinds = {"paired": paired, "unpaired": unpaired}
    columns = [Column(f"{kind} x {samples}", "count") for kind in kinds for samples in SAMPLES]
    rows = [
        (f"{points}", *(questions_needed(of, points / 100, samples) for of in kinds.values() for samples in SAMPLES))
        for points in POINTS
    ]
    note = (
        f"Questions x samples of each that show the change with a power of 80 %, {LEAST} at least; unpaired: for each"
        f" model. Variance of the"
        f" paired change: {paired.between:.4f} between questions, {paired.within:.4f} within, of {len(pairs)} pairs."
    )
    return Table(name, f"Questions needed: {models}", (Column("points", "text"), *columns), tuple(rows), note)


def of_accuracy(records: list[Record]) -> Spread:
    return spread([one.id for one in records], [float(one.correct) for one in records])


if __name__ == "__main__":
    cli.run(main)
