"""Are a model's directions different ones, and do they point at single tokens? (Venhoff et al. 2025.)

    python -m scripts.compare_directions
    python -m scripts.compare_directions --model deepseek-qwen-1.5b --direction backtracking uncertainty-estimation

Cosines of every two directions, layer by layer; and of each direction with the rows of the embedding and unembedding
matrices, as they are stored (without the final norm's weight): the tokens nearest to it and nearest to its opposite.
Where a direction has no vector (one that is read at the prompt's last token, in layer 0) a dash stands.
The matrices are read from the checkpoint, one at a time; beside it, 0.2 GB of its rows at once in float32 for a 32B
model.

Reads   directions/<model>/<direction>.safetensors, the model's checkpoint
Writes  directions/<model>/cosines.json and .png: all cosines, the tokens, the heat map of the means over layers;
        directions/<model>/cosines_tokens.png: the largest cosine with a token by layer, beside random directions
"""

from __future__ import annotations

import argparse
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thinksteer import cli, model_files, models, store
from thinksteer.direction_figures import Chance, Nearness, nearness_figure, similarity_figure
from thinksteer.models import ModelRef
from thinksteer.records import InputError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

MATRICES = {"embedding": "model.embed_tokens.weight", "unembedding": "lm_head.weight"}
N_RANDOM = 100  # random directions whose largest cosines are chance


