"""Steering at every position, baked into a checkpoint that runs at full speed. No GPU.

    python -m scripts.export_steered --direction_weight 0.4
    python -m scripts.export_steered --model deepseek-qwen-1.5b --control thinking_length_mlp --direction_weight 0.08
    python -m scripts.export_steered --control thinking_length_attn thinking_length_mlp --direction_weight 0.4 0.2

Reads   directions/<model>/<control>.safetensors, the model's checkpoint
Writes  models/<name>/: the checkpoint with the steering as biases, which evaluate_models.py takes by its name;
        steering.json, a model card. Every weight of the source is kept, bit for bit

Where memory allows (twice the weights in float32), both models are loaded and their logits compared, and the card gets
two prompts with the probabilities of their next tokens, to check other runtimes by.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from thinksteer import card, cli, model_files, models, store
from thinksteer.methods import METHODS
from thinksteer.models import ModelRef
from thinksteer.records import EVERYWHERE, Edit, InputError
from thinksteer.tokenizer_files import keep_ids


def parse_args() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_model(parser)
    cli.add_controls(parser, default=["thinking_length_attn"])
    parser.add_argument(
        "--direction_weight",
        type=cli.finite_float,
        nargs="+",
        required=True,
        help="times the direction: one for all controls, or one for each",
    )
    parser.add_argument(
        "--layer", type=cli.natural_int, nargs="+", action=cli.Distinct, help="steer only these (default: all)"
    )
    parser.add_argument("--name", help="of the steered model (default: steered-<model>-<control>-<weight>)")
    cli.add_artifacts(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    ref = models.of_flags(args)
    weights = args.direction_weight * (len(args.control) if len(args.direction_weight) == 1 else 1)
    if len(weights) != len(args.control):
        raise InputError(
            f"--direction_weight: {len(weights)} values for {len(args.control)} controls: give one or each"
        )
    other = [control for control in args.control if not METHODS[control].constant]
    if other:
        raise InputError(f"--control {other[0]} is not the same at all tokens, a bias is: steer at run time instead")
    files = {control: store.direction_path(args.artifacts, ref.key, control) for control in args.control}
    name = args.name or default_name(ref.key, dict(zip(files, weights, strict=True)), args.layer)
    source, target = model_files.folder(ref), store.model_path(args.artifacts, name)
    if name == ref.key:
        raise InputError(f"--name {name} is what the base model is called: name the steered one otherwise")
    if (source / "steering.json").exists():
        raise InputError(f"{source} is a steered model already (steering.json): bake its base model, with all controls")

    settings = {"model": args.model, "control": args.control, "weight": weights, "layer": args.layer}
    settings["source"] = ref.source
    with store.run(target, settings, [*files.values(), *model_files.fingerprint(ref)], args.overwrite) as run:
        if not run.finished:
            edits, about = [], []
            for (control, file), weight in zip(files.items(), weights, strict=True):
                direction = store.read_direction(file)
                layers = tuple(args.layer or range(len(direction)))
                edits += METHODS[control].edits(direction, layers, weight, EVERYWHERE)
                about.append({"control": control, "weight": weight, "layers": layers, "sha256": store.sha256(file)})
            dataset = store.read_safetensors(file)[1].get("dataset")
            about = {"base_model": ref.key, "source": ref.source, "dataset": dataset, "steering": about}
            export(replace(ref, location=str(source)), target, edits, about)
    print(f"{target}: steered at every position; evaluate it with --model {name}")


def default_name(key: str, weights: dict[str, float], layers: list[int] | None) -> str:
    parts = [f"{control}-{weight:g}" for control, weight in weights.items()]
    return "-".join(["steered", key.split("/")[-1], *parts, *(f"layer{layer}" for layer in layers or [])])


def export(ref: ModelRef, target: Path, edits: list[Edit], about: dict[str, Any]) -> None:
    """Write the steered checkpoint of the model in a folder; steering.json says which directions are in it.

    InputError: it cannot be made, or does not compute what steering at run time does.
    """
    from thinksteer import baked_check
    from thinksteer.bake import bake

    source = Path(ref.location)
    baked = bake(store.read_json(source / "config.json"), store.checkpoint_tensors(source), edits)
    with store.atomic_folder(target) as folder:
        store.rewrite_checkpoint(source, folder, baked.changed, baked.added)
        store.write_json(folder / "config.json", baked.config)
        remark = keep_ids(ref, folder)
        check = baked_check.check(ref, replace(ref, location=str(folder)), edits)
        store.write_json(folder / "steering.json", about | {"check": check})
        more = [*remark, baked_check.markdown(check)]
        store.write_text(folder / "README.md", model_card(target.name, source, about, more))


def model_card(name: str, source: Path, about: dict[str, Any], more: list[str]) -> str:
    """The steered model's README: what it is, and the base model's licence, which it stays under; `more` paragraphs."""
    added = [f"{one['weight']:g} times {one['control']} in layers {list(one['layers'])}" for one in about["steering"]]
    return f"""---
{card.metadata(about["source"], source, about["dataset"], "steering")}
---
# {name}

{about["base_model"]} with a direction added at every position, as biases of the projections that write into the
residual stream: {"; ".join(added)} (directions of thinking length: ThinkEdit, arXiv 2503.22048).
Every weight is the base model's, bit for bit; biases that the architecture asks for besides are zero. New biases are
stored in float32, also next to 16-bit weights; loading casts them to the dtype of the model.
`steering.json` has the weights, the sha256 of each direction file, and the figures below.

{chr(10).join(more)}"""


if __name__ == "__main__":
    cli.run(main)
