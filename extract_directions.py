"""Stage 2: the direction from short to long thinking, one vector per layer (ThinkEdit, section 3.1).

    python extract_directions.py
    python extract_directions.py --model deepseek-qwen-1.5b --dataset gsm8k

Reads   responses/<model>/<dataset>.jsonl
Writes  directions/<model>/<control>.safetensors; beside it a figure of its norm and of the cosine of the two means
"""

import argparse
from contextlib import ExitStack
from importlib.metadata import version

from thinksteer import cli, models, store
from thinksteer.activations import class_means
from thinksteer.directions import cosine, mean_difference
from thinksteer.figures import direction_figure
from thinksteer.lengths import choose_rule, rule_text
from thinksteer.methods import METHODS
from thinksteer.stage import load_passages


def parse_args() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_model(parser)
    cli.add_loading(parser)
    parser.add_argument("--dataset", default="arithmetic", help="whose responses to read (default: %(default)s)")
    cli.add_controls(parser, default=list(METHODS))
    rule = parser.add_argument_group("which chains are long and which short (default: 1000 / 100, or the model's own)")
    rule.add_argument("--long_above", type=cli.positive_int, help="thinking tokens, exclusive")
    rule.add_argument("--short_below", type=cli.positive_int, help="thinking tokens, exclusive")
    rule.add_argument("--quantile", type=cli.share, help="instead: this share of the longest and of the shortest")
    rule.add_argument("--match", choices=["prompt_tokens"], help="with --quantile: among questions of like length")
    parser.add_argument("--min_examples", type=cli.positive_int, default=10, help="of each (default: %(default)s)")
    parser.add_argument(
        "--after_norm", action="store_true", help="mlp, last layer: read behind the final norm (upstream)"
    )
    cli.add_batch_tokens(parser)
    cli.add_artifacts(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    ref = models.resolve(args.model, args.artifacts, args.template)
    rule = choose_rule(ref.quantile, args.long_above, args.short_below, args.quantile, args.match)
    responses = store.responses_path(args.artifacts, ref.key, args.dataset)
    settings = {"model": ref.key, "source": ref.source, "dataset": args.dataset, "rule": rule_text(rule)}
    settings |= {"min_examples": args.min_examples, "after_norm": args.after_norm, "dtype": args.dtype}
    paths = {control: store.direction_path(args.artifacts, ref.key, control) for control in args.control}

    with ExitStack() as stack:
        inputs = [responses, *models.fingerprint(ref)]
        runs = {c: stack.enter_context(store.run(path, settings, inputs, args.overwrite)) for c, path in paths.items()}
        missing = [control for control, run in runs.items() if not run.finished]
        if missing:
            passages = load_passages(args, ref, missing[0], rule)  # the same for both controls
            model = models.load_model(ref, args.device, args.dtype, args.trust_remote_code)
            sites = [METHODS[control].read_site for control in missing]
            found = class_means(model, passages, sites, args.batch_tokens, args.after_norm)
            sources = {"responses_sha256": ",".join(store.sha256(file) for file in store.record_files(responses))}
            versions = {package: version(package) for package in ("torch", "transformers")}
            for control, site in zip(missing, sites, strict=True):
                long, short = found.means[site]["long"], found.means[site]["short"]
                direction = mean_difference(long, short)
                with store.atomic(store.figure_path(paths[control])) as partial:
                    direction_figure(direction.norm(dim=-1).tolist(), cosine(long, short).tolist(), partial)
                counts = {f"n_{label}": str(count) for label, count in found.counts.items()}
                about = {"method": control, "read_site": site, **{key: str(value) for key, value in settings.items()}}
                store.write_safetensors(paths[control], {"direction": direction}, about | counts | sources | versions)

    for path in paths.values():
        tensors, about = store.read_safetensors(path)
        norms = tensors["direction"].norm(dim=-1)
        print(
            f"{path}: {about['n_long']} long and {about['n_short']} short chains, {len(norms)} layers, "
            f"norm {norms.min():.3g} to {norms.max():.3g}"
        )


if __name__ == "__main__":
    cli.run(main)
