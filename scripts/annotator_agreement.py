"""Do two annotators see the same? Cohen's kappa of each label, character by character, and what is taken for what.

    python -m scripts.annotator_agreement keywords gpt-4.1
    python -m scripts.annotator_agreement keywords deepseek-qwen-14b --model deepseek-qwen-1.5b --dataset MATH-500

Reads   responses/<model>/<dataset>.jsonl and both annotators' annotations of it; responses that only one has are left
        out
Writes  annotations/<first>-<second>.<model>.<dataset>.agreement: .json, .md, .csv and .png
"""

import argparse
from pathlib import Path

from thinksteer import cli, model_files, models, store
from thinksteer.agreement import Agreement, Both, compare, table
from thinksteer.agreement_figures import confusion_figure
from thinksteer.annotation import thinking_text
from thinksteer.annotations import read_annotations
from thinksteer.models import ModelRef
from thinksteer.records import InputError
from thinksteer.report_files import write_tables
from thinksteer.thinking import Reader


def parse_args() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument("first", metavar="A", help="name of an annotator, a folder of annotations/")
    parser.add_argument("second", metavar="B", help="name of another")
    cli.add_model(parser)
    parser.add_argument("--trust_remote_code", action="store_true", help="run Python code that comes with the model")
    parser.add_argument("--dataset", default="arithmetic", help="whose responses to read (default: %(default)s)")
    cli.add_artifacts(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.first == args.second:
        raise InputError(f"{args.first} is given twice: name two annotators to compare")
    ref = models.of_flags(args)
    path = store.agreement_path(args.artifacts, args.first, args.second, ref.key, args.dataset)
    records = store.responses_path(args.artifacts, ref.key, args.dataset)
    sources = [store.annotations_path(args.artifacts, records, name) for name in (args.first, args.second)]
    settings = {"model": ref.key, "source": ref.source, "template": ref.template.name, "dataset": args.dataset}
    settings |= {"first": args.first, "second": args.second}
    inputs = [records, *sources, *model_files.fingerprint(ref)]
    with store.run(path, settings, inputs, args.overwrite) as run:
        if not run.finished:
            agreement = measure(args, ref, records, sources)
            with store.atomic(store.figure_path(path)) as partial:
                confusion_figure(agreement, args.first, args.second, partial)
            title = f"How {args.first} and {args.second} agree on the responses of {ref.key} to {args.dataset}"
            write_tables([table(path.stem, agreement, args.first, args.second, title)], path.parent)
    print(path.with_suffix(".md").read_text(encoding="utf-8"))


def measure(args: argparse.Namespace, ref: ModelRef, records: Path, sources: list[Path]) -> Agreement:
    reader = Reader.of(ref.template, models.load_tokenizer(ref, args.trust_remote_code))
    first, second = (read_annotations(source, records) for source in sources)
    responses = {(record.id, record.sample): record for record in store.iterate_records(records)}
    both = sorted(responses.keys() & first.keys() & second.keys())
    return compare(
        [Both(responses[key].response, *thinking_text(responses[key], reader), first[key], second[key]) for key in both]
    )


if __name__ == "__main__":
    cli.run(main)
