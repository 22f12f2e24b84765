r"""How sure is the model of its answer, along its chain of thought? The odds of each choice, every few tokens.

    python -m scripts.track_confidence
    python -m scripts.track_confidence artifacts/steering/tiny-reasoner/arithmetic/thinking_length_attn/*.jsonl
    python -m scripts.track_confidence --model qwen3-8b --dataset mmlu_pro_questions --choices A-J --every 16

Reads   responses/<model>/<dataset>.jsonl, or the record files given; of steered ones also the direction, with which the
        model is steered again as it was (--unsteered: it is not)
Writes  confidence/<path of the records>: a line per chain; beside it <stem>.summary.json with the accuracy had it been
        stopped at each place and the calibration of the final confidence, their figures and that of the trajectories,
        <stem>.html: chains coloured by the probability of the answer. Of steered responses also summary.json and
        figures that compare the weights of a control, with its random controls beside

At each place the thinking is closed, if it is open, and --suffix appended; then the choices are weighed (after repeng's
notebooks on thinking models). Chains that loop, or to which the choices are no answer, are left out and counted.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from thinksteer import cli, model_files, models, store
from thinksteer.calibration import (
    correlations,
    counts,
    exits,
    reliability,
    used,
)
from thinksteer.choices import Choices, named
from thinksteer.confidence import chain, tails
from thinksteer.confidence_figures import exits_figure, reliability_figure, strength_figure, trajectories_figure
from thinksteer.confidence_page import Told, page, token_texts
from thinksteer.confidence_sweep import (
    described,
    described_counts,
    described_sweep,
    random_runs,
    read_settings,
    strengths,
    unsteered,
)
from thinksteer.models import ModelRef
from thinksteer.records import Edit, InputError, Record
from thinksteer.resteer import edits_of
from thinksteer.stage import Generator
from thinksteer.steered import sweeps
from thinksteer.sweep import steered_beside
from thinksteer.thinking import Reader
from thinksteer.trajectories import Trajectory, TrajectoryLog, read_trajectories, trajectory

Encode = Callable[[str], Sequence[int]]


@dataclass(frozen=True, eq=False)
class Task:
    """A record file to probe: `steering` is what its run says of it (empty: not steered), `edits` what is done now."""

    file: Path
    output: Path
    records: list[Record]
    choices: Choices
    steering: dict[str, Any]
    edits: list[Edit]
    sources: list[Path]


def parse_args() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument("records", nargs="*", type=Path, help="under --artifacts (default: the responses to --dataset)")
    cli.add_model(parser)
    cli.add_loading(parser)
    cli.add_engine(parser)
    parser.add_argument("--dataset", default="arithmetic", help="whose responses to read (default: %(default)s)")
    parser.add_argument(
        "--choices",
        nargs="+",
        default=["reference"],
        help="words, or a range such as A-J or 10-59, or `reference`: all references there are (default: %(default)s)",
    )
    parser.add_argument(
        "--suffix",
        type=lambda text: text.replace(r"\n", "\n"),
        default=" The final answer is",
        help=r"asks for the answer, \n is a line break (default: %(default)r)",
    )
    parser.add_argument("--every", type=cli.positive_int, default=8, help="tokens (default: %(default)s)")
    parser.add_argument("--unsteered", action="store_true", help="probe steered responses without the steering")
    parser.add_argument(
        "--max_weight", type=cli.natural_float, help="correlate score and weight up to this one only (default: all)"
    )
    parser.add_argument(
        "--n_shown", type=cli.positive_int, default=12, help="chains in the page (default: %(default)s)"
    )
    cli.add_artifacts(parser)
    parser.set_defaults(temperature=None, top_p=None, top_k=None)  # nothing is drawn here
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    ref = models.of_flags(args)
    tokenizer = models.load_tokenizer(ref, args.trust_remote_code)
    reader, encode = Reader.of(ref.template, tokenizer), partial(tokenizer.encode, add_special_tokens=False)
    files = args.records or [store.responses_path(args.artifacts, ref.key, args.dataset)]
    tasks = [task(args, ref, reader, encode, file) for file in files]
    closing, plain = tails(ref.template, tokenizer, args.suffix)
    longest = max(len(record.token_ids) for one in tasks for record in one.records)
    args.max_length = longest + len(closing) + max(len(way) for one in tasks for way in one.choices.answers)
    edits = [edit for one in tasks for edit in one.edits]
    steering = ("constant" if all(edit.constant for edit in edits) else "any") if edits else "none"
    with Generator(args, ref, steering) as generator:
        for one in tasks:
            probe(generator, one, (closing, plain))
            summarise(args, reader, one)
    steered = [one for one in tasks if one.steering and not args.unsteered]
    for folder, one in {control_folder(one.output.parent): one for one in steered}.items():
        compare(args, folder, asked(args, one))


def task(args: argparse.Namespace, ref: ModelRef, reader: Reader, encode: Encode, file: Path) -> Task:
    output = store.confidence_path(args.artifacts, file, args.unsteered)
    records = sorted(store.iterate_records(file), key=lambda record: (record.id, record.sample))
    if not records:
        raise InputError(f"{file} holds no records: generate some first")
    settings = store.run_settings(file) or {}
    if settings.get("model", ref.key) != ref.key:
        raise InputError(f"{file} holds responses of {settings['model']}: give --model {settings['model']}")
    steering = {name: settings[name] for name in ("control", "weight", "layer")} if "weight" in settings else {}
    steered = (args.artifacts / "steering").resolve() in file.resolve().parents
    if steered and not steering and not args.unsteered:
        raise InputError(f"{file} does not say how it was steered, or not all of it is: steer again, or --unsteered")
    edits, sources = [], [file, *model_files.fingerprint(ref)]
    if steering.get("weight") and not args.unsteered:
        direction, edits = edits_of(args.artifacts, ref.key, file, reader)
        sources.append(direction)
    choices = Choices.of(named(args.choices, records), args.suffix, encode)
    return Task(file, output, records, choices, steering, edits, sources)


def probe(generator: Generator, one: Task, ends: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    """Write the trajectories of a file, going on where an earlier run stopped."""
    args, reader = generator.args, generator.reader
    settings = models.identity(generator.ref, args.mean_recurrence) | asked(args, one)
    settings |= {"steering": one.steering, "template": generator.ref.template.name}
    settings |= {"engine": generator.engine_name, "dtype": args.dtype}
    with store.run(one.output, settings, one.sources, args.overwrite) as run:
        if run.finished:
            return
        engine = generator.engine
        run.runs_on(engine.device, engine.dtype)
        with TrajectoryLog(one.output) as log:
            of = {(record.id, record.sample): record for record in one.records}
            left = [chain(of[key], reader, args.every, *ends) for key in of if key not in log.done]
            for broken, found in engine.probe(left, one.choices.answers, one.edits):
                record, at = of[broken.id, broken.sample], [fork.at for fork in broken.forks]
                log_probs = one.choices.pooled(found.double().numpy())
                ended = at[-1] if record.status == "closed" else None
                reference = one.choices.index(record.reference)
                log.append(trajectory(record, at, log_probs, one.choices.names, reference, ended))


def asked(args: argparse.Namespace, one: Task) -> dict[str, Any]:
    """What two files must have in common to be compared."""
    about = {"choices": list(one.choices.names), "suffix": args.suffix, "every": args.every}
    return about | {"unsteered": args.unsteered}


def summarise(args: argparse.Namespace, reader: Reader, one: Task) -> None:
    """The numbers, figures and page of one file."""
    chains = read_trajectories(one.output)
    kept, beside = used(chains), partial(_beside, one.output)
    about = {"records": str(one.output.name), "steering": one.steering, "counts": counts(chains)}
    print(f"{one.output}: {described_counts(about['counts'])}")
    if kept:
        stops, found = exits(kept), reliability(kept)
        about |= {"by_share": [asdict(at) for at in stops[0]], "by_tokens": [asdict(at) for at in stops[1]]}
        about["reliability"] = found and asdict(found)
        draw(trajectories_figure, {one.output.stem: kept}, followed(kept), path=beside("trajectories.png"))
        if found is not None:
            draw(exits_figure, {one.output.stem: stops}, path=beside("exits.png"))
            draw(reliability_figure, found, path=beside("reliability.png"))
            print(described(stops[0], found))
    store.write_json(beside("summary.json"), about)
    of = {(record.id, record.sample): record for record in one.records}
    shown = [(at, of[at.id, at.sample]) for at in chains[: args.n_shown]]
    told = [Told(at, record.question, token_texts(record, reader)) for at, record in shown]
    asking = f"Broken off every {args.every} tokens; what asks for the answer: {args.suffix!r}"
    notes = [asking, f"The first {len(shown)} of {len(chains)} chains. {described_counts(about['counts'])}"]
    title = "Answer confidence: " + "/".join(one.output.with_suffix("").parts[-2:])
    store.write_text(beside("html"), page(title, notes, told))


def followed(chains: Sequence[Trajectory]) -> str:
    return "the right answer" if all(one.graded for one in chains) else "the answer"


def control_folder(folder: Path) -> Path:
    """The folder itself; of a random control, that of the control that it stands beside."""
    return folder.with_name(steered_beside(folder.name) or folder.name)


def compare(args: argparse.Namespace, folder: Path, alike: dict[str, Any]) -> None:
    """summary.json and the figures of a control: all of its weights that have been probed alike, and random controls"""
    made = sweeps(read_settings(folder, alike))
    if not made:
        print(f"{folder}: compared when a weight other than 0 of the control itself has been probed")
        return
    lines = {one.title: strengths(one.runs, unsteered(one)) for one in made}
    others = {name: strengths(runs, unsteered(one)) for one in made for name, runs in random_runs(one).items()}
    found = {one.title: correlations({run.weight: run.chains for run in one.runs}, args.max_weight) for one in made}
    sweep = [
        {"title": title, "correlations": {name: asdict(value) for name, value in (found[title] or {}).items()}}
        | {"points": [asdict(point) for point in points]}
        for title, points in lines.items()
    ]
    random = [{"title": title, "points": [asdict(point) for point in points]} for title, points in others.items()]
    path = folder / "summary.json"
    store.write_json(path, {"control": folder.name, "max_weight": args.max_weight, "sweeps": sweep, "random": random})
    draw(strength_figure, lines | others, list(others), path=folder / "summary.png")
    for one in made:
        weights = {f"weight {run.weight:+g}": kept for run in one.runs if (kept := used(run.chains))}
        layer = "" if one.layer is None else f"layer{one.layer}."
        draw(trajectories_figure, weights, followed(made[0].runs[0].chains), path=folder / f"{layer}trajectories.png")
        if stops := {name: exits(kept) for name, kept in weights.items() if any(at.graded for at in kept)}:
            draw(exits_figure, stops, path=folder / f"{layer}exits.png")
        print(f"{path}: {one.title}\n{described_sweep(lines[one.title], found[one.title])}")


def draw(figure: Any, *numbers: Any, path: Path) -> None:
    with store.atomic(path) as unfinished:
        figure(*numbers, unfinished)


def _beside(output: Path, name: str) -> Path:
    return output.with_name(f"{output.stem}.{name}")


if __name__ == "__main__":
    cli.run(main)
