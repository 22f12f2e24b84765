"""In which layer does a direction change most what comes next? (Venhoff et al. 2025, figure 3.)

    python -m scripts.layer_effects
    python -m scripts.layer_effects --model deepseek-qwen-1.5b --annotations judge --control backtracking deduction

    python -m scripts.layer_effects --dataset arithmetic_and_facts --control reasoning_memory

Its vector is added in one layer at the one position before a span that has another label: a place where the behaviour
could have begun, but did not. Measured is how far the distribution of the next token moves (KL), beside that of random
vectors as long, and of estimates from gradients, which are cheaper for many vectors and agree more or less.

A direction between kinds of questions (reasoning_memory) is added, times --coef, whatever its method does with it, at
the prompt's last token and at the one before the answer, and each kind is told by itself. What the vector does to the
answer is also told as the gradient of its log-odds. The successor of LiReFs differentiates the divergence instead,
which is least where nothing is added: its gradient there is zero, and what was plotted is rounding.

Reads   responses/<model>/<dataset>.jsonl and its annotations, directions/<model>/<control>.safetensors
Writes  layers/<model>/<dataset>.<control>.json: effects of every response by layer, their means, the strongest layer,
        the estimates' agreement, the means of each kind; beside it a figure. Of several controls also
        layers/<model>/<dataset>.png
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm import tqdm

from thinksteer import cli, model_files, models, store
from thinksteer.activations import count_labels
from thinksteer.attribution import ESTIMATES, MEASURES, choose, layer_effects
from thinksteer.attribution_figures import Curves, effects_figure
from thinksteer.directions import random_like
from thinksteer.effect_means import MEANS, label_means, summary
from thinksteer.intervals import Estimate
from thinksteer.lengths import rule_text
from thinksteer.methods.method import Method
from thinksteer.models import ModelRef
from thinksteer.probe_figures import kinds_figure
from thinksteer.records import InputError, Passage
from thinksteer.stage import annotations, chosen_methods, load_model, load_passages

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def parse_args() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_model(parser)
    cli.add_loading(parser)
    parser.add_argument("--dataset", default="arithmetic", help="whose responses to read (default: %(default)s)")
    cli.add_controls(parser, default=["backtracking", "uncertainty-estimation"])
    cli.add_rules(parser)
    cli.add_annotations(parser)
    parser.add_argument("--coef", type=cli.finite_float, default=1.0, help="times the direction (default: %(default)s)")
    parser.add_argument("--n_responses", type=cli.positive_int, default=50, help="of each kind (default: %(default)s)")
    parser.add_argument("--n_spans", type=cli.positive_int, default=20, help="of each at most (default: %(default)s)")
    parser.add_argument("--seed", type=cli.natural_int, default=0, help="of the choice (default: %(default)s)")
    parser.add_argument(
        "--control_seeds",
        type=cli.natural_int,
        nargs="+",
        action=cli.Distinct,
        default=[0, 1, 2],
        help="of the random directions (default: %(default)s)",
    )
    parser.add_argument(
        "--n_nodes", type=cli.positive_int, default=4, help="of the integrated gradients (default: %(default)s)"
    )
    parser.add_argument(
        "--batch_tokens", type=cli.positive_int, default=1024, help="patches in one batch (default: %(default)s)"
    )
    cli.add_artifacts(parser)
    parser.set_defaults(min_examples=0)  # nothing is extracted here
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    ref = models.of_flags(args)
    responses = store.responses_path(args.artifacts, ref.key, args.dataset)
    named = ("coef", "n_responses", "n_spans", "seed", "control_seeds", "n_nodes", "annotations", "dtype")
    model, curves = None, []
    for method in chosen_methods(args, responses):
        path = store.layer_effects_path(args.artifacts, ref.key, args.dataset, method.name)
        source = store.direction_path(args.artifacts, ref.key, method.name)
        settings = {"model": ref.key, "source": ref.source, "dataset": args.dataset, "control": method.name}
        settings |= {"rule": rule_text(method.rule(args, ref.quantile))} | {name: getattr(args, name) for name in named}
        inputs = [responses, source, *annotations(args, responses), *model_files.fingerprint(ref)]
        with store.run(path, settings, inputs, args.overwrite) as run:
            if not run.finished:
                model = model or load_model(args, ref)
                run.runs_on(*models.runs_on(model))
                measure(args, ref, model.requires_grad_(False), method, path)
        about = store.read_json(path)
        curves.append(curves_of(about))
        print(f"{path}:\n{describe(about)}")
    if len(curves) > 1:
        draw(curves, path.with_name(f"{store.slug(args.dataset)}.png"))


def measure(args: argparse.Namespace, ref: ModelRef, model: "PreTrainedModel", method: Method, path: Path) -> None:
    """Write the effects of one direction; its figure first."""
    passages, source = probed(args, ref, method), store.direction_path(args.artifacts, ref.key, method.name)
    vectors = args.coef * store.read_direction(source)
    if not vectors.any() or not vectors.isfinite().all():
        raise InputError(f"--coef {args.coef:g} makes {source} zero, or too large: give another")
    controls = torch.stack([random_like(vectors, seed) for seed in args.control_seeds])
    site = method.sites[0]
    effects = partial(layer_effects, model, site=site, vectors=vectors, controls=controls)
    found = [
        effects(passage, n_nodes=args.n_nodes, max_batch_tokens=args.batch_tokens)
        for passage in tqdm(passages, unit="response")
    ]
    if not all(getattr(one, name).isfinite().all() for one in found for name in MEASURES):
        raise InputError(f"{source} times --coef {args.coef:g} has effects that are not finite: give a smaller one")
    about = {"control": method.name, "site": site, "coef": args.coef, "spans": count_labels(passages)}
    about |= summary(passages, found)
    if method.probes:
        about |= {"labels": label_means(passages, found)}
        means = {label: estimates(layers) for label, layers in about["labels"].items()}
        with store.atomic(store.figure_path(path)) as unfinished:
            kinds_figure(method.name, means, unfinished)
    else:
        draw([curves_of(about)], store.figure_path(path))
    store.write_json(path, about)


def probed(args: argparse.Namespace, ref: ModelRef, method: Method) -> list[Passage]:
    """The spans before which the vector is added: those that the method probes, of each kind of responses equally many;
    else those where the behaviour could have begun."""
    rule, some = method.rule(args, ref.quantile), (args.n_responses, args.n_spans, args.seed)
    if method.probes is None:
        own = [label for labels, factor in method.terms.items() if factor > 0 for label in labels]
        return choose(load_passages(args, ref, [method], rule), own, *some)
    if not load_passages(args, ref, [method], rule):
        own = " or ".join(method.labels)
        raise InputError(f"--control {method.name}: no question of --dataset {args.dataset} is of {own}: take another")
    passages = load_passages(args, ref, [replace(method, passages=method.probes)], rule)
    kinds = sorted({passage.spans[0].label for passage in passages})
    by_kind = [[passage for passage in passages if passage.spans[0].label == kind] for kind in kinds]
    return [passage for of_kind in by_kind for passage in choose(of_kind, (), *some)]


def curves_of(about: dict[str, Any]) -> Curves:
    return Curves(about["control"], estimates(about["layers"]), about["strongest"])


def estimates(layers: Sequence[dict[str, Any]]) -> dict[str, list[Estimate]]:
    return {name: [Estimate(**layer[name]) for layer in layers] for name in MEANS}


def draw(curves: Sequence[Curves], path: Path) -> None:
    with store.atomic(path) as partial:
        effects_figure(curves, partial)


def describe(about: dict[str, Any]) -> str:
    """The effects as lines for a person at the terminal."""
    spans = ", ".join(f"{count} {label}" for label, count in about["spans"].items())
    lines = [
        f"{len(about['responses'])} responses; before {spans}",
        "layer     KL [95 %]                  random  gradient  upstream",
    ]
    for one in about["layers"]:
        kl = Estimate(**one["kl"])
        interval = "" if kl.low is None else f"[{kl.low:z.4f}, {kl.high:z.4f}]"
        others = "".join(f"  {one[name]['value']:8.2g}" for name in ("random", "gradient", "upstream"))
        lines.append(f"{one['layer']:5d}  {kl.value:z8.4f} {interval:18s}{others}")
    excess = Estimate(**about["layers"][about["strongest"]]["excess"])
    apart = "" if excess.low is None or excess.low > 0 else ", but no more than random vectors"
    lines.append(f"strongest: layer {about['strongest']}{apart}")
    said = {
        name: ", ".join(f"{kind} {value:.2f}" for kind, value in about["agreement"][name].items() if value is not None)
        for name in ESTIMATES
    }
    lines += [described(label, layers) for label, layers in about.get("labels", {}).items()]
    return "\n".join([*lines, "agreement with KL:", *(f"  {name:10s}  {text}" for name, text in said.items())])


def described(label: str, layers: Sequence[dict[str, Any]]) -> str:
    """One label's spans in a line: the layer where its KL exceeds random vectors most, and where its odds move most."""
    kl = max(layers, key=lambda one: one["excess"]["value"])
    odds = max(layers, key=lambda one: abs(one["signed_log_odds"]["value"]))
    return (
        f"{label} ({kl['kl']['n']}): KL {kl['kl']['value']:.2g} in layer {kl['layer']}, random "
        f"{kl['random']['value']:.2g}; log-odds {odds['signed_log_odds']['value']:+.2f} in layer {odds['layer']}, size "
        f"{odds['log_odds']['value']:.2f}, random {odds['random_log_odds']['value']:.2f}"
    )


if __name__ == "__main__":
    cli.run(main)
