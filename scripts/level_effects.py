"""What steering does to questions of different kinds, such as reasoning and memory (LiReFs, section 4).

    python -m scripts.level_effects --dataset arithmetic_and_facts --levels reasoning memory
    python -m scripts.level_effects --dataset arithmetic --control thinking_length_attn --levels "6 days" "4 days"

Accuracy of each kind (a record's `level`), responses without an answer and tokens, each beside no steering; of two
kinds also the first one's change minus the second's, from no steering and from the random controls: does steering touch
one kind more than the other? Every interval and p is by itself, nothing is corrected for looking at many settings: of
twenty settings that do nothing one is told apart.

Reads   steering/<model>/<dataset>/<control>/*.jsonl, weight 0 among them, and its random controls' in
        <control>.random<seed>/
Writes  levels/<model>/<dataset>: .json, .md and .csv by kind, .png; <dataset>.contrasts: .json, .md and .csv, kind
        against kind and minus random controls
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from thinksteer import cli, models, store
from thinksteer.level_effects import Contrast, Run, contrasts, effects, levels_in, verdict
from thinksteer.level_figures import levels_figure
from thinksteer.level_tables import contrasts_table, effects_table
from thinksteer.records import InputError
from thinksteer.report_files import write_tables
from thinksteer.steered_files import SteeredFile, find_settings
from thinksteer.tables import shown


def parse_args() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_model(parser)
    parser.add_argument("--dataset", default="arithmetic", help="that was answered (default: %(default)s)")
    parser.add_argument("--control", nargs="+", action=cli.Distinct, help="default: all that were steered with")
    parser.add_argument("--levels", nargs="+", action=cli.Distinct, help="kinds, in this order (default: all, a to z)")
    cli.add_artifacts(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    model = models.of_flags(args).key
    found = find_settings(args.artifacts, model, args.dataset, args.control)
    found = [one for one in found if one.weight or not one.random]
    runs = [read_run(one) for one in tqdm(found, desc="read", unit="file")]
    levels = chosen_levels(args.levels, runs, args.dataset)
    against = contrasts(runs, levels)
    path = store.level_effects_path(args.artifacts, model, args.dataset)
    settings = {"model": model, "dataset": args.dataset, "control": args.control, "levels": levels}
    with store.run(path, settings, [one.records for one in found], args.overwrite) as run:
        if not run.finished:
            write(runs, levels, against, f"{model} on {args.dataset}", path)
    for one in against:
        if not one.minus.weight:
            print(summary([other for other in against if other.run is one.run], levels))
    print(f"{path.with_suffix('.md')}: by kind; {path.stem}.contrasts.md: kind against kind; {path.stem}.png")


def read_run(file: SteeredFile) -> Run:
    """Without token ids, which take most of the memory and are not analysed."""
    records = [replace(record, token_ids=()) for record in store.iterate_records(file.records)]
    return Run(file.control, file.layer, file.weight, records)


def chosen_levels(asked: list[str] | None, runs: Sequence[Run], dataset: str) -> list[str]:
    """The kinds to show. InputError: one is not there, or there are none, or nothing is graded."""
    there = levels_in(runs)
    if not there:
        raise InputError(
            f"the records of {dataset} tell no level: of the data sets arithmetic, MATH, livecodebench (difficulty), "
            "arithmetic_and_facts and mmlu_pro (reasoning, memory) have kinds, or a file of yours with a column `level`"
        )
    if missing := [level for level in asked or () if level not in there]:
        raise InputError(f"--levels {', '.join(missing)}: {dataset} has {', '.join(there)}")
    if all(record.verdict is None for run in runs for record in run.records):
        raise InputError(f"the questions of {dataset} are open: nothing is graded, so there is no accuracy to change")
    return asked or there


def write(runs: Sequence[Run], levels: Sequence[str], against: Sequence[Contrast], where: str, path: Path) -> None:
    """The tables and the figure; the table whose .json carries the manifest last."""
    with store.atomic(store.figure_path(path)) as partial:
        levels_figure(runs, levels, partial)
    tables = [contrasts_table(f"{path.stem}.contrasts", where, levels, against)]
    write_tables([*tables, effects_table(path.stem, where, effects(runs, levels))], path.parent)


def summary(found: Sequence[Contrast], levels: Sequence[str]) -> str:
    """One line for a setting, from what it was held against; no steering comes first."""
    from_none = found[0]
    said = [f"{level} {shown(from_none.changes[level], 'change')}" for level in levels]
    if from_none.difference is not None:
        answer = {True: "yes", False: "no", None: "none to compare with"}[verdict(found)]
        said.append(f"difference {shown(from_none.difference, 'change')}, apart from the random controls': {answer}")
    run = from_none.run
    return f"{run.control}, {run.place}, weight {run.weight:+g}: {'; '.join(said)}"


if __name__ == "__main__":
    cli.run(main)
