"""Stage 3: answer questions while a direction, times a weight, is added (ThinkEdit, section 3.2).

    python steer_eval.py
    python steer_eval.py --model deepseek-qwen-1.5b --dataset gsm8k --n_questions 200 --max_length 8192
    python steer_eval.py --layer each --direction_weight -1 1 --n_questions 100

Reads   directions/<model>/<control>.safetensors, a dataset (--dataset, --data_file); for --layer strongest
        layers/<model>/<dataset>.<control>.json (scripts.layer_effects)
Writes  steering/<model>/<dataset>/<control>/<weight>[.layer<k>].jsonl and summary.json with figures of accuracy and
        length against the weight and by layer; for --control_direction random the folder is <control>.random<seed>

In which layers the direction is added, and at which tokens, is as in the control's paper. Layers are blocks, counted
from 0; entry i of `hidden_states`, by which some papers number, is the output of block i - 1 (--layer_numbering
hidden_states). A penalty is a control without a direction: its weight is added to the logits of some words' tokens.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thinksteer import cli, interventions, models, store
from thinksteer.analysis import oddities
from thinksteer.figures import length_histogram
from thinksteer.methods import METHODS, PENALTIES
from thinksteer.methods.method import Method
from thinksteer.records import EVERYWHERE, InputError, LogitBias, Problem, Record
from thinksteer.stage import Generator, load_problems
from thinksteer.sweep import Point, by_layer, change_of, curves, place, points_of, unequal, with_accuracy
from thinksteer.sweep_figures import layerwise_figure, steering_figure, tokens_figure
from thinksteer.tables import shown

if TYPE_CHECKING:
    from torch import Tensor


def parse_args() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_model(parser)
    cli.add_loading(parser)
    cli.add_engine(parser)
    cli.add_data(parser)
    cli.add_controls(parser, default=["thinking_length_attn"], more=PENALTIES)
    parser.add_argument("--direction", help="another one of directions/<model>/, with one --control")
    parser.add_argument("--name", help="of the folder to write, with one --control (default: the direction's)")
    parser.add_argument(
        "--direction_weight",
        type=cli.finite_float,
        nargs="+",
        action=cli.Distinct,
        help="times the direction (default: as in the control's paper)",
    )
    parser.add_argument(
        "--layer",
        nargs="+",
        action=cli.Distinct,
        help="steer only these, one at a time, or `each`, or the `strongest` of layers/ (default: the paper's)",
    )
    parser.add_argument(
        "--together", action="store_true", help="all of --layer at once, each with its share of the weight"
    )
    parser.add_argument(
        "--layer_numbering", choices=["blocks", "hidden_states"], default="blocks", help="default: %(default)s"
    )
    interventions.add_flags(parser)
    parser.add_argument("--words", nargs="+", help="penalties: of tokens with these (default: the control's)")
    parser.add_argument("--first_tokens", type=cli.positive_int, help="penalties: only so far (default: throughout)")
    cli.add_sampling(parser)
    cli.add_shard(parser)
    cli.add_artifacts(parser)
    parser.set_defaults(n_questions=cli.UpTo(200))  # ThinkEdit, section 3.2
    args = parser.parse_args()
    if len(args.control) > 1 and (args.direction or args.name):
        parser.error("--direction and --name go with one --control")
    penalties = [one in PENALTIES for one in args.control]
    if (args.words or args.first_tokens) and not all(penalties):
        parser.error("--words and --first_tokens go with penalties")
    if args.together and not args.layer:
        parser.error("--together goes with --layer")
    if any(penalties) and (args.layer or args.direction or interventions.named("", args)):
        parser.error("--layer, --direction and how it is applied go with directions, a penalty has none")
    return args


def main() -> None:
    args = parse_args()
    ref = models.of_flags(args)
    problems = load_problems(args, args.dataset)
    chosen = [interventions.chosen(METHODS[one], args) for one in args.control if one in METHODS]
    with Generator(args, ref, steering="constant" if all(one.constant for one in chosen) else "any") as generator:
        for control in args.control:
            (penalise if control in PENALTIES else sweep)(generator, control, problems)


def sweep(generator: Generator, control: str, problems: list[Problem]) -> None:
    """Answer the problems at every layer and weight that the flags name, and sum up."""
    args, model, method = generator.args, generator.ref.key, interventions.chosen(METHODS[control], generator.args)
    sources = [store.direction_path(args.artifacts, model, args.direction or control)]
    vectors = interventions.read_vectors(sources[0], method, args)
    if args.layer == ["strongest"]:
        sources.append(store.layer_effects_path(args.artifacts, model, args.dataset, control))
        if not sources[1].is_file():
            raise InputError(f"{sources[1]} is missing: run python -m scripts.layer_effects --control {control}")
        layers: Sequence[int | None] = [store.read_json(sources[1], "strongest")["strongest"]]
        if layers[0] not in range(len(vectors)):
            raise InputError(f"{sources[1]}: strongest is {layers[0]!r}, no layer of {sources[0]}: make it again")
    else:
        layers = chosen_layers(args, method, vectors)
    places = {layer: tuple(range(len(vectors))) if layer is None else (layer,) for layer in layers}
    name, together = args.name or args.direction or control, {}
    if args.together:
        places = {None: tuple(layer for layer in layers if layer is not None)}
        together = {"layers": list(places[None])}
        name += ".layers" + "+".join(map(str, places[None]))
    name = interventions.named(name, args)
    weights = args.direction_weight or method.weights
    # The vocabulary is not read for nothing.
    where = method.where(generator.reader) if method.conditional else EVERYWHERE
    # Weight 0 is the same in every layer.
    for layer, weight in dict.fromkeys((at if by else None, by) for at, by in product(places, weights)):
        about = {"control": name, "method": control, "weight": weight, "layer": layer} | together
        about |= {"direction": args.direction or control} | interventions.settings(method, len(vectors), args)
        added_to = place(about | {"adds_to": "layers"})
        print(f"{name}: weight {weight:g}" + (f", {added_to}" if weight else ""))
        at = places[layer] if weight else ()
        if weight and not vectors[list(at)].any():
            raise InputError(f"{sources[0]} has no vector for {added_to}: give other --layer")
        coef = weight / len(at) if together and weight else weight
        edits = method.edits(vectors, at, coef, where) if weight else []
        if said := interventions.warning(sources[0], edits):
            print(said)
        output = store.steering_path(args.artifacts, model, args.dataset, name, weight, layer, args.shard)
        # Nothing that is added comes from the choice of the layer, so weight 0 is one file for all of them.
        generator.write(output, args.dataset, problems, edits, sources if weight else sources[:1], **about)
    summarise(generator, {"control": name, "adds_to": "layers"} | together)


def penalise(generator: Generator, control: str, problems: list[Problem]) -> None:
    """Answer the problems with every weight added to the logits of a penalty's tokens, and sum up."""
    args, penalty = generator.args, PENALTIES[control]
    name, words = args.name or control, args.words or penalty.words
    tokens = generator.reader.tokens_with(words)
    if not tokens:
        raise InputError(f"--words {' '.join(words)}: no token of the vocabulary holds any of them: give others")
    for weight in args.direction_weight or penalty.weights:
        print(f"{name}: {weight:+g} to the logits of tokens with {', '.join(words)}")
        output = store.steering_path(args.artifacts, generator.ref.key, args.dataset, name, weight, None, args.shard)
        about = {"control": name, "method": control, "weight": weight, "layer": None}
        about |= {"words": words, "first_tokens": args.first_tokens}
        bias = LogitBias(tokens, weight, args.first_tokens) if weight else None
        generator.write(output, args.dataset, problems, bias=bias, **about)
    summarise(generator, {"control": name, "adds_to": "logits"})


