"""Are a method's labels told apart inside the model? Linear probes in every layer, and pictures (SEAL, section 3).

    python -m scripts.separate_classes --control seal
    python -m scripts.separate_classes --model deepseek-qwen-1.5b --dataset gsm8k --control seal --layers 9 19 27

Reads   responses/<model>/<dataset>.jsonl, where the method reads: for seal the blank line before each thought
Writes  directions/<model>/<dataset>.<control>.separability.json and .png: accuracies and silhouettes by layer;
        directions/<model>/<dataset>.<control>.states.png: PCA and t-SNE of the states of some layers
"""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from thinksteer import cli, models, store
from thinksteer.activations import count_labels, read_at, span_states
from thinksteer.class_figures import View, separability_figure, states_figure
from thinksteer.lengths import rule_text
from thinksteer.methods import METHODS
from thinksteer.methods.method import Method
from thinksteer.models import ModelRef
from thinksteer.records import InputError
from thinksteer.separability import FOLDS, choose, perplexity_for, principal, separations, tsne
from thinksteer.stage import load_passages


def parse_args() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_model(parser)
    cli.add_loading(parser)
    parser.add_argument("--dataset", default="arithmetic", help="whose responses to read (default: %(default)s)")
    # A label that is held against all of a response has no other class to be told from.
    several = [name for name, method in METHODS.items() if len(method.labels) > 1]
    parser.add_argument(
        "--control",
        nargs="+",
        action=cli.Distinct,
        choices=several,
        default=["seal"],
        help="whose labels (default: %(default)s)",
    )
    cli.add_rules(parser)
    parser.add_argument("--min_examples", type=cli.positive_int, default=10, help="of each (default: %(default)s)")
    parser.add_argument(
        "--n_examples", type=cli.positive_int, default=500, help="of each at most (default: %(default)s)"
    )
    parser.add_argument("--seed", type=cli.natural_int, default=0, help="of choice and folds (default: %(default)s)")
    parser.add_argument(
        "--layers",
        type=cli.natural_int,
        nargs="+",
        action=cli.Distinct,
        help="to picture (default: first, middle, last)",
    )
    cli.add_batch_tokens(parser)
    cli.add_artifacts(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    ref = models.resolve(args.model, args.artifacts, args.template)
    responses = store.responses_path(args.artifacts, ref.key, args.dataset)
    for control in args.control:
        method = METHODS[control]
        path = store.separability_path(args.artifacts, ref.key, args.dataset, control)
        settings = {"model": ref.key, "source": ref.source, "dataset": args.dataset, "dtype": args.dtype}
        settings |= {"control": control, "rule": rule_text(method.rule(args, ref.quantile))}
        settings |= {name: getattr(args, name) for name in ("min_examples", "n_examples", "seed", "layers")}
        with store.run(path, settings, [responses, *models.fingerprint(ref)], args.overwrite) as run:
            if not run.finished:
                separate(args, ref, method, path)
        print(f"{path}:\n{describe(store.read_json(path))}")


def separate(args: argparse.Namespace, ref: ModelRef, method: Method, path: Path) -> None:
    """Write the figures of one method and, last, its accuracies."""
    passages = load_passages(args, ref, [method], method.rule(args, ref.quantile))
    passages = choose(passages, method.labels, args.n_examples, args.seed)
    model = models.load_model(ref, args.device, args.dtype, args.trust_remote_code)
    states = span_states(model, read_at(passages, method.reading), method.reading.site, args.batch_tokens)
    labels = np.array([span.label for passage in passages for span in passage.spans])
    questions = np.array([passage.id for passage in passages for _ in passage.spans])
    pictured = chosen_layers(args.layers, states.shape[1])
    found = separations(states, labels, questions, method.terms, args.seed)

    counts = count_labels(passages)
    toward = ", ".join(label for names, factor in method.terms.items() if factor > 0 for label in names)
    with store.atomic(store.figure_path(path)) as partial:
        separability_figure(found, len(counts), toward, partial)
    with store.atomic(path.with_name(f"{path.stem.removesuffix('.separability')}.states.png")) as partial:
        states_figure(views(states, pictured, args.seed), labels, method.labels, partial)
    about = {"control": method.name, "site": method.reading.site, "labels": counts, "folds": FOLDS}
    about |= {"questions": len(set(questions)), "majority_share": max(counts.values()) / len(labels)}
    layers = [{"layer": layer} | asdict(one) for layer, one in enumerate(found)]
    store.write_json(path, about | {"chance": 1 / len(counts), "toward": toward, "layers": layers})


def chosen_layers(asked: list[int] | None, num_layers: int) -> list[int]:
    if asked is None:
        return sorted({0, num_layers // 2, num_layers - 1})
    if max(asked) >= num_layers:
        raise InputError(f"--layers {max(asked)}: the model's layers are 0 to {num_layers - 1}")
    return asked


def views(states: Tensor, layers: list[int], seed: int) -> list[View]:
    """PCA of each layer, then t-SNE of each."""
    plain = {layer: states[:, layer].double().numpy() for layer in layers}
    made = []
    for layer, one in plain.items():
        points, (first, second) = principal(one)
        made.append(View(f"layer {layer}: PCA ({first:.0%} and {second:.0%} of the variance)", points))
    perplexity = perplexity_for(len(states))
    return made + [
        View(f"layer {layer}: t-SNE (perplexity {perplexity})", tsne(one, seed)) for layer, one in plain.items()
    ]


def describe(about: dict[str, Any]) -> str:
    """The accuracies as lines for a person at the terminal."""
    counts = ", ".join(f"{count} {label}" for label, count in about["labels"].items())
    lines = [
        f"{counts}; balanced accuracy by guessing {about['chance']:.1%}, most frequent {about['majority_share']:.1%}"
    ]
    for one in about["layers"]:
        names = ("balanced", "accuracy", "shuffled", "sides", "direction")
        said = ", ".join(f"{name} {one[name]['value']:.1%}" for name in names)
        lines.append(f"layer {one['layer']}: {said}, silhouette {one['silhouette']:.2f}")
    return "\n".join(lines)


if __name__ == "__main__":
    cli.run(main)
