"""The section of a report on answer confidence along the chain, from the summaries of `scripts.track_confidence`."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from thinksteer import store
from thinksteer.intervals import Estimate
from thinksteer.page import Section
from thinksteer.report_files import picture, write_tables
from thinksteer.tables import Cell, Column, Table

STOPS = (0, 0.2, 0.4, 0.6, 0.8, 0.9, 1)
INTERVALS = "Brackets: 95 % intervals over questions: Wilson's for shares of yes and no, else a bootstrap."
EXITS = (
    "The thinking is closed at the last place within that share of each chain, and the answer asked for. At 100 % the"
    f" chain has ended by itself. {INTERVALS}"
)
CALIBRATION = (
    "At the last place of each chain. Calibration error: mean distance of confidence and accuracy over ten bins, beside"
    " it what it would be, were each answer right with the probability stated. Left out: chains that loop, and those to"
    f" which the choices are no answer. {INTERVALS}"
)
STEERED = f"Changes are from weight 0, on the chains that count in both; not corrected for their number. {INTERVALS}"

FILE = (Column("records", "text"), Column("chains", "count"), Column("left out", "count"))
CONTROL = (Column("control", "text"), Column("weight", "rate"), Column("chains", "count"), Column("left out", "count"))
CHANGES = {
    "score": Column("score, nats", "rate"),
    "probability": Column("final probability of the answer, points", "change"),
    "confidence": Column("final confidence, points", "change"),
    "accuracy": Column("accuracy, points", "change"),
    "tokens": Column("tokens", "token_change"),
}


def confidence_summaries(root: Path, model: str) -> list[Path]:
    """Those of one model: of record files, and of controls with all of their weights (`summary.json`)."""
    return sorted(root.glob(f"confidence/*/{store.slug(model)}/**/*summary.json"))


def confidence_section(root: Path, model: str, folder: Path) -> Section:
    """Tables, which are written to `folder` too, and the figures that are there."""
    paths = confidence_summaries(root, model)
    found = {str(path.relative_to(root / "confidence")): store.read_json(path) for path in paths}
    files = {_records(name): one for name, one in found.items() if "records" in one}
    sweeps = {name: one for name, one in found.items() if "sweeps" in one}
    slug = store.slug(model)
    made = [
        _exits(f"{slug}.confidence_exits", files),
        _calibration(f"{slug}.confidence_calibration", files),
        _steered(f"{slug}.confidence_steered", list(sweeps.values())),
    ]
    tables = tuple(table for table in made if table.rows)
    write_tables(tables, folder)
    # Of steered records only those that hold all weights together.
    figures = [
        figure
        for path, one in zip(paths, found.values(), strict=True)
        if not one.get("steering")
        for figure in _figures(path)
    ]
    return Section(f"Answer confidence of {model}", tables, tuple(picture(figure) for figure in figures))


def _records(name: str) -> str:
    """`responses/<model>/<dataset>.summary.json` -> `responses/<dataset>`."""
    stage, _, *rest = Path(name).parts
    return "/".join([stage, *rest]).removesuffix(".summary.json")


def _figures(summary: Path) -> list[Path]:
    """The pictures beside a summary that are of the same records."""
    begin = r"(layer\d+\.)?" if summary.name == "summary.json" else re.escape(summary.name.removesuffix("summary.json"))
    names = re.compile(begin + r"(summary|trajectories|exits|reliability)\.png")
    return [path for path in sorted(summary.parent.iterdir()) if names.fullmatch(path.name)]


def _estimate(value: dict[str, Any] | None) -> Estimate | None:
    return None if value is None else Estimate(**value)


def _counted(counts: dict[str, int]) -> tuple[int, int]:
    return counts["used"], counts["chains"] - counts["used"]


def _exits(name: str, files: dict[str, dict[str, Any]]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for records, one in files.items():
        at = {stop["place"]: _estimate(stop["accuracy"]) for stop in one.get("by_share", ())}
        if any(at.values()):
            rows.append((records, *_counted(one["counts"]), *(at[stop] for stop in STOPS)))
    columns = (*FILE, *(Column(f"{100 * stop:.0f} %", "share") for stop in STOPS))
    return Table(
        name, "Accuracy if the chain is stopped, %, by the share of it that is done", columns, tuple(rows), EXITS
    )


def _calibration(name: str, files: dict[str, dict[str, Any]]) -> Table:
    measures = {"confidence": "final confidence, %", "accuracy": "right, %", "error": "calibration error, points"}
    rows: list[tuple[Cell, ...]] = []
    for records, one in files.items():
        if found := one.get("reliability"):
            cells = [_estimate(found[measure]) for measure in measures]
            brier = _estimate(found["brier"])
            rows.append((records, *_counted(one["counts"]), *cells, found["error_if_calibrated"], brier))
    columns = (*FILE, *(Column(title, "share") for title in measures.values()))
    columns = (*columns, Column("error if calibrated, points", "share"), Column("Brier score", "rate"))
    return Table(name, "Confidence in the final answers", columns, tuple(rows), CALIBRATION)


def _steered(name: str, sweeps: Sequence[dict[str, Any]]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for line in (line for one in sweeps for line in [*one["sweeps"], *one["random"]]):
        for point in line["points"]:
            if point["weight"]:
                changes = [_estimate(point[measure]["change"]) for measure in CHANGES]
                rows.append((line["title"], point["weight"], *_counted(point["counts"]), *changes))
    columns = (*CONTROL, *CHANGES.values())
    return Table(name, "Change of confidence under steering", columns, tuple(rows), STEERED)