def parse_args() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_model(parser)
    parser.add_argument("--trust_remote_code", action="store_true", help="run Python code that comes with the model")
    parser.add_argument(
        "--direction",
        nargs="+",
        action=cli.Distinct,
        help="names of files in directions/<model>/ (default: all that fit the model)",
    )
    parser.add_argument(
        "--n_tokens", type=cli.positive_int, default=5, help="nearest and opposite each (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=cli.natural_int, default=0, help="of the random directions (default: %(default)s)"
    )
    parser.add_argument(
        "--layer", type=cli.natural_int, help="whose tokens to print (default: where a cosine is largest)"
    )
    cli.add_artifacts(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    ref = models.of_flags(args)
    config = store.read_json(model_files.folder(ref) / "config.json")
    shape = model_files.stated_shape(config, args.model)
    if args.layer is not None and args.layer >= shape[0]:
        raise InputError(f"--layer {args.layer}: the model's layers are 0 to {shape[0] - 1}")
    directions = read_directions(args, ref, shape)
    path = store.cosines_path(args.artifacts, ref.key)
    settings = {"model": ref.key, "source": ref.source, "directions": list(directions)}
    settings |= {"n_tokens": args.n_tokens, "seed": args.seed}
    inputs = [store.direction_path(args.artifacts, ref.key, name) for name in directions]
    with store.run(path, settings, [*inputs, *model_files.fingerprint(ref)], args.overwrite) as run:
        if not run.finished:
            compare(args, ref, directions, bool(config.get("tie_word_embeddings")), path)
    print(f"{path}:\n{describe(store.read_json(path), args.layer)}")


def read_directions(args: argparse.Namespace, ref: ModelRef, shape: tuple[int, int]) -> dict[str, Tensor]:
    """The chosen directions by name, `[num_layers, hidden_size]` in float64."""
    folder = store.direction_path(args.artifacts, ref.key, "any").parent
    names = args.direction or sorted(file.stem for file in folder.glob("*.safetensors"))
    paths = {name: store.direction_path(args.artifacts, ref.key, name) for name in names}
    found = {name: store.read_direction(path).double() for name, path in paths.items()}
    unfit = [name for name, one in found.items() if one.shape != shape or not one.any()]
    if unfit and args.direction:
        shapes = f"{list(found[unfit[0]].shape)}, of {args.model} it would be {list(shape)}"
        raise InputError(f"{paths[unfit[0]]} is zero or of another model ({shapes}): leave it out")
    if unfit:
        print(f"left out, zero or of another model: {', '.join(unfit)}")
    if len(found) == len(unfit):
        raise InputError(f"{folder} holds no direction of the model: make it with stage 2")
    return {name: one for name, one in found.items() if name not in unfit}


def compare(args: argparse.Namespace, ref: ModelRef, directions: dict[str, Tensor], tied: bool, path: Path) -> None:
    """Write the figures and, last, all cosines."""
    import torch

    from thinksteer.directions import cosines, nearest, random_like

    vectors = torch.stack(list(directions.values()))  # [N, L, D]
    pairs, place = cosines(vectors, vectors), model_files.folder(ref)
    tied = tied or MATRICES["unembedding"] not in store.checkpoint_tensors(place)
    tokenizer = models.load_tokenizer(ref, args.trust_remote_code)
    control = random_like(torch.ones(N_RANDOM, vectors.shape[-1]), args.seed)
    matrices, shown = {}, []
    for matrix in ["embedding"] if tied else MATRICES:
        rows = store.read_tensor(place, MATRICES[matrix])[: len(tokenizer)]  # some are padded with rows of no token
        tokens = nearest_tokens(directions, rows, args.n_tokens, tokenizer)
        chance = nearest(control, rows, 1)[0].double()
        low, high = chance.quantile(torch.tensor([0.025, 0.975]).double()).tolist()
        about = Chance(chance.mean().item(), low, high)
        matrices[matrix] = {"random": asdict(about), "tokens": tokens}
        largest = {name: [largest_cosine(one) for one in tokens[name]] for name in directions}
        shown.append(Nearness("embedding = unembedding (tied)" if tied else matrix, largest, about))
    with store.atomic(store.figure_path(path)) as partial:
        similarity_figure(list(directions), pairs.nanmean(dim=0).tolist(), partial)
    with store.atomic(path.with_name("cosines_tokens.png")) as partial:
        nearness_figure(shown, partial)
    about = {"directions": list(directions), "tied": tied, "mean": numbers(pairs.nanmean(dim=0))}
    store.write_json(path, about | {"layers": [numbers(layer) for layer in pairs], "matrices": matrices})


def numbers(matrix: Tensor) -> list[list[float | None]]:
    """As JSON: None for NaN."""
    return [[None if math.isnan(value) else value for value in row] for row in matrix.tolist()]


def largest_cosine(layer: dict[str, Any]) -> float:
    """With a token; NaN where a direction has no vector."""
    return layer["nearest"][0]["cosine"] if layer["nearest"] else math.nan


def nearest_tokens(
    directions: dict[str, Tensor], rows: Tensor, count: int, tokenizer: PreTrainedTokenizerBase
) -> dict[str, list[dict[str, Any]]]:
    """By direction, for each layer: the tokens with the largest cosines, and those with the most negative ones; none
    where it has no vector."""
    import torch

    from thinksteer.directions import nearest

    places = [(name, layer) for name, one in directions.items() for layer, row in enumerate(one) if row.any()]
    flat = torch.stack([directions[name][layer] for name, layer in places])
    values, ids = (one.view(2, len(places), -1) for one in nearest(torch.cat([flat, -flat]), rows, count))

    def tokens(side: int, place: tuple[str, int]) -> list[dict[str, Any]]:
        if place not in places:
            return []
        index, sign = places.index(place), 1 - 2 * side
        pairs = zip(ids[side, index].tolist(), values[side, index].tolist(), strict=True)
        return [{"id": id, "token": tokenizer.decode([id]), "cosine": sign * value} for id, value in pairs]

    return {
        name: [
            {"layer": layer, "nearest": tokens(0, (name, layer)), "opposite": tokens(1, (name, layer))}
            for layer in range(len(one))
        ]
        for name, one in directions.items()
    }


def describe(about: dict[str, Any], layer: int | None) -> str:
    """The mean cosines, and the tokens of one layer, as lines for a person at the terminal."""
    names, matrices = about["directions"], about["matrices"]
    width = max(map(len, names))
    lines = ["cosines, mean over layers:", " " * (width + 4) + "".join(f" {n:5d}" for n in range(1, len(names) + 1))]
    lines += [
        f"{number:3d} {name:{width}}" + "".join(f" {'–' if value is None else f'{value:.2f}':>5}" for value in values)
        for number, (name, values) in enumerate(zip(names, about["mean"], strict=True), 1)
    ]
    if layer is None:
        each = [one for matrix in matrices.values() for name in names for one in matrix["tokens"][name]]
        layer = max((one for one in each if one["nearest"]), key=largest_cosine)["layer"]
    for matrix, found in matrices.items():
        said = "embedding = unembedding (tied)" if about["tied"] else matrix
        random = found["random"]
        chance = f"{random['mean']:.2f} [{random['low']:.2f}, {random['high']:.2f}]"
        lines.append(f"\ntokens of the {said} at layer {layer}; largest cosine of random directions {chance}:")
        for name in names:
            for side in ("nearest", "opposite"):
                tokens = found["tokens"][name][layer][side]
                listed = ", ".join(f"{one['token']!r} {one['cosine']:.2f}" for one in tokens) or "–"
                lines.append(f"{name if side == 'nearest' else '':{width}} {side:8s} {listed}")
    return "\n".join(lines)


if __name__ == "__main__":
    cli.run(main)
