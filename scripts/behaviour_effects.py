"""What steering does to each behaviour's share of the thinking, beside no steering and random directions (Figure 4).

    python -m scripts.annotate artifacts/steering/tiny-reasoner/arithmetic/backtracking*/*.jsonl --annotator keywords
    python -m scripts.behaviour_effects --control backtracking --annotations keywords

Reads   steering/<model>/<dataset>/<control>/*.jsonl, weight 0 among them, those of its random controls in
        <control>.random<seed>/, and the annotations of all (scripts.annotate). What stands before the first dot of a
        control's name is its own label
Writes  behaviours/<model>/<dataset>.<annotations>.effects: .json, .md and .csv (share of the labelled tokens), .png
        (bars); likewise .effects_sections, .effects_targets (with bars), .effects_counts (other measures),
        .effects_beyond (minus random controls) and .effects_curves.png (against the weight)
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from thinksteer import cli, models, store
from thinksteer.annotation import LABELS
from thinksteer.behaviour_figures import bars_figure, curves_figure
from thinksteer.behaviour_files import find_annotations, read_run
from thinksteer.behaviour_tables import contrasts_table, effects_table
from thinksteer.behaviours import MEASURES, TARGET_TOKENS, TOKENS, Run, contrasts, difference, effects, level, verdict
from thinksteer.report_files import write_tables
from thinksteer.steered import Sweep, sweeps
from thinksteer.steered_files import find_settings
from thinksteer.tables import shown


def parse_args() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_model(parser)
    parser.add_argument("--dataset", default="arithmetic", help="that was answered (default: %(default)s)")
    parser.add_argument("--control", nargs="+", action=cli.Distinct, help="default: all that are named after a label")
    parser.add_argument("--annotations", default="keywords", help="whose (default: %(default)s)")
    for name, end in (("negative", "least"), ("positive", "largest")):
        parser.add_argument(f"--{name}", type=cli.finite_float, help=f"weight of bars (default: the {end} there is)")
    cli.add_artifacts(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    model = models.of_flags(args).key
    found = find_settings(args.artifacts, model, args.dataset, args.control, LABELS)
    records = [one.records for one in found]
    annotations = find_annotations(args.artifacts, args.model, records, args.annotations)
    name = f"{store.slug(args.dataset)}.{store.slug(args.annotations)}.effects"
    path = store.behaviours_path(args.artifacts, model, name)
    settings = {"model": model, "dataset": args.dataset, "annotations": args.annotations, "control": args.control}
    settings |= {"negative": args.negative, "positive": args.positive}
    with store.run(path, settings, [*records, *annotations], args.overwrite) as run:
        pairs = zip(tqdm(found, desc="read", unit="file"), annotations, strict=True)
        runs = [read_run(*pair) for pair in pairs]
        if not run.finished:
            write(runs, args.negative, args.positive, f"{model} on {args.dataset}", path)
    for sweep in sweeps(runs):
        print("\n".join(summary(sweep, weight) for weight in sweep.ends(args.negative, args.positive) if weight))
    print(f"{path.with_suffix('.md')}: every label; .png: bars; {name}_beyond.md: minus random controls")


def write(runs: Sequence[Run], negative: float | None, positive: float | None, where: str, path: Path) -> None:
    """The tables and figures; the first table's .json, which carries the manifest, last."""
    drawn = sweeps(runs)
    for measure, picture in ((TOKENS, path), (TARGET_TOKENS, path.with_stem(f"{path.stem}_{TARGET_TOKENS.name}"))):
        with store.atomic(store.figure_path(picture)) as partial:
            bars_figure(drawn, negative, positive, measure, partial)
    with store.atomic(path.with_name(f"{path.stem}_curves.png")) as partial:
        curves_figure(drawn, TOKENS, partial)
    tables = [contrasts_table(f"{path.stem}_beyond", where, contrasts(runs))]
    for measure in reversed(MEASURES):
        name = path.stem if measure is TOKENS else f"{path.stem}_{measure.name}"
        tables.append(effects_table(name, where, measure, effects(runs, measure)))
    write_tables(tables, path.parent)


def summary(sweep: Sweep[Run], weight: float) -> str:
    """Whether a weight moves the control's own label as it should, and further than its random controls do."""
    run = next((one for one in sweep.runs if one.weight == weight), None)
    if run is None:
        return f"{sweep.title}: not steered with weight {weight:+g}"
    base = next(one for one in sweep.runs if not one.weight)
    shares = [level([one.labelled], run.label, TOKENS) for one in (base, run)]
    change = difference(base.labelled, run.labelled, run.label, TOKENS)
    found = verdict(run, sweep.random[sweep.runs.index(run)])
    wanted = "raised" if weight > 0 else "lowered"
    answer = {wanted: "yes", "without random control": "none to compare with"}.get(found, f"no ({found})")
    before, after = (shown(share and share.value, "share") for share in shares)
    return (
        f"{sweep.title}, weight {weight:+g}: {before} % -> {after} % of the tokens, {shown(change, 'change')}; "
        f"{wanted} apart from the random controls: {answer}; {run.degenerate:.1%} end in a loop"
    )


if __name__ == "__main__":
    cli.run(main)
