"""Stage 7: tables, figures and one page that show what edits and steering did, with intervals and random controls.

    python analyze_results.py
    python analyze_results.py --models deepseek-qwen-1.5b ThinkEdit-deepseek-qwen-1.5b

Reads   evaluations/ and steering/ summaries, either or both, of every model (or of --models), models/<name>/edit.json,
        the records of steering beside random controls, confidence/ summaries, and the figures that other stages and
        scripts left
Writes  reports/: tables (.md, .csv, .json), figures (.png), report.html

The base of an edited model is the one its edit.json names, else its name without "ThinkEdit-", or what --base says.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from thinksteer import cli, store
from thinksteer.comparison import Difference, Family, Member, Role, Summary, differences, summaries
from thinksteer.confidence_report import confidence_section, confidence_summaries
from thinksteer.figures import decile_figure, length_histogram, threshold_figure
from thinksteer.headlines import headlines
from thinksteer.page import Picture, Section, examples, page
from thinksteer.records import InputError
from thinksteer.report import tables
from thinksteer.report_files import DRAWN, draw, figures_of, picture, write_tables
from thinksteer.sweep_report import find_sweeps, records_compared, summary_paths, sweep_section

EDITED = "ThinkEdit-"
SAMPLING = ("engine", "max_length", "temperature", "top_p", "top_k", "seed")


@dataclass(frozen=True)
class Evaluation:
    """Where the records of one model on one dataset are, what the model is, and the settings they were made with."""

    model: str
    dataset: str
    role: Role
    base: str
    path: Path
    settings: dict[str, Any]
    size: str


def parse() -> argparse.Namespace:
    parser = cli.parser(__doc__ or "")
    parser.add_argument("--models", nargs="+", action=cli.Distinct, help="default: every evaluated or steered model")
    parser.add_argument(
        "--base", help="model that all others are compared with (default: each edited model's own base)"
    )
    parser.add_argument("--instruction", default="", help="as given to evaluate_models.py (default: none)")
    cli.add_artifacts(parser)
    return parser.parse_args()


def main() -> None:
    args = parse()
    root: Path = args.artifacts
    found = find_evaluations(root, args.models, args.base, args.instruction)
    sweeps = find_sweeps(root, args.models)
    models = list(dict.fromkeys(store.slug(one.model) for one in [*found, *sweeps]))
    folder = store.reports_path(root)
    folder.mkdir(parents=True, exist_ok=True)

    settings = {"models": models, "base": args.base, "instruction": args.instruction}
    edits = [path for model in models if (path := edit_path(root, model)).is_file()]
    steering = [*summary_paths(root, args.models), *(path for one in sweeps for path in records_compared(root, one))]
    drawn = {title: [path for model in models for path in figures_of(root, model, title)] for title in DRAWN}
    probed = {model: paths for model in models if (paths := confidence_summaries(root, model))}
    inputs = [*(one.path for one in found), *edits, *steering, *chain(*drawn.values(), *probed.values())]
    with store.run(folder / "report.html", settings, inputs, args.overwrite) as run:
        if run.finished:
            print(f"{run.output} is up to date")
            return
        said, sections = compare(found, folder) if found else ([], [])
        sections += [sweep_section(root, one, folder) for one in sweeps]
        sections += [confidence_section(root, model, folder) for model in probed]
        for title, paths in drawn.items():
            if paths:
                sections.append(Section(title, pictures=tuple(picture(path) for path in paths)))
        title = "What the edits did" if found else "What steering did"
        store.write_text(run.output, page(title, facts(found), said, sections))
    print("\n".join([*said, f"wrote {run.output}"]))


def compare(found: Sequence[Evaluation], folder: Path) -> tuple[list[str], list[Section]]:
    """Headlines, and the sections with tables, figures and examples, which are written to `folder` too.

    One family is in memory at a time.
    """
    said: list[str] = []
    of_all: list[Summary] = []
    changes_of_all: list[Difference] = []
    sections: list[Section] = []
    for members in families(found):
        family = read_family(members)
        of_family, changes = summaries(family), differences(family)
        said += headlines(of_family, changes)
        of_all += of_family
        changes_of_all += changes
        title = f"{family.dataset}: {family.members[0].model}"
        sections.append(Section(title, pictures=figures(family, folder), html=examples(family)))
    made = tables(of_all, changes_of_all)
    write_tables(made, folder)
    return said, [Section("Tables", tables=tuple(made)), *sections]


def find_evaluations(root: Path, models: Sequence[str] | None, base: str | None, instruction: str) -> list[Evaluation]:
    """The evaluations to analyse; base models first, then edits, then controls, whatever the order of folders.

    Empty where models were only steered.
    """
    folders = {folder.name: folder for folder in sorted(root.glob("evaluations/*")) if folder.is_dir()}
    steered = {path.parts[-4] for path in summary_paths(root, None)}
    chosen = list(folders) if models is None else [store.slug(model) for model in [*models, *([base] if base else [])]]
    missing = [model for model in chosen if model not in folders.keys() | steered]
    if missing or not (chosen or steered):
        known = ", ".join(sorted(folders.keys() | steered)) or "no model at all"
        raise InputError(
            f"not evaluated under {root}: {', '.join(missing) or 'any model'} (there is {known}); run stage 6 or 3"
        )
    chosen = [model for model in dict.fromkeys(chosen) if model in folders]
    found = []
    for model in chosen:
        role, of, size = kind(root, model, list(folders), store.slug(base) if base else None)
        for dataset in sorted(path.name for path in folders[model].iterdir() if path.is_dir()):
            path = store.evaluation_path(root, model, dataset, instruction)
            if any(path.parent.glob(f"{path.stem}*{path.suffix}")):
                found.append(Evaluation(model, dataset, role, of, path, settings_of(path), size))
    if chosen and not found:
        raise InputError(f"no evaluation under {root} with this --instruction: run evaluate_models.py with it")
    return sorted(found, key=lambda one: ("base", "edited", "control").index(one.role))


def edit_path(root: Path, model: str) -> Path:
    return store.model_path(root, model) / "edit.json"


def kind(root: Path, model: str, evaluated: Sequence[str], base: str | None) -> tuple[Role, str, str]:
    """What a model is, the base it belongs to (its own name for a base), and how large its edit is."""
    path = edit_path(root, model)
    edit = store.read_json(path, "base_model") if path.is_file() else {}
    of = model.removeprefix(EDITED)
    if edit and store.slug(edit["base_model"]) in evaluated:
        of = store.slug(edit["base_model"])
    if base is not None:
        of = base
    if of == model:
        return "base", model, ""
    control = "random" in (edit.get("control_heads"), edit.get("control_direction"))
    size = f"{len(edit['edited_heads'])} heads x {edit['intervention_weight']:g}" if "edited_heads" in edit else ""
    return ("control" if control else "edited"), of, size


def settings_of(path: Path) -> dict[str, Any]:
    """The settings in the run manifest of records; nothing where there is none, as for imported records."""
    made = store.manifest_of(store.record_files(path)[0])
    return made["settings"] if made else {}


def families(found: Sequence[Evaluation]) -> list[list[Evaluation]]:
    """The evaluations of one dataset and one base together."""
    grouped: dict[tuple[str, str], list[Evaluation]] = {}
    for one in found:
        grouped.setdefault((one.dataset, one.base), []).append(one)
    return list(grouped.values())


def read_family(members: Sequence[Evaluation]) -> Family:
    """Each member's records are gone through once, here; their texts are read again where they are shown."""
    read = []
    for one in members:
        member = Member(
            one.model,
            one.role,
            store.RecordFile(one.path),
            one.settings.get("max_length"),
            one.size,
            one.settings.get("think_open", ""),
        )
        if not len(member.outcomes):
            raise InputError(f"{one.path} is empty: run evaluate_models.py")
        read.append(member)
    return Family(members[0].dataset, tuple(read))


