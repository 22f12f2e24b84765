"""Annotated responses on the disk: what an annotator made of them."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from thinksteer import analysis, store
from thinksteer.annotations import read_annotations
from thinksteer.behaviours import Labelled, Run, count
from thinksteer.records import InputError, Record
from thinksteer.steered_files import SteeredFile


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


def read_run(setting: SteeredFile, annotations: Path) -> Run:
    records, labelled = read_labelled(setting.records, annotations)
    loops = sum(analysis.degenerate(record.response) for record in records) / len(records)
    tokens = sum(record.response_tokens for record in records) / len(records)
    return Run(setting.control, setting.layer, setting.weight, labelled, loops, tokens)