def chosen_layers(args: argparse.Namespace, method: Method, vectors: Tensor) -> Sequence[int | None]:
    """The blocks to steer, one at a time; None stands for all at once. `each` is each that has a vector: where a
    method reads the prompt's last token, and that is always the same, block 0 has none."""
    num_layers = len(vectors)
    if args.layer is None:
        return [method.layer(num_layers)]
    if args.layer == ["each"]:
        return [layer for layer, one in enumerate(vectors) if one.any()]
    # Entry i of hidden_states is what enters block i, and what leaves the one before.
    first = 1 if args.layer_numbering == "hidden_states" and "block_in" not in method.sites else 0
    known = [str(first + block) for block in range(num_layers)]
    wrong = [text for text in args.layer if text not in known]
    if wrong:
        span = f"the model's {args.layer_numbering} to steer are {known[0]} to {known[-1]}"
        raise InputError(f"--layer {' '.join(wrong)}: {span}; or give `each`")
    return sorted({int(text) - first for text in args.layer})


def summarise(generator: Generator, control: dict[str, Any]) -> None:
    """summary.json and the figures, from all finished settings that are there, also those of earlier calls.

    Another shard may finish, sum up more and write that before this one has written, so look again after writing.
    """
    args, model, opening = generator.args, generator.ref.key, generator.ref.template.open
    path = store.steering_summary_path(args.artifacts, model, args.dataset, control["control"])
    about = {"model": model, "dataset": args.dataset} | control
    summed = None
    while (finished := store.finished_records(path.parent)) != summed:
        write_summary(path, finished, about, opening)
        summed = finished


