"""A direction as a steering vector for others: GGUF (repeng, llama.cpp, EasySteer), SEAL's .pt, lm-eval's steered.

    python -m scripts.export_vector --control thinking_length_mlp --format gguf --output vector.gguf
    python -m scripts.export_vector --control thinking_length_mlp --format lm-eval --direction_weight 0.4 --output v.pt
    python -m scripts.export_vector --model deepseek-qwen-1.5b --control seal --format seal --layer 19 \\
        --layer_numbering block --output layer_20_transition_reflection_steervec.pt

Reads   directions/<model>/<control>.safetensors
Writes  the file, for each layer whose vector is not zero, applied as in the control's paper or as the flags say

SEAL's file is the negative, and named after hidden_states: layer_20 is the output of block 19. llama.cpp and lm-eval
steer at every position, where the method may ask for some only. GGUF and SEAL's file add to block outputs; lm-eval's
adds or ablates (--operation amplify --direction_weight -1) at any --site.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from thinksteer import cli, interventions, model_files, models, store
from thinksteer.exchange import (
    FORMATS,
    NUMBERINGS,
    added_rows,
    block,
    check_output,
    lm_eval_entries,
    write_gguf,
    write_lm_eval,
    write_seal,
)
from thinksteer.methods import METHODS
from thinksteer.methods.method import Method
from thinksteer.records import EVERYWHERE, Edit, InputError

if TYPE_CHECKING:
    from torch import Tensor


def parse_args() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_model(parser)
    parser.add_argument("--control", required=True, help="name of the direction")
    parser.add_argument("--format", choices=FORMATS, required=True)
    parser.add_argument("--output", type=Path, required=True, metavar="FILE")
    parser.add_argument(
        "--direction_weight", type=cli.finite_float, default=1.0, help="times it (default: %(default)s)"
    )
    parser.add_argument(
        "--layer",
        type=cli.natural_int,
        nargs="+",
        action=cli.Distinct,
        help="only these (default: all that are not zero)",
    )
    parser.add_argument(
        "--layer_numbering", choices=NUMBERINGS, help="how --layer counts (hidden_states: 1 is block 0)"
    )
    interventions.add_flags(parser)
    cli.add_artifacts(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    ref = models.of_flags(args)
    source = store.direction_path(args.artifacts, ref.key, args.control)
    edits = edits_of(source, args)
    check_output(args.format, args.output, edits)
    config = model_files.config(ref) or {}
    if (blocks := config.get("num_hidden_layers", len(edits[0].vectors))) != len(edits[0].vectors):
        raise InputError(f"{source} is of {len(edits[0].vectors)} layers, {ref.location} has {blocks} blocks")

    settings = {"control": args.control, "format": args.format, "weight": args.direction_weight}
    settings |= {"steering": interventions.named(args.control, args), "layers": edits[0].layers}
    with store.run(args.output, settings, [source], args.overwrite) as run:
        if not run.finished and args.format == "lm-eval":
            write_lm_eval(args.output, edits)
        elif not run.finished and args.format == "seal":
            write_seal(args.output, added_rows(edits))
        elif not run.finished:
            about = {"model_hint": config.get("model_type", "unknown"), "method": args.control}
            write_gguf(args.output, added_rows(edits), about)
    warn(args, edits)


def edits_of(source: Path, args: argparse.Namespace) -> list[Edit]:
    """What the direction does at every position: as the control that it stands for, where the flags do not say."""
    about = store.read_safetensors(source)[1]
    # A direction of another name is added where it was read, as that of SEAL is.
    known = METHODS.get(about.get("method")) or replace(METHODS["seal"], sites=(about.get("read_site"),))
    method = interventions.chosen(known, args)
    if args.tokens == "response":
        raise InputError("--tokens response: these formats hold no rule about tokens, they steer at all of them")
    vectors = interventions.read_vectors(source, method, args)
    layers = chosen_layers(source, vectors, method, args)
    weighted = args.direction_weight * vectors[layers]
    if not all(row.any() and row.isfinite().all() for row in weighted):
        raise InputError(f"--direction_weight {args.direction_weight:g} makes {source} zero, or too large for float32")
    return method.edits(vectors, layers, args.direction_weight, EVERYWHERE)


def chosen_layers(source: Path, vectors: Tensor, method: Method, args: argparse.Namespace) -> list[int]:
    """The layers asked for whose vector is not zero."""
    entering = method.sites == ("block_in",) and args.layer_numbering == "hidden_states"  # entry i enters block i
    asked = [layer if entering else block(layer, args.layer_numbering) for layer in args.layer or []]
    for index in asked:
        if index >= len(vectors):
            raise InputError(f"--layer: there is no block {index}, the direction has {len(vectors)}, counted from 0")
    layers = [layer for layer in sorted(asked) or range(len(vectors)) if vectors[layer].any()]
    if not layers:
        raise InputError(f"{source}: the row of each --layer is zero, there is nothing to export")
    return layers


def warn(args: argparse.Namespace, edits: list[Edit]) -> None:
    """Say what was written, and what programs that read it will not do."""
    for edit in edits:
        what = f"{edit.operation} {edit.coef:g} times {args.control}"
        print(f"{args.output}: {what} at {edit.site} of block(s) {', '.join(map(str, edit.layers))}")
    if args.format == "gguf" and 0 in added_rows(edits):
        print("  llama.cpp cannot steer block 0 and refuses the whole file: for it, leave that block out with")
        print(f"  --layer_numbering block --layer {' '.join(map(str, edits[0].layers[1:]))}")
    if args.format == "lm-eval" and len(lm_eval_entries(edits)) > 1:
        print("  lm-eval 0.4.8 to 0.4.9.1 would add the last of these vectors at every block: use a later one")


if __name__ == "__main__":
    cli.run(main)
