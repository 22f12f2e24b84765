"""Are a method's labels told apart inside the model? Linear probes in every layer, and pictures (SEAL, section 3).

    python -m scripts.separate_classes --control seal
    python -m scripts.separate_classes --model deepseek-qwen-1.5b --dataset gsm8k --control seal --layers 9 19 27

Reads   responses/<model>/<dataset>.jsonl, where the method reads: for seal the blank line before each thought
Writes  states/<model>/<dataset>.<control>.safetensors, unless scripts.hidden_states has made it from the same settings;
        directions/<model>/<dataset>.<control>.separability.json and .png: accuracies, AUCs and silhouettes by layer;
        directions/<model>/<dataset>.<control>.states.png: PCA of the states of some layers, t-SNE of four at most;
        directions/<model>/<control>.probe.safetensors: along what a probe tells the two sides apart, to be steered
        with: steer_eval.py --control <control> --direction <control>.probe
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from thinksteer import cli, models, store
from thinksteer.class_figures import View, separability_figure, states_figure
from thinksteer.methods import METHODS
from thinksteer.methods.method import Method
from thinksteer.records import InputError
from thinksteer.separability import (
    FOLDS,
    alike,
    direction,
    leads_to,
    perplexity_for,
    principal,
    probe_direction,
    separations,
    tsne,
)
from thinksteer.states import States, add_flags, make_states, read_states, settings

if TYPE_CHECKING:
    from torch import Tensor

IN_A_ROW = 4


def parse_args() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_model(parser)
    cli.add_loading(parser)
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
    add_flags(parser)
    parser.add_argument(
        "--layers",
        type=cli.natural_int,
        nargs="+",
        action=cli.Distinct,
        help="to picture (default: first, middle, last of those whose states differ)",
    )
    cli.add_artifacts(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    ref = models.of_flags(args)
    for control in args.control:
        method = METHODS[control]
        path = store.separability_path(args.artifacts, ref.key, args.dataset, control)
        probe = store.direction_path(args.artifacts, ref.key, f"{control}.probe")
        about, source = settings(args, ref, method), make_states(args, ref, method)
        with ExitStack() as stack:
            wanted = {path: about | {"layers": args.layers}, probe: about}
            runs = [stack.enter_context(store.run(one, of, [source], args.overwrite)) for one, of in wanted.items()]
            if not all(run.finished for run in runs):
                states = read_states(source, method)
                vectors = probe_of(states, method)
                texts = {name: str(value) for name, value in about.items()} | {"method": control}
                separate(args, method, states, vectors["direction"], path)
                store.write_safetensors(probe, vectors, texts | {"read_site": method.reading.site})
        print(f"{path}:\n{describe(store.read_json(path))}\n{probe}: along what the probe tells the two sides apart")


def probe_of(states: States, method: Method) -> dict[str, Tensor]:
    """The tensors of a direction's file: along what the probe tells the sides apart, as long as the method's own
    direction of the same examples, so that a weight means as much."""
    from thinksteer.directions import stretched

    labels = np.array(states.labels)
    found = probe_direction(states.read, leads_to(labels, method.terms))
    length = direction(states.read, labels, method.terms).norm(dim=-1)
    overall = states.read.double().mean(dim=0).norm(dim=-1)
    return {"direction": stretched(found, length).float(), "overall_norm": overall.float()}


def separate(args: argparse.Namespace, method: Method, states: States, probe: Tensor, path: Path) -> None:
    """Write the figures of one method and, last, its accuracies."""
    labels, questions = np.array(states.labels), np.array(states.questions)
    counts = {label: count for label in method.labels if (count := Counter(states.labels)[label])}
    varied = [layer for layer, one in enumerate(states.read.unbind(dim=1)) if not alike(one.double().numpy())]
    pictured = chosen_layers(args.layers, varied, states.read.shape[1])
    found = separations(states.read, labels, questions, method.terms, args.seed)
    cosines = angles(probe, direction(states.read, labels, method.terms))

    toward = ", ".join(label for names, factor in method.terms.items() if factor > 0 for label in names)
    with store.atomic(store.figure_path(path)) as partial:
        separability_figure(found, cosines, len(counts), toward, partial)
    with store.atomic(path.with_name(f"{path.stem.removesuffix('.separability')}.states.png")) as partial:
        states_figure(views(states.read, pictured, args.seed), labels, list(counts), partial)
    about = {"control": method.name, "site": method.reading.site, "labels": counts, "folds": FOLDS}
    about |= {"left_out": [label for label in method.labels if label not in counts]}
    about |= {"questions": len(set(questions)), "majority_share": max(counts.values()) / len(labels)}
    layers = [{"layer": layer, "cosine": cosines[layer]} | asdict(one) for layer, one in enumerate(found)]
    store.write_json(path, about | {"chance": 1 / len(counts), "toward": toward, "layers": layers})


def angles(probe: Tensor, mean_difference: Tensor) -> list[float | None]:
    """The cosine of two directions `[L, D]` in each layer, None where one is zero."""
    import torch

    pairs = zip(probe.double(), mean_difference, strict=True)
    return [torch.cosine_similarity(*pair, dim=0).item() if all(map(torch.any, pair)) else None for pair in pairs]


def chosen_layers(asked: list[int] | None, varied: list[int], num_layers: int) -> list[int]:
    """The layers to picture: those asked for, else spread over those whose states differ."""
    if asked is None:
        return sorted({varied[0], varied[len(varied) // 2], varied[-1]})
    if max(asked) >= num_layers:
        raise InputError(f"--layers {max(asked)}: the model's layers are 0 to {num_layers - 1}")
    return asked


def views(states: Tensor, layers: list[int], seed: int) -> Sequence[Sequence[View]]:
    """Rows: PCA of each layer, then t-SNE of each; of more layers than fit in a row PCA alone."""
    plain = {layer: states[:, layer].double().numpy() for layer in layers}
    made = []
    for layer, one in plain.items():
        points, (first, second) = principal(one)
        made.append(View(f"layer {layer}: PCA ({first:.0%} and {second:.0%} of the variance)", points))
    if len(layers) > IN_A_ROW:
        return [made[start : start + IN_A_ROW] for start in range(0, len(made), IN_A_ROW)]
    perplexity = perplexity_for(len(states))
    return [
        made,
        [View(f"layer {layer}: t-SNE (perplexity {perplexity})", tsne(one, seed)) for layer, one in plain.items()],
    ]


def describe(about: dict[str, Any]) -> str:
    """The figures as lines for a person at the terminal."""

    def shown(value: float | None) -> str:
        return "–" if value is None else f"{value:.2f}"

    counts = ", ".join(f"{count} {label}" for label, count in about["labels"].items())
    lines = [
        f"{counts}; balanced accuracy by guessing {about['chance']:.1%}, most frequent {about['majority_share']:.1%}"
    ]
    if about["left_out"]:
        lines.append(f"left out, as fewer than {FOLDS} questions have them: {', '.join(about['left_out'])}")
    for one in about["layers"]:
        names = ("balanced", "accuracy", "shuffled", "sides", "direction")
        said = ", ".join(f"{name} {one[name]['value']:.1%}" for name in names)
        lines.append(
            f"layer {one['layer']}: {said}, AUC of probe {shown(one['sides_auc']['value'])} and direction "
            f"{shown(one['direction_auc']['value'])}, their cosine {shown(one['cosine'])}, "
            f"silhouette {shown(one['silhouette'])}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    cli.run(main)