def write_summary(path: Path, finished: list[Path], about: dict[str, Any], think_open: str) -> None:
    runs = {}
    for file in finished:
        settings = store.run_settings(file)
        if "weight" in settings:  # not of imported records, whose sampling is not known
            runs[settings["layer"], settings["weight"]] = store.read_records(file), settings["max_length"]
    if not runs:
        print(f"{path.parent}: summed up when every shard is there")
        return
    points = points_of(runs, think_open)
    store.write_json(path, about | {"points": points})
    points = [about | point for point in points]
    draw(path, points, {key: records for key, (records, _) in runs.items()})
    for point in points:
        print(described(point))
        for line in oddities(point, point["max_length"]):
            print(f"    note: {line}")
    print(f"{path}: {len(points)} settings; changes are from weight 0, on the same questions")
    if unequal(points):
        counts = sorted(point["n_responses"] for point in points)
        print(
            f"  settings have other questions or samples ({counts[0]} to {counts[-1]} responses): compare changes only"
        )


def described(point: Point) -> str:
    """A setting in one line: accuracy (–: open) and its change in %, thinking, tokens of responses and their change."""
    found = change_of(point)
    right = "–" if point["accuracy"] is None else f"{point['accuracy']:.1%}"
    accuracy, tokens = shown(found and found.accuracy, "change"), shown(found and found.tokens, "token_change")
    return (
        f"  {point['weight']:+7.3f}  {place(point):10}  {right:>6}  {accuracy:20}  "
        f"{point['mean_length'] or 0:8.1f} thinking  {point['mean_tokens']:8.1f} tokens  {tokens}"
    )


def draw(path: Path, points: list[Point], records: dict[tuple[int | None, float], list[Record]]) -> None:
    """The figures beside summary.json; the histogram shows the first curve's ends and what is nearest to 0."""
    drawn = curves(points)
    at = {point["weight"]: (point["layer"], point["weight"]) for point in drawn[0].points} if drawn else {}
    ends = sorted({min(at), min(at, key=abs), max(at)}) if at else []
    lengths = {f"{w:+g}": [one.length for one in records[at[w]] if one.length is not None] for w in ends}
    for figure, what, name in (
        (steering_figure, drawn, "summary.png"),
        (tokens_figure, with_accuracy(drawn), "tokens.png"),
        (layerwise_figure, by_layer(points), "layers.png"),
        (length_histogram, lengths, "lengths.png"),
    ):
        if what:
            with store.atomic(path.with_name(name)) as partial:
                figure(what, partial)


if __name__ == "__main__":
    cli.run(main)
