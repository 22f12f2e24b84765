"""Stage 1: let a model answer questions and keep its chains of thought.

    python generate_responses.py
    python generate_responses.py --model deepseek-qwen-1.5b --dataset gsm8k --n_questions 2000 --max_length 4096

Reads   a dataset (--dataset, --data_file)
Writes  responses/<model>/<dataset>.jsonl, one record per sample; beside it a histogram of thinking lengths
"""

import argparse

from thinksteer import cli, models, store
from thinksteer.figures import length_histogram
from thinksteer.stage import Generator, load_problems, say


def parse_args() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_model(parser)
    cli.add_loading(parser)
    cli.add_engine(parser)
    cli.add_data(parser)
    cli.add_sampling(parser)
    cli.add_shard(parser)
    cli.add_artifacts(parser)
    # ThinkEdit, section 3: the first 2000 training questions of GSM8K, at most 4096 tokens.
    parser.set_defaults(split="train", n_questions=cli.UpTo(2000), max_length=4096)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    ref = models.of_flags(args)
    problems = load_problems(args, args.dataset)
    output = store.responses_path(args.artifacts, ref.key, args.dataset, args.shard)
    with Generator(args, ref) as generator:
        generator.write(output, args.dataset, problems)

    records = store.read_records(output)
    lengths = [record.length for record in records if record.length is not None]
    with store.atomic(store.figure_path(output)) as partial:
        length_histogram({ref.key: lengths}, partial)
    say(output, records, args.max_length, ref.template)


if __name__ == "__main__":
    cli.run(main)
