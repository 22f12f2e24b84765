"""Stage 3: answer questions while the direction, times a weight, is added to every position (ThinkEdit, section 3.2).

    python steer_eval.py
    python steer_eval.py --model deepseek-qwen-1.5b --dataset gsm8k --n_questions 200 --max_length 8192
    python steer_eval.py --layer each --direction_weight -1 1 --n_questions 100

Reads   directions/<model>/<control>.safetensors, a dataset (--dataset, --data_file)
Writes  steering/<model>/<dataset>/<control>/<weight>[.layer<k>].jsonl and summary.json with figures of accuracy and
        length against the weight and by layer; for --control_direction random the folder is <control>.random<seed>
"""

import argparse
from itertools import product
from pathlib import Path
from typing import Any

from thinksteer import analysis, cli, models, store
from thinksteer.directions import random_like
from thinksteer.figures import layerwise_figure, length_histogram, steering_figure
from thinksteer.methods import METHODS
from thinksteer.records import Edit, InputError, Problem, Record
from thinksteer.stage import Generator, load_problems

PAPER_WEIGHTS = [round(0.01 * step, 2) for step in range(-8, 9)]


def parse_args() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_model(parser)
    cli.add_loading(parser)
    cli.add_engine(parser)
    cli.add_data(parser)
    cli.add_controls(parser, default=["thinking_length_attn"])
    parser.add_argument(
        "--direction_weight",
        type=cli.finite_float,
        nargs="+",
        default=PAPER_WEIGHTS,
        action=cli.Distinct,
        help="times the direction (default: -0.08 to 0.08 in steps of 0.01, as in the paper)",
    )
    parser.add_argument("--layer", nargs="+", help="steer only these, one at a time, or `each` (default: all at once)")
    parser.add_argument("--control_direction", choices=["random"], help="control: a random direction of the same norms")
    parser.add_argument("--control_seed", type=cli.natural_int, default=0, help="of it (default: %(default)s)")
    cli.add_sampling(parser)
    cli.add_shard(parser)
    cli.add_artifacts(parser)
    parser.set_defaults(n_questions=200)  # ThinkEdit, section 3.2
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    ref = models.resolve(args.model, args.artifacts, args.template)
    problems = load_problems(args, args.dataset)
    with Generator(args, ref, steering="everywhere") as generator:
        for control in args.control:
            name = sweep(generator, control, problems)
            summarise(args, ref.key, name)


def sweep(generator: Generator, control: str, problems: list[Problem]) -> str:
    """Answer the problems at every layer and weight that the flags name; returns the name of what was added."""
    args, model = generator.args, generator.ref.key
    source = store.direction_path(args.artifacts, model, control)
    name, direction = control, store.read_direction(source)
    if args.control_direction == "random":
        name, direction = f"{control}.random{args.control_seed}", random_like(direction, args.control_seed)
    for layer, weight in product(chosen_layers(args.layer, len(direction)), args.direction_weight):
        print(f"{name}: weight {weight:g}, {'all layers' if layer is None else f'layer {layer}'}")
        layers = tuple(range(len(direction))) if layer is None else (layer,)
        edit = Edit(METHODS[control].steer_site, direction, layers, weight)
        output = store.steering_path(args.artifacts, model, args.dataset, name, weight, layer, args.shard)
        about = {"control": name, "weight": weight, "layer": layer}
        generator.write(output, args.dataset, problems, [edit] if weight else [], [source], **about)
    return name


def chosen_layers(asked: list[str] | None, num_layers: int) -> list[int | None]:
    """The layers to steer one at a time; None stands for all at once."""
    if asked is None:
        return [None]
    if asked == ["each"]:
        return list(range(num_layers))
    wrong = [text for text in asked if not text.isdecimal() or int(text) >= num_layers]
    if wrong:
        raise InputError(f"--layer {' '.join(wrong)}: the model has layers 0 to {num_layers - 1}; or give `each`")
    return sorted({int(text) for text in asked})


def summarise(args: argparse.Namespace, model: str, name: str) -> None:
    """summary.json and the figures, from all finished settings that are there, also those of earlier calls.

    Another shard may finish, sum up more and write that before this one has written, so look again after writing.
    """
    path = store.steering_summary_path(args.artifacts, model, args.dataset, name)
    summed = None
    while (finished := store.finished_records(path.parent)) != summed:
        write_summary(path, finished, {"model": model, "dataset": args.dataset, "control": name})
        summed = finished


def write_summary(path: Path, finished: list[Path], about: dict[str, Any]) -> None:
    runs = {}
    for file in finished:
        settings = store.run_settings(file)
        runs[settings["layer"], settings["weight"]] = store.read_records(file), settings["max_length"]
    if not runs:
        print(f"{path.parent}: summed up when every shard is there")
        return
    unsteered = runs.get((None, 0.0))
    points = []
    for (layer, weight), (records, max_length) in sorted(runs.items(), key=lambda run: (run[0][0] is not None, run[0])):
        compared = unsteered is not None and records is not unsteered[0]
        change = analysis.paired_difference(unsteered[0], records) if compared else None
        setting = {
            "weight": weight,
            "layer": layer,
            "accuracy_change": change and [change.value, change.low, change.high],
        }
        points.append(setting | analysis.metrics(records, max_length))
    store.write_json(path, about | {"points": points})
    draw(path, points, {weight: records for (layer, weight), (records, _) in runs.items() if layer is None})
    for point in points:
        where = "all layers" if point["layer"] is None else f"layer {point['layer']}"
        change = "" if not point["accuracy_change"] else "{:+.1%} [{:+.1%}, {:+.1%}]".format(*point["accuracy_change"])
        length = f"{point['mean_length'] or 0:8.1f} tokens"
        print(f"  {point['weight']:+7.3f}  {where:10}  {point['accuracy']:6.1%}  {change:24} {length}")
    print(f"{path}: {len(points)} settings; changes are from weight 0, on the same questions")


def draw(path: Path, points: list[dict[str, Any]], together: dict[float, list[Record]]) -> None:
    """The figures beside summary.json; the histogram shows the two ends and what is nearest to no steering."""
    shown = sorted({min(together), min(together, key=abs), max(together)}) if together else []
    lengths = {f"{w:+g}": [one.length for one in together[w] if one.length is not None] for w in shown}
    for figure, drawn, name in (
        (steering_figure, [point for point in points if point["layer"] is None], "summary.png"),
        (layerwise_figure, [point for point in points if point["layer"] is not None], "layers.png"),
        (length_histogram, lengths, "lengths.png"),
    ):
        if drawn:
            with store.atomic(path.with_name(name)) as partial:
                figure(drawn, partial)


if __name__ == "__main__":
    cli.run(main)
