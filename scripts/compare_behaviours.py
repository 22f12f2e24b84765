"""What models spend their thinking on, side by side: a base model and the thinking model made from it, say.

    python -m scripts.compare_behaviours --model Qwen/Qwen2.5-1.5B deepseek-qwen-1.5b --dataset MATH-500

Reads   responses/<model>/<dataset>.jsonl of each model and its annotations (scripts.annotate)
Writes  behaviours/<first model>/<dataset>.<annotations>.beside.<other models>: .json, .md and .csv (each label's share
        of sections and of tokens, and sections per response), .png; likewise .differences: each model minus the first,
        paired by question

Upstream compared 100 answers of each model, by sections (the note under the table has its figures). What a model does
not enclose as thinking, such as all that a base model writes, is annotated as if it were.
"""

from thinksteer import cli, models, store
from thinksteer.behaviour_figures import models_figure
from thinksteer.behaviour_files import find_annotations, read_labelled
from thinksteer.behaviour_tables import differences_table, models_table
from thinksteer.records import InputError
from thinksteer.report_files import write_tables


def main() -> None:
    parser = cli.parser(__doc__)
    cli.add_model(parser, several=["tiny-reasoner"])
    parser.add_argument("--dataset", default="arithmetic", help="that was answered (default: %(default)s)")
    parser.add_argument("--annotations", default="keywords", help="whose (default: %(default)s)")
    cli.add_artifacts(parser)
    args = parser.parse_args()
    if len(args.model) < 2:
        raise InputError("--model: give two models or more to compare")
    keys = [models.of_flags(args, name).key for name in args.model]
    records = [store.responses_path(args.artifacts, key, args.dataset) for key in keys]
    annotations = [
        find_annotations(args.artifacts, name, [path], args.annotations)[0]
        for name, path in zip(args.model, records, strict=True)
    ]
    others = "+".join(store.slug(key) for key in keys[1:])
    name = f"{store.slug(args.dataset)}.{store.slug(args.annotations)}.beside.{others}"
    path = store.behaviours_path(args.artifacts, keys[0], name)
    settings = {"models": keys, "dataset": args.dataset, "annotations": args.annotations}
    with store.run(path, settings, [*records, *annotations], args.overwrite) as run:
        if not run.finished:
            found = {
                key: read_labelled(*pair)[1]
                for key, pair in zip(keys, zip(records, annotations, strict=True), strict=True)
            }
            with store.atomic(store.figure_path(path)) as partial:
                models_figure(found, partial)
            differences = differences_table(f"{path.stem}.differences", args.dataset, found)
            write_tables([differences, models_table(path.stem, args.dataset, found)], path.parent)
    print(path.with_suffix(".md").read_text(encoding="utf-8"))
    print(path.with_name(f"{path.stem}.differences.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    cli.run(main)
