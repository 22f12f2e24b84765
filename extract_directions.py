"""Stage 2: directions, one vector per layer: from short to long thinking (ThinkEdit, section 3.1), or another method's.

    python extract_directions.py
    python extract_directions.py --model deepseek-qwen-1.5b --dataset gsm8k

Reads   responses/<model>/<dataset>.jsonl
Writes  directions/<model>/<control>.safetensors; beside it a figure of its norm and of the cosine of the means
"""

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from thinksteer import cli, model_files, models, store
from thinksteer.figures import direction_figure
from thinksteer.lengths import rule_text
from thinksteer.methods import METHODS, family
from thinksteer.methods.method import Method
from thinksteer.models import ModelRef
from thinksteer.records import Passage
from thinksteer.stage import annotations, chosen_methods, load_model, load_passages

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def parse_args() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_model(parser)
    cli.add_loading(parser)
    parser.add_argument("--dataset", default="arithmetic", help="whose responses to read (default: %(default)s)")
    cli.add_controls(parser, default=["thinking_length_attn", "thinking_length_mlp"])
    cli.add_rules(parser)
    parser.add_argument("--min_examples", type=cli.positive_int, default=10, help="of each (default: %(default)s)")
    parser.add_argument(
        "--after_norm", action="store_true", help="block outputs, last layer: read behind the final norm (upstream)"
    )
    parser.add_argument(
        "--min_reroll_rate",
        type=cli.share,
        help="only spans that scripts.reroll_spans drew again so often (paper: 0.8)",
    )
    parser.add_argument(
        "--unscaled",
        action="store_true",
        help="as long as the difference comes out, where a method's paper rescales it",
    )
    cli.add_annotations(parser)
    parser.add_argument("--name", help="of the direction, with one --control (default: the control's)")
    cli.add_batch_tokens(parser)
    cli.add_artifacts(parser)
    args = parser.parse_args()
    if args.name and len(args.control) > 1:
        parser.error("--name goes with one --control")
    return args


def main() -> None:
    args = parse_args()
    ref = models.of_flags(args)
    responses = store.responses_path(args.artifacts, ref.key, args.dataset)
    paths = {one: store.direction_path(args.artifacts, ref.key, args.name or one) for one in args.control}
    settings = models.identity(ref, args.mean_recurrence) | {"dataset": args.dataset}
    settings |= {"min_examples": args.min_examples, "after_norm": args.after_norm, "dtype": args.dtype}
    settings |= {"min_reroll_rate": args.min_reroll_rate, "annotations": args.annotations, "unscaled": args.unscaled}
    rules = {one: {"rule": rule_text(METHODS[one].rule(args, ref.quantile))} for one in args.control}
    chosen = chosen_methods(args, responses)

    with ExitStack() as stack:
        inputs = [responses, *annotations(args, responses), *model_files.fingerprint(ref)]
        runs = {
            one: stack.enter_context(
                store.run(path, settings | rules[one], [*inputs, *rerolls(args, ref, one)], args.overwrite)
            )
            for one, path in paths.items()
        }
        missing = [method for method in chosen if not runs[method.name].finished]
        if missing:
            sources = {"responses_sha256": ",".join(store.sha256(file) for file in store.record_files(responses))}
            sources |= {package: version(package) for package in ("torch", "transformers")}
            groups = [(methods, examples(args, ref, methods)) for methods in alike(missing)]  # before a model is loaded
            model = load_model(args, ref, *(run for run in runs.values() if not run.finished))
            for methods, passages in groups:
                about = {name: str(value) for name, value in (settings | rules[methods[0].name]).items()} | sources
                extract(args, model, methods, passages, paths, about)

    for path in paths.values():
        tensors, about = store.read_safetensors(path)
        norms = tensors["direction"].norm(dim=-1)
        counts = " and ".join(f"{value} {name[2:]}" for name, value in sorted(about.items()) if name.startswith("n_"))
        print(f"{path}: {counts}, {len(norms)} layers, norm {norms.min():.3g} to {norms.max():.3g}")


def rerolls(args: argparse.Namespace, ref: ModelRef, control: str) -> list[Path]:
    """The file that --min_reroll_rate reads, if it was given."""
    path = store.rerolls_path(args.artifacts, ref.key, args.dataset, family(METHODS[control]))
    return [path] if args.min_reroll_rate else []


def alike(methods: Sequence[Method]) -> list[list[Method]]:
    """The methods that read the same positions of the same spans: one pass of the model serves each group."""
    groups: dict[object, list[Method]] = {}
    for method in methods:
        anywhere = replace(method.reading, site="block_out")
        groups.setdefault((method.passages, anywhere), []).append(method)
    return list(groups.values())


def examples(args: argparse.Namespace, ref: ModelRef, methods: Sequence[Method]) -> list[Passage]:
    """The passages that methods label which read the same positions."""
    rates = [store.reroll_rates(path) for path in rerolls(args, ref, methods[0].name)]
    kept = {span for span, rate in rates[0].items() if rate >= args.min_reroll_rate} if rates else None
    return load_passages(args, ref, methods, methods[0].rule(args, ref.quantile), kept)


def extract(
    args: argparse.Namespace,
    model: "PreTrainedModel",
    methods: Sequence[Method],
    passages: Sequence[Passage],
    paths: dict[str, Path],
    about: dict[str, str],
) -> None:
    """Write the directions of methods that read the same positions."""
    from thinksteer.activations import class_means, count_labels, read_at
    from thinksteer.directions import contrast, cosine, pooled_mean, rescaled

    spans = read_at(passages, methods[0].reading)
    counts = count_labels(spans)
    sites = list(dict.fromkeys(method.reading.site for method in methods))
    found = class_means(model, spans, sites, args.batch_tokens, args.after_norm)
    for method in methods:
        means = found.means[method.reading.site]
        direction = contrast(means, counts, method.terms)
        toward = contrast(means, counts, {labels: factor for labels, factor in method.terms.items() if factor > 0})
        angle = cosine(toward, toward - direction)
        if method.length_of and not args.unscaled:
            direction = rescaled(direction, pooled_mean(means, counts, [method.length_of]))
        with store.atomic(store.figure_path(paths[method.name])) as partial:
            direction_figure(direction.norm(dim=-1).tolist(), angle.tolist(), partial)
        own = {"method": method.name, "read_site": method.reading.site}
        own |= {f"n_{label}": str(counts.get(label, 0)) for labels in method.terms for label in labels}
        norms = pooled_mean(means, counts, method.labels).norm(dim=-1)
        tensors = {"direction": direction.float(), "overall_norm": norms.float()}
        store.write_safetensors(paths[method.name], tensors, own | about)


if __name__ == "__main__":
    cli.run(main)
