"""Annotated responses on the disk: which steered files there are, and what an annotator made of them."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from thinksteer import analysis, store
from thinksteer.annotation import LABELS
from thinksteer.annotations import read_annotations
from thinksteer.behaviours import Labelled, Run, count
from thinksteer.records import InputError, Record
from thinksteer.sweep import steered_beside


@dataclass(frozen=True)
class Setting:
    """A finished file of steered responses."""

    control: str
    layer: int | None
    weight: float
    records: Path


def find_settings(root: Path, model: str, dataset: str, controls: Sequence[str] | None) -> list[Setting]:
    """The finished settings of these controls (None: of all that are named after a label) and their random controls.

    InputError: a control has none, or not weight 0, or its files differ in their token budget, with which shares vary.
    """
    above = root / "steering" / store.slug(model) / store.slug(dataset)
    folders = [folder.name for folder in sorted(above.glob("*")) if any(folder.glob("*.jsonl"))]
    known = [name for name in folders if steered_beside(name) is None and name.partition(".")[0] in LABELS]
    chosen = known if controls is None else controls
    if not chosen or set(chosen) - set(known):
        wanted, there = " ".join(one for one in chosen if one not in known) or "a label", ", ".join(known) or "none"
        raise InputError(f"{above} has no steering named {wanted}, but {there}: steer with it by steer_eval.py")
    found = []
    for control in chosen:
        names = [control, *(name for name in folders if steered_beside(name) == control)]
        own = [
            setting
            for name in names
            for setting in sorted((_setting(name, path) for path in store.finished_records(above / name)), key=_order)
        ]
        if not any(one.control == control and not one.weight for one in own):
            raise InputError(f"{above / control} has no finished weight 0 to compare with: steer with that, too")
        if len(budgets := {store.run_settings(one.records).get("max_length") for one in own}) > 1:
            listed = " and ".join(str(budget) for budget in sorted(budgets, key=str))
            raise InputError(f"{above / control}: its files were made with --max_length {listed}: keep those of one")
        found += own
    return found


def _setting(control: str, path: Path) -> Setting:
    """What `store.steering_path` says by a file's name."""
    match = re.fullmatch(r"(.+?)(?:\.layer(\d+))?", path.stem)
    try:
        return Setting(control, match[2] and int(match[2]), float(match[1]), path)
    except ValueError:
        raise InputError(f"{path} is not named after a weight: move it away") from None


def _order(setting: Setting) -> tuple[int, float]:
    """By layer, then weight; all layers, and no steering, first."""
    return -1 if setting.layer is None else setting.layer, setting.weight


def find_annotations(root: Path, model: str, records: Sequence[Path], annotator: str) -> list[Path]:
    """The annotations of each record file. InputError with the command that makes what is missing."""
    paths = [store.annotations_path(root, path, annotator) for path in records]
    missing = [str(of) for of, path in zip(records, paths, strict=True) if not store.is_complete(path)]
    if missing:
        flags = ["--model", model, "--artifacts", str(root)]
        # What `scripts.annotate` calls the annotations of a language model is that model's name.
        flags += ["--annotator", "keywords"] if annotator == "keywords" else ["--name", annotator, "--annotator"]
        rest = "" if annotator == "keywords" else " judge or local, with its flags"
        raise InputError(
            f"{len(missing)} of {len(records)} files have no finished annotations by {annotator}: run\n"
            f"python -m scripts.annotate {shlex.join([*missing, *flags])}{rest}"
        )
    return paths


def read_labelled(records: Path, annotations: Path) -> tuple[list[Record], Labelled]:
    """The annotated records of a file and what their annotations count. InputError: they are of other responses."""
    found = read_annotations(annotations, records)
    return analysis.matching(store.read_records(records), found.keys()), count(found)


def read_run(setting: Setting, annotations: Path) -> Run:
    records, labelled = read_labelled(setting.records, annotations)
    loops = sum(analysis.degenerate(record.response) for record in records) / len(records)
    tokens = sum(record.response_tokens for record in records) / len(records)
    return Run(setting.control, setting.layer, setting.weight, labelled, loops, tokens)
