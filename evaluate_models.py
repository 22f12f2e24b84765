"""Stage 6: accuracy and thinking length of models on benchmarks, several samples per question (ThinkEdit, section 5).

    python evaluate_models.py --model tiny-reasoner ThinkEdit-tiny-reasoner
    python evaluate_models.py --model deepseek-qwen-1.5b ThinkEdit-deepseek-qwen-1.5b --dataset gsm8k MATH-500

Reads   models/<name>/ or the hub, datasets
Writes  evaluations/<model>/<dataset>/<instruction or default>.jsonl and metrics.json; results on the
        card of models/<name>/
"""

import argparse

from thinksteer import analysis, card, cli, models, store
from thinksteer.models import EDITED, ModelRef
from thinksteer.stage import Generator, load_problems, say


def parse_args() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_model(parser, several=["tiny-reasoner", f"{EDITED}tiny-reasoner"])
    cli.add_loading(parser)
    cli.add_engine(parser)
    cli.add_data(parser, several=True)
    cli.add_sampling(parser)
    cli.add_shard(parser)
    cli.add_artifacts(parser)
    parser.set_defaults(n_samples=10, max_length=16384)  # ThinkEdit, section 5
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    refs = [models.of_flags(args, name) for name in args.model]
    asked = {dataset: load_problems(args, dataset) for dataset in args.dataset}  # all, before any is answered
    for ref in refs:
        with Generator(args, ref) as generator:
            for dataset, problems in asked.items():
                output = store.evaluation_path(args.artifacts, ref.key, dataset, args.instruction, args.shard)
                print(f"{ref.key} on {dataset}: {len(problems)} questions, {args.n_samples} samples each")
                generator.write(output, dataset, problems)
                summarise(args, ref, dataset)
        card.refresh(args.artifacts, ref)


def summarise(args: argparse.Namespace, ref: ModelRef, dataset: str) -> None:
    """metrics.json, once every shard is there."""
    whole = store.evaluation_path(args.artifacts, ref.key, dataset, args.instruction)
    if store.is_complete(whole):
        records = analysis.outcomes(store.read_records(whole), loops=True, think_open=ref.template.open)
        about = {"model": ref.key, "dataset": dataset}
        path = store.metrics_path(args.artifacts, ref.key, dataset, args.instruction)
        store.write_json(path, about | analysis.metrics(records, args.max_length))
        say(whole, records, args.max_length, ref.template)


if __name__ == "__main__":
    cli.run(main)
