"""How many thoughts of each kind responses have, and how long they are, by verdict and by difficulty (SEAL, section 3).

    python -m scripts.class_statistics --n_correct 0 --n_incorrect 0
    python -m scripts.class_statistics --model deepseek-qwen-1.5b --dataset MATH-500 --n_correct 0 --n_incorrect 0

Reads   responses/<model>/<dataset>.jsonl, all of it: a rule must not take only the first so many (0: all)
Writes  responses/<model>/<dataset>.<control>.classes: .json, .md and .csv (the table), .png, and .ndjson with a line
        for every labelled span: where it is, its label and its text
"""

import argparse
import json
from pathlib import Path

from thinksteer import cli, model_files, models, store
from thinksteer.class_figures import usage_figure
from thinksteer.classes import label_all, labels_of, span_rows, table, usages
from thinksteer.lengths import rule_text
from thinksteer.methods import METHODS
from thinksteer.methods.method import Method, Rule
from thinksteer.models import ModelRef
from thinksteer.report_files import write_tables
from thinksteer.thinking import Reader


def parse_args() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_model(parser)
    parser.add_argument("--trust_remote_code", action="store_true", help="run Python code that comes with the model")
    parser.add_argument("--dataset", default="arithmetic", help="whose responses to read (default: %(default)s)")
    cli.add_controls(parser, default=["seal"])
    cli.add_rules(parser)
    cli.add_artifacts(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    ref = models.of_flags(args)
    for control in args.control:
        path = store.classes_path(args.artifacts, ref.key, args.dataset, control)
        rule = METHODS[control].rule(args, ref.quantile)
        settings = {"model": ref.key, "source": ref.source, "template": ref.template.name, "dataset": args.dataset}
        settings |= {"control": control, "rule": rule_text(rule)}
        inputs = [store.responses_path(args.artifacts, ref.key, args.dataset), *model_files.fingerprint(ref)]
        with store.run(path, settings, inputs, args.overwrite) as run:
            if not run.finished:
                count(args, ref, METHODS[control], rule, path)
        print(path.with_suffix(".md").read_text(encoding="utf-8"))


def count(args: argparse.Namespace, ref: ModelRef, method: Method, rule: Rule, path: Path) -> None:
    """Write the spans, the figure and the table of one method; the table's .json, which carries the manifest, last."""
    reader = Reader.of(ref.template, models.load_tokenizer(ref, args.trust_remote_code))
    records = store.read_records(store.responses_path(args.artifacts, ref.key, args.dataset))
    responses = label_all(method, records, rule, reader)
    found = usages(responses, labels_of(method, responses))
    lines = [json.dumps(row, ensure_ascii=False) for row in span_rows(responses, reader)]
    store.write_text(path.with_suffix(".ndjson"), "\n".join(lines) + "\n")
    with store.atomic(store.figure_path(path)) as partial:
        usage_figure(found, partial)
    title = f"What {method.name} finds in the responses of {ref.key} to {args.dataset}"
    write_tables([table(path.stem, title, found)], path.parent)


if __name__ == "__main__":
    cli.run(main)
