"""A steering vector of others as a direction here: GGUF (repeng, llama.cpp, EasySteer), SEAL's .pt, lm-eval's steered.

Several are added up, times --coefficients; directions of ours, too.

    python -m scripts.import_vector seal_merged_vector.gguf --model deepseek-qwen-1.5b --name seal
    python -m scripts.import_vector execution.gguf reflection.gguf transition.gguf --coefficients 1 -1 -1 \\
        --model deepseek-qwen-1.5b --name seal
    python -m scripts.import_vector layer_20_transition_reflection_steervec.pt --model deepseek-qwen-1.5b --name seal
    python -m scripts.import_vector vector.pt --layer 20 --layer_numbering hidden_states --name mine
    python -m scripts.import_vector artifacts/directions/tiny-reasoner/effort.safetensors other.gguf \\
        --coefficients 1 -0.5 --name mixed --method control_vector

Reads   the files; the model's config.json, where it is within reach, for the shape
Writes  directions/<model>/<name>.safetensors, whose row l is added to the output of block l, counted from 0

SEAL's file, known by its name, points away from execution and counts layers as hidden_states does: it is negated, and
layer_20 is the output of block 19. Every other vector keeps its sign. Layers without a vector are zero.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from thinksteer import cli, model_files, models, store
from thinksteer.exchange import NUMBERINGS, Vectors, block, combine, read
from thinksteer.methods import METHODS
from thinksteer.records import InputError


def parse_args() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help=".gguf, .pt or .safetensors")
    cli.add_model(parser)
    parser.add_argument("--name", required=True, help="of the direction")
    parser.add_argument("--method", help="the control that it stands for (default: --name)")
    parser.add_argument(
        "--coefficients", type=cli.finite_float, nargs="+", metavar="C", help="of several files, which are added up"
    )
    parser.add_argument("--layer", type=cli.natural_int, help="of a tensor [hidden_size] that does not say its own")
    parser.add_argument(
        "--layer_numbering", choices=NUMBERINGS, help="how --layer counts (hidden_states: 1 is block 0)"
    )
    cli.add_artifacts(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    coefficients = args.coefficients or [1.0] * len(args.files)
    if len(coefficients) != len(args.files) or (args.coefficients is None and len(args.files) > 1):
        count = len(args.coefficients or [])
        raise InputError(f"--coefficients: {count} for {len(args.files)} files: give one for each")
    if args.name in METHODS and METHODS[args.name].sites == ("attn_out",):
        raise InputError(
            f"--name {args.name}: that one is added to what attention puts out, not blocks: name it otherwise"
        )
    ref = models.of_flags(args)
    layer = None if args.layer is None else block(args.layer, args.layer_numbering)
    vectors = [read(file, layer) for file in args.files]
    config = model_files.config(ref)
    shape = stated_shape(vectors, ref.location) if config is None else model_files.stated_shape(config, args.model)
    direction = combine(vectors, coefficients, shape)

    path = store.direction_path(args.artifacts, ref.key, args.name)
    about = {"method": args.method or args.name, "read_site": "block_out", "model": ref.key, "source": ref.source}
    about |= {"origin": ", ".join(one.origin for one in vectors)}
    about |= {"coefficients": " ".join(f"{coefficient:g}" for coefficient in coefficients)}
    with store.run(path, about, args.files, args.overwrite) as run:
        if not run.finished:
            hashes = {"origin_sha256": ",".join(store.sha256(file) for file in args.files)}
            store.write_safetensors(path, {"direction": direction}, about | hashes)
    for coefficient, one in zip(coefficients, vectors, strict=True):
        print(f"{coefficient:+g} times {one.origin}: to the output of block(s) {', '.join(map(str, sorted(one.rows)))}")
    unchecked = "" if config else f"; {ref.location} is out of reach, so the shape is the files' own"
    print(f"{path}: {list(direction.shape)}, norm at most {direction.norm(dim=-1).max():.3g}{unchecked}")


def stated_shape(vectors: Sequence[Vectors], location: str) -> tuple[int, int]:
    """The shape that files state with a vector for every layer, or all but the first, which repeng leaves out."""
    rows = {index: row for one in vectors for index, row in one.rows.items()}
    if len(rows) == 1 or not set(range(1, max(rows) + 1)) <= rows.keys():
        raise InputError(
            f"how many layers {location} has is not known: its config.json is neither here nor within reach. Download "
            f"it where there is a network (hf download {location} config.json) or give --model a local folder"
        )
    return max(rows) + 1, len(rows[max(rows)])


if __name__ == "__main__":
    cli.run(main)
