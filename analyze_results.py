"""Stage 7: tables, figures and one page that show what the edits did, with intervals and random controls.

    python analyze_results.py
    python analyze_results.py --models deepseek-qwen-1.5b ThinkEdit-deepseek-qwen-1.5b

Reads   evaluations/ of every model (or of --models), models/<name>/edit.json, and what is there of steering/ summaries
        and of the figures in heads/ and directions/
Writes  reports/: tables (.md, .csv, .json), figures (.png), report.html

The base of an edited model is the one its edit.json names, else its name without "ThinkEdit-", or what --base says.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from thinksteer import cli, store
from thinksteer.comparison import Difference, Family, Member, Role, Summary, differences, summaries
from thinksteer.figures import decile_figure, layerwise_figure, length_histogram, steering_figure, threshold_figure
from thinksteer.headlines import headlines
from thinksteer.page import Picture, Section, examples, page
from thinksteer.records import InputError
from thinksteer.report import tables
from thinksteer.tables import Table, as_csv, as_json, markdown

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
    parser.add_argument("--models", nargs="+", action=cli.Distinct, help="default: every evaluated model")
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
    models = list(dict.fromkeys(one.model for one in found))
    edits = [path for model in models if (path := edit_path(root, model)).is_file()]
    steering = [path for model in models for path in sorted(root.glob(f"steering/{model}/*/*/summary.json"))]
    earlier = [path for model in models for path in sorted(root.glob(f"[dh]*s/{model}/*.png"))]  # directions, heads
    folder = store.reports_path(root)
    folder.mkdir(parents=True, exist_ok=True)

    settings = {"models": models, "base": args.base, "instruction": args.instruction}
    inputs = [*(one.path for one in found), *edits, *steering, *earlier]
    with store.run(folder / "report.html", settings, inputs, args.overwrite) as run:
        if run.finished:
            print(f"{run.output} is up to date")
            return
        said, sections = compare(found, folder)
        sections += draw_steering(steering, folder)
        if earlier:
            sections.append(Section("Directions and heads", pictures=tuple(picture(path) for path in earlier)))
        with store.atomic(run.output) as partial:
            partial.write_text(page("What the edits did", facts(found), said, sections), encoding="utf-8")
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
        sections.append(Section(title, pictures=draw(family, folder), html=examples(family)))
    made = tables(of_all, changes_of_all)
    for table in made:
        write_table(table, folder)
    return said, [Section("Tables", tables=tuple(made)), *sections]


def find_evaluations(root: Path, models: Sequence[str] | None, base: str | None, instruction: str) -> list[Evaluation]:
    """The evaluations to analyse; base models first, then edits, then controls, whatever the order of folders."""
    folders = {folder.name: folder for folder in sorted(root.glob("evaluations/*")) if folder.is_dir()}
    chosen = list(folders) if models is None else [store.slug(model) for model in [*models, *([base] if base else [])]]
    missing = [model for model in chosen if model not in folders]
    if missing or not chosen:
        known = ", ".join(folders) or "no model at all"
        raise InputError(
            f"not evaluated under {root}: {', '.join(missing) or 'any model'} (there is {known}); run stage 6"
        )
    found = []
    for model in dict.fromkeys(chosen):
        role, of, size = kind(root, model, list(folders), store.slug(base) if base else None)
        for dataset in sorted(path.name for path in folders[model].iterdir() if path.is_dir()):
            path = store.evaluation_path(root, model, dataset, instruction)
            if any(path.parent.glob(f"{path.stem}*{path.suffix}")):
                found.append(Evaluation(model, dataset, role, of, path, settings_of(path), size))
    if not found:
        raise InputError(f"no evaluation under {root} with this --instruction: run evaluate_models.py with it")
    return sorted(found, key=lambda one: ("base", "edited", "control").index(one.role))


def edit_path(root: Path, model: str) -> Path:
    return store.model_path(root, model) / "edit.json"


def kind(root: Path, model: str, evaluated: Sequence[str], base: str | None) -> tuple[Role, str, str]:
    """What a model is, the base it belongs to (its own name for a base), and how large its edit is."""
    path = edit_path(root, model)
    edit = store.read_json(path) if path.is_file() else {}
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
    manifest = store.manifest_path(store.record_files(path)[0])
    return store.read_json(manifest)["settings"] if manifest.is_file() else {}


def families(found: Sequence[Evaluation]) -> list[list[Evaluation]]:
    """The evaluations of one dataset and one base together."""
    grouped: dict[tuple[str, str], list[Evaluation]] = {}
    for one in found:
        grouped.setdefault((one.dataset, one.base), []).append(one)
    return list(grouped.values())


def read_family(members: Sequence[Evaluation]) -> Family:
    """The records without their token ids, which take most of the memory and are not analysed."""
    read = []
    for one in members:
        records = [replace(record, token_ids=()) for record in store.iterate_records(one.path)]
        if not records:
            raise InputError(f"{one.path} is empty: run evaluate_models.py")
        read.append(Member(one.model, one.role, records, one.settings.get("max_length"), one.size))
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


def draw(family: Family, folder: Path) -> tuple[Picture, ...]:
    """The three figures of a family; controls are left out of the histogram to keep it readable."""
    name = f"{store.slug(family.members[0].model)}.{family.dataset}"
    below, tenths, lengths = (folder / f"{name}.{figure}.png" for figure in ("accuracy_below", "deciles", "lengths"))
    with store.atomic(below) as partial:
        threshold_figure(family, partial)
    with store.atomic(tenths) as partial:
        decile_figure(family, partial)
    with store.atomic(lengths) as partial:
        shown = [member for member in family.members if member.role != "control"] or family.members
        length_histogram(
            {one.model: [record.length for record in one.records if record.length is not None] for one in shown},
            partial,
        )
    return (
        picture(
            below, "Accuracy of the responses whose thinking is shorter than the threshold; bands: 95 % intervals."
        ),
        picture(tenths, "Accuracy in each tenth of a model's own responses by thinking length; bars: 95 % intervals."),
        picture(
            lengths, "Thinking lengths; dashed lines: means. Chains cut by the budget are counted where they were cut."
        ),
    )


def draw_steering(summary_paths: Sequence[Path], folder: Path) -> list[Section]:
    """Per model and dataset the curves of all controls together, and one figure per control steered layer by layer."""
    grouped: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for path in summary_paths:
        summary = store.read_json(path)
        points = [{"control": summary["control"], **point} for point in summary["points"]]
        grouped.setdefault((summary["model"], summary["dataset"]), []).extend(points)
    sections = []
    for (model, dataset), points in grouped.items():
        name, pictures = f"{store.slug(model)}.{store.slug(dataset)}", []
        if any(point["layer"] is None for point in points):
            with store.atomic(folder / f"{name}.steering.png") as partial:
                steering_figure(points, partial)
            pictures.append(picture(folder / f"{name}.steering.png", "Steered in all layers; bands: 95 % intervals."))
        for control in dict.fromkeys(point["control"] for point in points if point["layer"] is not None):
            path = folder / f"{name}.{store.slug(control)}.layers.png"
            with store.atomic(path) as partial:
                layerwise_figure([point for point in points if point["control"] == control], partial)
            pictures.append(picture(path, f"{control}, steered in one layer at a time; bands: 95 % intervals."))
        sections.append(Section(f"Steering {model} on {dataset}", pictures=tuple(pictures)))
    return sections


def picture(path: Path, caption: str | None = None) -> Picture:
    return Picture(path.read_bytes(), caption or "/".join(path.with_suffix("").parts[-3:]))


def write_table(table: Table, folder: Path) -> None:
    """`<name>.md`, `.csv` and `.json`."""
    for suffix, text in ((".md", markdown(table)), (".csv", as_csv(table))):
        with store.atomic(folder / f"{table.name}{suffix}") as partial:
            partial.write_text(text, encoding="utf-8")
    store.write_json(folder / f"{table.name}.json", as_json(table))


if __name__ == "__main__":
    cli.run(main)
