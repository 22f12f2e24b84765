"""In which layer does a direction change most what comes next? (Venhoff et al. 2025, figure 3.)

    python -m scripts.layer_effects
    python -m scripts.layer_effects --model deepseek-qwen-1.5b --annotations judge --control backtracking deduction

Its vector is added in one layer at the one position before a span that has another label: a place where the behaviour
could have begun, but did not. Measured is how far the distribution of the next token moves (KL), beside that of random
vectors as long, and of estimates from gradients, which are cheaper for many vectors and agree more or less.

Reads   responses/<model>/<dataset>.jsonl and its annotations, directions/<model>/<control>.safetensors
Writes  layers/<model>/<dataset>.<control>.json: effects of every response by layer, their means, the strongest layer,
        the estimates' agreement; beside it a figure. Of several controls also layers/<model>/<dataset>.png
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm import tqdm

from thinksteer import cli, models, store
from thinksteer.activations import count_labels
from thinksteer.attribution import ESTIMATES, Effects, agreement, choose, layer_effects
from thinksteer.attribution_figures import Curves, effects_figure
from thinksteer.directions import random_like
from thinksteer.intervals import Estimate, mean
from thinksteer.lengths import rule_text
from thinksteer.methods.method import Method
from thinksteer.models import ModelRef
from thinksteer.records import Passage
from thinksteer.stage import annotations, chosen_methods, load_passages

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MEANS = ("kl", "random", "excess", "gradient", "integrated", "upstream", "signed_gradient")
"""What is averaged: `excess` is kl - random, `gradient` its size."""


def parse_args() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_model(parser)
    cli.add_loading(parser)
    parser.add_argument("--dataset", default="arithmetic", help="whose responses to read (default: %(default)s)")
    cli.add_controls(parser, default=["backtracking", "uncertainty-estimation"])
    cli.add_rules(parser)
    cli.add_annotations(parser)
    parser.add_argument("--coef", type=cli.finite_float, default=1.0, help="times the direction (default: %(default)s)")
    parser.add_argument("--n_responses", type=cli.positive_int, default=50, help="at most (default: %(default)s)")
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
    ref = models.resolve(args.model, args.artifacts, args.template)
    responses = store.responses_path(args.artifacts, ref.key, args.dataset)
    named = ("coef", "n_responses", "n_spans", "seed", "control_seeds", "n_nodes", "annotations", "dtype")
    model, curves = None, []
    for method in chosen_methods(args, responses):
        path = store.layer_effects_path(args.artifacts, ref.key, args.dataset, method.name)
        source = store.direction_path(args.artifacts, ref.key, method.name)
        settings = {"model": ref.key, "source": ref.source, "dataset": args.dataset, "control": method.name}
        settings |= {"rule": rule_text(method.rule(args, ref.quantile))} | {name: getattr(args, name) for name in named}
        inputs = [responses, source, *annotations(args, responses), *models.fingerprint(ref)]
        with store.run(path, settings, inputs, args.overwrite) as run:
            if not run.finished:
                if model is None:
                    model = models.load_model(ref, args.device, args.dtype, args.trust_remote_code)
                measure(args, ref, model.requires_grad_(False), method, path)
        about = store.read_json(path)
        curves.append(curves_of(about))
        print(f"{path}:\n{describe(about)}")
    if len(curves) > 1:
        draw(curves, path.with_name(f"{store.slug(args.dataset)}.png"))


def measure(args: argparse.Namespace, ref: ModelRef, model: "PreTrainedModel", method: Method, path: Path) -> None:
    """Write the effects of one direction; its figure first."""
    passages = load_passages(args, ref, [method], method.rule(args, ref.quantile))
    own = [label for labels, factor in method.terms.items() if factor > 0 for label in labels]
    passages = choose(passages, own, args.n_responses, args.n_spans, args.seed)
    vectors = args.coef * store.read_direction(store.direction_path(args.artifacts, ref.key, method.name))
    controls = torch.stack([random_like(vectors, seed) for seed in args.control_seeds])
    (site,) = method.sites
    effects = partial(layer_effects, model, site=site, vectors=vectors, controls=controls)
    found = [
        effects(passage, n_nodes=args.n_nodes, max_batch_tokens=args.batch_tokens)
        for passage in tqdm(passages, unit="response")
    ]
    about = {"control": method.name, "site": site, "coef": args.coef, "spans": count_labels(passages)}
    about |= summary(passages, found)
    draw([curves_of(about)], store.figure_path(path))
    store.write_json(path, about)


def summary(passages: Sequence[Passage], found: Sequence[Effects]) -> dict[str, Any]:
    """The means over spans of each response, their means over responses by layer, and what these come to.

    `strongest` is the layer with the largest `excess`, `argmax` that of each measure; `integration_error` the mean
    distance of the integrated gradients from `kl`, relative to the mean `kl`.
    """
    responses = [by_layer(one) for one in found]  # of each: [L] by measure
    ids = [passage.id for passage in passages]
    layers = [
        {"layer": layer} | {name: asdict(mean(ids, [one[name][layer] for one in responses], None)) for name in MEANS}
        for layer in range(len(responses[0]["kl"]))
    ]
    argmax = {name: max(layers, key=lambda one: one[name]["value"])["layer"] for name in MEANS[:-1]}
    kl, integrated = (torch.cat([getattr(one, name) for one in found]) for name in ("kl", "integrated"))
    each = [
        {"id": passage.id, "sample": passage.sample, "n_spans": len(passage.spans)} | means
        for passage, means in zip(passages, responses, strict=True)
    ]
    return {
        "strongest": argmax["excess"],
        "argmax": argmax,
        "agreement": agreement(found),
        "integration_error": float((integrated - kl).abs().mean() / kl.mean()),
        "layers": layers,
        "responses": each,
    }


def by_layer(effects: Effects) -> dict[str, list[float]]:
    """The means over a response's spans: of each of MEANS, one per layer."""
    kept = {name: getattr(effects, name) for name in ("kl", "random", "integrated", "upstream")}
    kept |= {"excess": effects.kl - effects.random}
    kept |= {"gradient": effects.gradient.abs(), "signed_gradient": effects.gradient}
    return {name: kept[name].double().mean(dim=0).tolist() for name in MEANS}


def curves_of(about: dict[str, Any]) -> Curves:
    means = {name: [Estimate(**layer[name]) for layer in about["layers"]] for name in MEANS}
    return Curves(about["control"], means, about["strongest"])


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
        interval = "" if kl.low is None else f"[{kl.low:.4f}, {kl.high:.4f}]"
        others = "".join(f"  {one[name]['value']:8.2g}" for name in ("random", "gradient", "upstream"))
        lines.append(f"{one['layer']:5d}  {kl.value:8.4f} {interval:18s}{others}")
    excess = Estimate(**about["layers"][about["strongest"]]["excess"])
    apart = "" if excess.low is None or excess.low > 0 else ", but no more than random vectors"
    lines.append(f"strongest: layer {about['strongest']}{apart}")
    said = {
        name: ", ".join(f"{kind} {value:.2f}" for kind, value in about["agreement"][name].items() if value is not None)
        for name in ESTIMATES
    }
    return "\n".join([*lines, "agreement with KL:", *(f"  {name:10s}  {text}" for name, text in said.items())])


if __name__ == "__main__":
    cli.run(main)
