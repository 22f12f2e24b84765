"""A control vector (repeng): from the states of pairs of prompts that ask for opposite things, continued alike.

    python -m scripts.control_vectors --pairs effort --suffixes own
    python -m scripts.control_vectors --model qwen3-8b --dataset gsm8k --pairs careful --suffixes reasoning ordinary own
    python -m scripts.control_vectors --model qwen3-8b --pairs_file mine.json --vector mean --layers 8-20 --name mine

Reads   responses/<model>/<dataset>.jsonl for --suffixes own: beginnings of the model's own thinking
Writes  directions/<model>/<name>.safetensors: vectors of length 1, to be added to the outputs of --layers, other rows
        zero; <name>.contrast.json and .png: what it finds, also in pairs of suffixes that it was not made of

Steer with it: steer_eval.py --control control_vector --direction <name>, in shares of the residual stream's norm with
--scale overall. A file of pairs is {"frames": ["You are {}. ..."], "fillings": [["careful", "careless"], ...]}, of the
user's words alone: the model's own template stands around them, and no chat template is asked, so that none can put an
empty thinking block before the suffix.
"""

import argparse
import re
from contextlib import ExitStack
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from thinksteer import cli, contrast, model_files, models, store
from thinksteer.activations import entries_of, span_states
from thinksteer.components import VECTORS, WEIGHTED, component, right_side, signed
from thinksteer.contrast import OWN, PAIRS, SUFFIXES, Pair
from thinksteer.contrast_figures import contrast_figure
from thinksteer.layout import layout_of
from thinksteer.methods.control_vectors import NAME
from thinksteer.models import ModelRef
from thinksteer.records import InputError
from thinksteer.stage import load_model
from thinksteer.thinking import Reader

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MIDDLE = "1/3-2/3"


