"""Published tables, number by number, against the records that are here: does each agree?

    python -m scripts.import_upstream --url v2        # ThinkEdit's own records; or one's own:
    python evaluate_models.py --model deepseek-qwen-1.5b --dataset gsm8k --n_samples 10 --max_length 16384
    python -m scripts.verify_paper

Reads   evaluations/<model>/<dataset>/default.jsonl, steering/deepseek-qwen-1.5b/MATH-500/seal/, those that are there
Writes  reports/published: .md, .csv and .json (published value, recomputed by upstream's definition and by ours with a
        95 % interval, verdict), reports/published_stated (what papers say of their own tables), reports/published.*.png

The numbers and their sources are data: thinksteer/published_tables.json. Numbers without records are listed, too.
"""

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from thinksteer import cli, store
from thinksteer.grading import Grader
from thinksteer.published import Published, published, stated
from thinksteer.records import InputError, Record
from thinksteer.report_files import draw, write_tables
from thinksteer.verification import Check, Origin, check, checks_table, stated_table
from thinksteer.verification_figures import published_figure

NAME = "published"


def main() -> None:
    args = parse()
    numbers, folder = published(), store.reports_path(args.artifacts)
    paths = [path for path in dict.fromkeys(path_of(args.artifacts, one) for one in numbers) if store.is_complete(path)]
    if not paths:
        raise InputError(
            f"no finished records of a published model under {args.artifacts}: fetch ThinkEdit's own by\n"
            "  python -m scripts.import_upstream --url v2\nor make some by\n"
            "  python evaluate_models.py --model deepseek-qwen-1.5b ThinkEdit-deepseek-qwen-1.5b --dataset gsm8k"
            " --n_samples 10 --max_length 16384"
        )
    with store.run(folder / f"{NAME}.json", {"regrade": args.regrade}, paths, args.overwrite) as run:
        if not run.finished:
            with Grader() as grader:
                checks = list(checked(args.artifacts, numbers, paths, grader if args.regrade else None))
            folder.mkdir(parents=True, exist_ok=True)
            for table in dict.fromkeys(one.table for one in numbers):
                drawn = [
                    one for one in checks if one.published.table == table and one.ours and one.published.unit == "%"
                ]
                if drawn:
                    draw(published_figure, drawn, folder / f"{NAME}.{table}.png", table)
            write_tables([stated_table(f"{NAME}_stated", stated()), checks_table(NAME, checks, args.regrade)], folder)
    print(said(store.read_json(run.output)["rows"]))
    print(f"wrote {run.output}, {NAME}.md, {NAME}_stated.md and figures beside it")


def parse() -> argparse.Namespace:
    parser = cli.parser(__doc__ or "")
    parser.add_argument("--regrade", action="store_true", help="ours by our grader, not by the records' verdicts")
    cli.add_artifacts(parser)
    return parser.parse_args()


def path_of(root: Path, one: Published) -> Path:
    if one.steering is None:
        return store.evaluation_path(root, one.model, one.dataset, "")
    return store.steering_path(
        root, one.model, one.dataset, one.steering.control, one.steering.weight, one.steering.layer
    )


def checked(root: Path, numbers: Sequence[Published], paths: Sequence[Path], grader: Grader | None) -> Iterator[Check]:
    """Every number in order; the records of one file are in memory at a time."""
    found: dict[Published, Check] = {}
    for path in tqdm(paths, unit="file"):
        records = store.read_records(path)
        regraded = None if grader is None else regrade(records, grader)
        origin: Origin = "upstream" if "imported_from" in (store.run_settings(path) or {}) else "own"
        for one in numbers:
            if path_of(root, one) == path:
                found[one] = check(one, records, origin, regraded)
    return (found.get(one, Check(one)) for one in numbers)


def regrade(records: Sequence[Record], grader: Grader) -> list[Record]:
    """The records with the verdicts of our grader, read from their text."""
    verdicts = grader.grade_all((one.response, one.reference, one.kind) for one in records)
    return [replace(one, correct=verdict.correct) for one, verdict in zip(records, verdicts, strict=True)]


def said(rows: Sequence[dict]) -> str:
    """How many of each table agree, and those that do not."""
    lines = []
    for table in dict.fromkeys(row["table"] for row in rows):
        counts = Counter(row["verdict"] for row in rows if row["table"] == table)
        lines.append(f"{table}: " + ", ".join(f"{counts[name]} {name}" for name in ("agree", "differ", "no records")))
    for row in rows:
        if row["verdict"] == "differ":
            ours, theirs = row["ours"], row["upstream's definition"]
            own = f", ours {ours['value']:.2f} [{ours['low']:.2f}, {ours['high']:.2f}]" if ours else ""
            what = f"{row['model']} on {row['data set']}, {row['measure']}"
            lines.append(f"  {what}: published {row['published']:g}, by its definition {theirs['value']:.2f}{own}")
    return "\n".join(lines)


if __name__ == "__main__":
    cli.run(main)
