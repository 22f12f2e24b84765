"""Stage 5: remove the direction from what chosen heads write (ThinkEdit, section 4.2). No GPU, no model load.

    python edit_weights.py
    python edit_weights.py --model deepseek-qwen-1.5b --heads published
    python edit_weights.py --control_heads random --seed 1 --name tiny-reasoner-random-heads-1

Reads   heads/<model>/<control>.json, directions/<model>/<control>.safetensors, the model's checkpoint
Writes  models/<name>/: the checkpoint with only the chosen columns of `o_proj` changed, edit.json, a model card
"""

from __future__ import annotations

import argparse
import random
from collections import defaultdict
from dataclasses import replace
from functools import partial
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thinksteer import card, cli, model_files, models, store
from thinksteer.models import EDITED, ModelRef
from thinksteer.published import published_heads
from thinksteer.records import InputError
from thinksteer.tokenizer_files import keep_ids

if TYPE_CHECKING:
    from torch import Tensor

Heads = list[tuple[int, int]]


def parse_args() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_model(parser)
    parser.add_argument("--control", default="thinking_length_attn", choices=["thinking_length_attn"])
    parser.add_argument(
        "--heads", choices=["found", "published"], default="found", help="of stage 4, or upstream's of this model"
    )
    parser.add_argument("--n_heads", type=cli.positive_int, help="how many of them (default: all that were chosen)")
    parser.add_argument(
        "--intervention_weight",
        type=cli.finite_float,
        default=1.0,
        help="share of the projection to remove (default: 1)",
    )
    parser.add_argument("--control_heads", choices=["random"], help="control: as many heads, drawn from all others")
    parser.add_argument("--control_direction", choices=["random"], help="control: a random direction, the same heads")
    parser.add_argument("--seed", type=cli.natural_int, default=0, help="of the controls (default: %(default)s)")
    parser.add_argument("--name", help="of the edited model (default: ThinkEdit-<model>)")
    cli.add_artifacts(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    ref = models.of_flags(args)
    name = args.name or f"{EDITED}{ref.key.split('/')[-1]}"
    heads_file = store.heads_path(args.artifacts, ref.key, args.control)
    direction_file = store.direction_path(args.artifacts, ref.key, args.control)
    source, target = model_files.folder(ref), store.model_path(args.artifacts, name)
    if name == ref.key:
        raise InputError(f"--name {name} is what the base model is called: name the edited one otherwise")
    if (source / "edit.json").exists():
        raise InputError(f"{source} is an edited model already (edit.json): edit its base model, with other settings")
    direction = store.read_direction(direction_file)
    heads = choose_heads(args, ref, heads_file)
    if args.control_heads == "random":
        heads = random_heads(heads, model_files.head_grid(source), args.seed)
    if args.control_direction == "random":
        from thinksteer.directions import random_like

        direction = random_like(direction, args.seed)

    keys = ("model", "control", "heads", "intervention_weight", "control_heads", "control_direction", "seed")
    settings = {key: getattr(args, key) for key in keys} | {"chosen": heads, "source": ref.source}
    inputs = [direction_file, *([heads_file] if args.heads == "found" else []), *model_files.fingerprint(ref)]
    with store.run(target, settings, inputs, args.overwrite) as run:
        if not run.finished:
            about = {key: value for key, value in settings.items() if key not in ("model", "chosen")}
            about = {"base_model": ref.key, **about, "direction": direction_file.name}
            about["direction_sha256"] = store.sha256(direction_file)
            about["dataset"] = store.read_safetensors(direction_file)[1].get("dataset")
            edit(replace(ref, location=str(source)), target, heads, direction, args.intervention_weight, about)
    for head in store.read_json(target / "edit.json")["edited_heads"]:
        print(f"  layer {head['layer']:2d} head {head['head']:2d}  {head['before']:.4f} -> {head['after']:.2e}")
    print(f"{target}: norm of each head's output weights along the direction, before -> after, as stored")


def choose_heads(args: argparse.Namespace, ref: ModelRef, heads_file: Path) -> Heads:
    """(layer, head) in order of rank: of stage 4, or upstream's."""
    if args.heads == "published":
        ranked = published_heads(ref.key)
        if not ranked:
            raise InputError(f"--heads published: upstream published none for {ref.key}; leave the flag out")
    else:
        ranked = found_heads(heads_file, args.n_heads)
    if args.n_heads and args.n_heads > len(ranked):
        raise InputError(f"--n_heads {args.n_heads}: there are {len(ranked)}")
    return ranked[: args.n_heads]


def found_heads(heads_file: Path, count: int | None) -> Heads:
    """Those that stage 4 chose, or so many by its scores."""
    import torch

    from thinksteer.localize import top_heads

    found = store.read_json(heads_file, "heads", "scores")
    try:
        ranked = [(int(head["layer"]), int(head["head"])) for head in found["heads"]]
        scores = torch.tensor(found["scores"], dtype=torch.float64)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{heads_file} is not as stage 4 writes it ({error!r}): make it again") from None
    if not ranked or len(set(ranked)) < len(ranked):
        raise InputError(f"{heads_file} names no head, or one of them twice: make it again")
    return [(head.layer, head.head) for head in top_heads(scores, count)] if count else ranked


def random_heads(heads: Heads, grid: tuple[int, int], seed: int) -> Heads:
    """As many heads, drawn from all others of the `(layers, heads)` grid."""
    others = [(layer, head) for layer in range(grid[0]) for head in range(grid[1]) if (layer, head) not in heads]
    if len(others) < len(heads):
        raise InputError(
            f"--control_heads random: {len(heads)} heads are edited and only {len(others)} are left to draw"
        )
    return random.Random(f"heads {seed}").sample(others, len(heads))


def edit(ref: ModelRef, target: Path, heads: Heads, direction: Tensor, weight: float, about: dict[str, Any]) -> None:
    """Write the edited checkpoint of the model in a folder; edit.json has each head's norm before and after."""
    from thinksteer.steering import head_norms, project_out

    source = Path(ref.location)
    num_layers, num_heads = model_files.head_grid(source)
    of_layer: dict[int, list[int]] = defaultdict(list)
    for layer, head in heads:
        if not 0 <= layer < num_layers or len(direction) != num_layers:
            unfit = f"head {(layer, head)}, direction {tuple(direction.shape)}"
            raise InputError(f"{source} has {num_layers} layers; {unfit}: make both from this model, stages 2 and 4")
        of_layer[layer].append(head)
    norms: dict[tuple[int, int], tuple[float, float]] = {}

    def remove(layer: int, stored: Tensor) -> Tensor:
        head_dim, chosen = stored.shape[1] // num_heads, of_layer[layer]
        edited = project_out(stored, chosen, head_dim, direction[layer], weight)
        before = head_norms(stored, chosen, head_dim, direction[layer])
        after = head_norms(edited, chosen, head_dim, direction[layer])
        if not all(map(isfinite, [*before.values(), *after.values()])):
            raise InputError(f"{source}: {names[layer]}, edited with --intervention_weight {weight:g}, is not finite")
        norms.update({(layer, head): (before[head], after[head]) for head in chosen})
        return edited

    names = {layer: f"model.layers.{layer}.self_attn.o_proj.weight" for layer in of_layer}
    with store.atomic_folder(target) as folder:
        store.rewrite_checkpoint(source, folder, {name: partial(remove, layer) for layer, name in names.items()})
        edited = [{"layer": h[0], "head": h[1], "before": norms[h][0], "after": norms[h][1]} for h in heads]
        store.write_json(folder / "edit.json", about | {"edited_heads": edited})
        remark = keep_ids(ref, folder)
        store.write_text(folder / "README.md", model_card(target.name, source, about, heads, remark))


def model_card(name: str, source: Path, about: dict[str, Any], heads: Heads, more: list[str]) -> str:
    """The edited model's README: what it is, under the base model's licence; `more` paragraphs. Stage 6 adds scores."""
    what = ", with randomly drawn heads as a control" if about["control_heads"] else ""
    what += ", along a random direction as a control" if about["control_direction"] else ""
    return f"""---
{card.metadata(about["source"], source, about["dataset"], "thinkedit")}
---
# {name}

{about["base_model"]} with the short-reasoning direction removed, at strength {about["intervention_weight"]:g},
from what {len(heads)} attention heads write into the residual stream (ThinkEdit, arXiv 2503.22048){what}.
Heads as (layer, head): {", ".join(map(str, heads))}. Every other weight is the base model's, bit for bit.
`edit.json` has the settings, the direction file's sha256 and each head's norm along the direction before and after.
{"".join(f"{chr(10)}{one}" for one in more)}"""


if __name__ == "__main__":
    cli.run(main)