def parse_args() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_model(parser)
    cli.add_loading(parser)
    pairs = parser.add_mutually_exclusive_group(required=True)
    pairs.add_argument("--pairs", choices=PAIRS, help="ours; effort is for the embedded model, the others are not")
    pairs.add_argument("--pairs_file", type=Path, help="your own, JSON")
    parser.add_argument(
        "--suffixes",
        nargs="+",
        action=cli.Distinct,
        choices=SUFFIXES,
        default=["ordinary", "reasoning"],
        help="in equal parts (default: %(default)s)",
    )
    parser.add_argument("--dataset", default="arithmetic", help="whose responses are own (default: %(default)s)")
    parser.add_argument("--vector", choices=VECTORS, default="pca_diff", help="default: %(default)s")
    parser.add_argument(
        "--layers", default=MIDDLE, help="blocks, 8-20 or 8, or a part of the depth (default: %(default)s)"
    )
    parser.add_argument(
        "--n_pairs",
        type=cli.natural_int,
        default=512,
        help="at most, and a quarter more to judge it by; 0: each suffix cut at every token (default: %(default)s)",
    )
    parser.add_argument("--name", help="of the direction (default: that of --pairs or its file)")
    parser.add_argument("--seed", type=cli.natural_int, default=0, help="of the choice (default: %(default)s)")
    cli.add_batch_tokens(parser)
    cli.add_artifacts(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    ref = models.of_flags(args)
    name = args.name or args.pairs or args.pairs_file.stem
    path = store.direction_path(args.artifacts, ref.key, name)
    report = store.contrast_path(args.artifacts, ref.key, name)
    inputs = [*model_files.fingerprint(ref), *([args.pairs_file] if args.pairs_file else [])]
    if OWN in args.suffixes:
        inputs.append(store.responses_path(args.artifacts, ref.key, args.dataset))
    settings = models.identity(ref, args.mean_recurrence) | {"dtype": args.dtype, "pairs": args.pairs or "file"}
    settings |= {name: getattr(args, name) for name in ("suffixes", "vector", "layers", "n_pairs", "seed")}
    settings |= {"dataset": args.dataset} if OWN in args.suffixes else {}
    with ExitStack() as stack:
        runs = [stack.enter_context(store.run(one, settings, inputs, args.overwrite)) for one in (path, report)]
        if not all(run.finished for run in runs):
            make(args, ref, settings, path, report, runs)
    print(f"{path}:\n{describe(store.read_json(report))}")


def make(
    args: argparse.Namespace, ref: ModelRef, settings: dict[str, Any], path: Path, report: Path, runs: list[store.Run]
) -> None:
    """Write the vector, what it finds, and the figure."""
    pairs, held_out = pairs_of(args, ref)
    model = load_model(args, ref, *(run for run in runs if not run.finished))
    layers = chosen_layers(args.layers, layout_of(model).shape[0])
    states = states_of(model, pairs + held_out, args.batch_tokens)  # [2 (N + M), L, D]
    differences = states[0::2, layers].double() - states[1::2, layers].double()
    seen, unseen = differences[: len(pairs)], differences[len(pairs) :]
    log_probs = contrast.suffix_log_probs(model, pairs, args.batch_tokens) if args.vector in WEIGHTED else None
    found = component(seen, args.vector, log_probs)
    vectors = signed(found.vectors, seen)

    mean, norms = seen.mean(dim=0), states[: 2 * len(pairs)].mean(dim=0, dtype=torch.float64).norm(dim=-1)
    columns = {
        "mean_difference": mean.norm(dim=-1) / norms[layers],
        "cosine": torch.cosine_similarity(vectors, mean, dim=-1),
        "explained": found.explained,
        "right_side": right_side(vectors, seen),
        "held_out": right_side(vectors, unseen),
    }
    rows = zip(layers, *(column.tolist() for column in columns.values()), strict=True)
    about = {"vector": args.vector, "n_pairs": len(pairs), "n_held_out": len(held_out)}
    about |= {"layers": [dict(zip(("layer", *columns), row, strict=True)) for row in rows]}
    with store.atomic(store.figure_path(report)) as partial:
        contrast_figure(about["layers"], partial)
    store.write_json(report, about)

    direction = torch.zeros(states.shape[1:])
    direction[layers] = vectors.float()
    texts = {name: str(value) for name, value in settings.items()} | {"method": NAME, "read_site": "block_out"}
    texts |= {f"n_{label}": str(len(pairs)) for label in ("positive", "negative")}
    texts |= {package: version(package) for package in ("torch", "transformers")}
    store.write_safetensors(path, {"direction": direction, "overall_norm": norms.float()}, texts)


def pairs_of(args: argparse.Namespace, ref: ModelRef) -> tuple[list[Pair], list[Pair]]:
    """The pairs to make the vector of, and those to judge it by."""
    tokenizer = models.load_tokenizer(ref, args.trust_remote_code)
    reader = Reader.of(ref.template, tokenizer)
    texts = contrast.texts(args.pairs) if args.pairs else contrast.read_texts(args.pairs_file)
    suffixes = []
    for kind in args.suffixes:
        if kind == OWN:
            records = store.read_records(store.responses_path(args.artifacts, ref.key, args.dataset))
            suffixes.append(contrast.own_suffixes(records, reader))
        else:
            tokenise = lambda text: tokenizer(text, add_special_tokens=False).input_ids  # noqa: E731
            suffixes.append(contrast.written_suffixes(kind, ref.template, tokenise))
    seen, unseen = contrast.split(contrast.prompts(texts, ref.template, reader), suffixes)
    few = max(1, args.n_pairs // 4) if args.n_pairs else None
    return contrast.draw(*seen, args.n_pairs or None, args.seed), contrast.draw(*unseen, few, args.seed)


def states_of(model: "PreTrainedModel", pairs: list[Pair], max_batch_tokens: int | None) -> Tensor:
    """What the blocks put out at the last token of both sides of each pair: `[2 N, num_layers, hidden_size]`."""
    return entries_of(span_states(model, contrast.passages(pairs), "block_out", max_batch_tokens)[0], "block_out")


def chosen_layers(text: str, num_layers: int) -> list[int]:
    """Blocks "first-last" or one; or those whose middle lies in a part of the depth: "1/3-2/3", "0.25-0.75"."""
    parts = text.split("-")
    try:
        ends = [Fraction(part) for part in (parts[0], parts[-1])]
    except (ValueError, ZeroDivisionError):
        ends = []
    if all(re.fullmatch(r"\d+", part) for part in parts):
        layers = [layer for layer in range(num_layers) if ends and ends[0] <= layer <= ends[1]]
        fits = bool(ends) and ends[1] < num_layers
    else:
        layers = [at for at in range(num_layers) if ends and ends[0] <= Fraction(2 * at + 1, 2 * num_layers) <= ends[1]]
        fits = bool(ends) and ends[1] <= 1
    if len(parts) > 2 or not fits or not layers:
        known = f"blocks 0 to {num_layers - 1}, such as 0-{num_layers - 1}, or a part of the depth, such as {MIDDLE}"
        raise InputError(f"--layers {text}: give {known}")
    return layers


def describe(about: dict[str, Any]) -> str:
    """The figures as lines for a person at the terminal."""
    lines = [f"{about['vector']} of {about['n_pairs']} pairs, judged by {about['n_held_out']} of other suffixes"]
    lines += [
        f"layer {one['layer']}: {one['right_side']:.1%} of pairs on the right side, held out {one['held_out']:.1%}; "
        f"cosine with the mean difference {one['cosine']:.2f}, {one['explained']:.1%} of the squares explained; "
        f"mean difference {one['mean_difference']:.1%} of the mean state's norm"
        for one in about["layers"]
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    cli.run(main)