def facts(found: Sequence[Evaluation]) -> list[str]:
    """What was run, a paragraph per dataset; settings that differ between its models are named with each model."""
    lines = []
    for dataset in dict.fromkeys(one.dataset for one in found):
        here = [one for one in found if one.dataset == dataset]
        parts = []
        for name in (name for name in SAMPLING if any(name in one.settings for one in here)):
            values = {one.model: one.settings.get(name, "unknown") for one in here}
            if len(set(map(repr, values.values()))) == 1:
                parts.append(f"{name} {next(iter(values.values()))}")
            else:
                parts.append(
                    f"{name} NOT THE SAME ({', '.join(f'{model}: {value}' for model, value in values.items())})"
                )
        lines.append(
            f"{dataset}: {', '.join(f'{one.model} ({one.role})' for one in here)}. Settings: {', '.join(parts)}."
        )
    return lines


def figures(family: Family, folder: Path) -> tuple[Picture, ...]:
    """The three figures of a family, two of them only where answers are graded; controls are left out of the histogram
    to keep it readable."""
    path = folder / f"{store.slug(family.members[0].model)}.{family.dataset}"
    shown = [member for member in family.members if member.role != "control"] or family.members
    lengths = {one.model: one.outcomes.lengths for one in shown}
    histogram = draw(
        length_histogram,
        lengths,
        path.with_name(f"{path.name}.lengths.png"),
        "Thinking lengths; dashed lines: means. Chains cut by the budget are counted where they were cut.",
    )
    if all(np.isnan(member.outcomes.verdict).all() for member in family.members):
        return (histogram,)
    return (
        draw(
            threshold_figure,
            family,
            path.with_name(f"{path.name}.accuracy_below.png"),
            "Accuracy of the responses whose thinking is shorter than the threshold; bands: 95 % intervals.",
        ),
        draw(
            decile_figure,
            family,
            path.with_name(f"{path.name}.deciles.png"),
            "Accuracy in each tenth of a model's own responses by thinking length; bars: 95 % intervals.",
        ),
        histogram,
    )


if __name__ == "__main__":
    cli.run(main)
