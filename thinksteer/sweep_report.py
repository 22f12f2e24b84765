"""The section of a report that shows the steering of one model on one dataset, from the summaries of stage 3."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from thinksteer import store
from thinksteer.analysis import identities
from thinksteer.page import Section
from thinksteer.records import InputError, Record
from thinksteer.report_files import draw, write_tables
from thinksteer.sweep import Point, by_layer, change, curves, steered_beside, with_accuracy
from thinksteer.sweep_figures import layerwise_figure, steering_figure, tokens_figure
from thinksteer.sweep_tables import Contrast, sweep_tables

BANDS = "bands: 95 % intervals."
CURVES = {  # a kind of curve: its figure and caption; weights of different kinds do not share an axis
    "all layers": ("steering", f"Steered in all layers, or in several at once; {BANDS}"),
    "one layer": ("steering_one_layer", f"Steered in one layer; {BANDS}"),
    "logits": ("steering_logits", f"Weights added to the logits of some tokens; {BANDS}"),
}
TOKENS = (
    "Accuracy against the tokens of the responses; numbers: weights, bars: 95 % intervals. Better than no steering, the"
    " cross-hair, is what lies above it and, at no loss of accuracy, what lies to its left."
)


@dataclass(frozen=True)
class Sweeps:
    """Every setting with which one model was steered on one dataset."""

    model: str
    dataset: str
    points: tuple[Point, ...]


def find_sweeps(root: Path, models: Sequence[str] | None) -> list[Sweeps]:
    """The summaries of these models (None: of all), by model and dataset."""
    grouped: dict[tuple[str, str], list[Point]] = {}
    for path in summary_paths(root, models):
        summary = store.read_json(path, "model", "dataset", "points")
        about = {key: summary[key] for key in ("control", "adds_to", "layers") if key in summary}
        points = [about | point for point in summary["points"]]
        if "adds_to" not in about or any("n_graded" not in point for point in points):
            raise InputError(f"{path} is from an earlier version: run steer_eval.py again")
        grouped.setdefault((summary["model"], summary["dataset"]), []).extend(points)
    return [Sweeps(model, dataset, tuple(points)) for (model, dataset), points in grouped.items()]


def summary_paths(root: Path, models: Sequence[str] | None) -> list[Path]:
    names = ["*"] if models is None else [store.slug(model) for model in models]
    return [path for name in names for path in sorted(root.glob(f"steering/{name}/*/*/summary.json"))]


def beside_random(sweeps: Sweeps) -> list[tuple[Point, Point]]:
    """Each setting with each random control's at the same weight and place, if the token budget is the same."""
    same = ("layer", "weight", "max_length")
    return [
        (point, other)
        for point in sweeps.points
        for other in sweeps.points
        if point["weight"]
        and steered_beside(other["control"]) == point["control"]
        and all(point[key] == other[key] for key in same)
    ]


def records_compared(root: Path, sweeps: Sweeps) -> list[Path]:
    """The record files that are read beside the summaries."""
    return list(dict.fromkeys(_path(root, sweeps, point) for pair in beside_random(sweeps) for point in pair))


def contrasts(root: Path, sweeps: Sweeps) -> list[Contrast]:
    """Every setting minus its random controls, from the records of both."""
    found = []
    for point, other in beside_random(sweeps):
        of, against = (_read(_path(root, sweeps, one)) for one in (point, other))
        if not identities(of) & identities(against):
            raise InputError(
                f"{sweeps.dataset}: {point['control']} and {other['control']} at weight {point['weight']:g} share no "
                "(question, sample); steer both on the same questions"
            )
        found.append(Contrast(point, other["control"], change(against, of)))
    return found


def _path(root: Path, sweeps: Sweeps, point: Point) -> Path:
    return store.steering_path(root, sweeps.model, sweeps.dataset, point["control"], point["weight"], point["layer"])


def _read(path: Path) -> list[Record]:
    """Without token ids, which take most of the memory and are not analysed."""
    return list(store.iterate_records(path, token_ids=False))


def sweep_section(root: Path, sweeps: Sweeps, folder: Path) -> Section:
    """Figures and tables, which are written to `folder` too."""
    name, points = f"{store.slug(sweeps.model)}.{store.slug(sweeps.dataset)}", sweeps.points
    drawn, pictures = curves(points), []
    for kind, (figure, caption) in CURVES.items():
        if of_kind := [curve for curve in drawn if curve.kind == kind]:
            pictures.append(draw(steering_figure, of_kind, folder / f"{name}.{figure}.png", caption))
    if counted := with_accuracy(drawn):
        pictures.append(draw(tokens_figure, counted, folder / f"{name}.tokens.png", TOKENS))
    for control in dict.fromkeys(point["control"] for point in points):
        if of_control := by_layer([point for point in points if point["control"] == control]):
            path = folder / f"{name}.{store.slug(control)}.layers.png"
            caption = f"{control}, steered in one layer at a time; {BANDS}"
            pictures.append(draw(layerwise_figure, of_control, path, caption))
    tables = sweep_tables(f"{sweeps.model} on {sweeps.dataset}", name, points, contrasts(root, sweeps))
    write_tables(tables, folder)
    return Section(f"Steering {sweeps.model} on {sweeps.dataset}", tuple(tables), tuple(pictures))
