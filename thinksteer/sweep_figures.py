"""The figures of steering. A function takes the points or curves of summaries and the path of the PNG it writes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from thinksteer.drawing import GREY, Style, frame, legend, save, series
from thinksteer.sweep import Curve, Point, steered_beside

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LABELS = {"accuracy": "accuracy (%)", "mean_length": "mean thinking (tokens)", "mean_tokens": "mean response (tokens)"}
CORNERS = [
    {"xytext": (3 * right, 3 * up), "ha": "left" if right > 0 else "right", "va": "bottom" if up > 0 else "top"}
    for right, up in ((1, 1), (-1, -1), (1, -1), (-1, 1))
]
"""Where the weights stand beside the points of the first curve, the second, ...; apart, since the points are close."""


def styles(drawn: Sequence[Curve]) -> list[Style]:
    """A colour and marker per curve; a random control has the marker of what it is the control of, in grey."""
    steered = [(curve.control, curve.layer) for curve in drawn if steered_beside(curve.control) is None]
    result = []
    for curve in drawn:
        beside = steered_beside(curve.control)
        of = (beside or curve.control, curve.layer)
        style = series(steered.index(of) if of in steered else len(steered), curve.label)
        result.append(style if beside is None else replace(style, colour=GREY, quiet=True))
    return result


def _scaled(point: Point, key: str) -> tuple[float, float, float]:
    """A metric with its interval, accuracies in %; where there is no interval, its ends are the metric itself."""
    scale, value = 100 if key == "accuracy" else 1, point[key]
    low, high = (value if end is None else end for end in point[f"{key}_interval"])
    return scale * value, scale * low, scale * high


def _metric(panel: Axes, xs: Sequence[float], points: Sequence[Point], key: str, style: Style) -> None:
    """A metric of steering points, with its interval unless the style is quiet; left out where it does not exist."""
    drawn = [(x, *_scaled(point, key)) for x, point in zip(xs, points, strict=True) if point[key] is not None]
    at, values, low, high = zip(*drawn, strict=True) if drawn else ((), (), (), ())
    width = 0.9 if style.quiet else 1.6
    panel.plot(at, values, color=style.colour, marker=style.marker, markersize=4, linewidth=width, label=style.label)
    if not style.quiet:
        panel.fill_between(at, low, high, color=style.colour, alpha=0.15, linewidth=0)


def _panels(xlabel: str, points: Iterable[Point]) -> tuple[Figure, dict[str, Axes]]:
    """Accuracy, unless no point has any (the questions are open), above thinking length."""
    keys = ["accuracy", "mean_length"] if any(point["accuracy"] is not None for point in points) else ["mean_length"]
    figure, drawn = frame(len(keys), 7, 2.7 * len(keys), stacked=True)
    panels = dict(zip(keys, drawn, strict=True))
    for key, panel in panels.items():
        panel.set_ylabel(LABELS[key])
    if "accuracy" in panels:
        panels["accuracy"].set_ylim(0, 102)
    panels["mean_length"].set_xlabel(xlabel)
    return figure, panels


def steering_figure(drawn: Sequence[Curve], path: Path) -> None:
    """Accuracy, if any is graded, and mean thinking length against the weight, one line per control and layer."""
    logits = all(curve.kind == "logits" for curve in drawn)
    xlabel = f"weight {'added to the logits' if logits else 'of the direction'} (0: not steered)"
    figure, panels = _panels(xlabel, [point for curve in drawn for point in curve.points])
    for curve, style in zip(drawn, styles(drawn), strict=True):
        weights = [float(point["weight"]) for point in curve.points]
        for key, panel in panels.items():
            _metric(panel, weights, curve.points, key, style)
    for panel in panels.values():
        panel.axvline(0, color="#888888", linewidth=0.8)
    panels["mean_length"].set_ylim(bottom=0)
    legend(figure, panels["mean_length"])
    save(figure, path)


def layerwise_figure(points: Sequence[Point], path: Path) -> None:
    """Accuracy and mean length against the one steered layer, a line per weight; dashed: not steered, if measured."""
    figure, panels = _panels("steered layer", points)
    single = [point for point in points if point["layer"] is not None]
    unsteered = next((point for point in points if point["layer"] is None and point["weight"] == 0), None)
    for index, weight in enumerate(sorted({float(point["weight"]) for point in single})):
        line = sorted((p for p in single if float(p["weight"]) == weight), key=lambda p: int(p["layer"]))
        for key, panel in panels.items():
            _metric(panel, [int(p["layer"]) for p in line], line, key, series(index, f"weight {weight:+g}"))
    for key, panel in panels.items():
        if unsteered is not None and unsteered[key] is not None:
            value, _, _ = _scaled(unsteered, key)
            panel.axhline(value, color="#555555", linestyle="--", linewidth=1, label="not steered")
        panel.locator_params(axis="x", integer=True)
    panels["mean_length"].set_ylim(bottom=0)
    legend(figure, panels["mean_length"])
    save(figure, path)


def tokens_figure(drawn: Sequence[Curve], path: Path) -> None:
    """Accuracy against mean tokens of the responses, weights beside the points; cross-hair: not steered.

    Random controls go without weights and intervals, which would hide the rest. Every point needs an accuracy
    (`sweep.with_accuracy`).
    """
    figure, (panel,) = frame(1, 7, 5)
    for index, (curve, style) in enumerate(zip(drawn, styles(drawn), strict=True)):
        at = [(_scaled(point, "mean_tokens")[0], _scaled(point, "accuracy")[0]) for point in curve.points]
        width = 0.9 if style.quiet else 1.4
        line = {"color": style.colour, "marker": style.marker, "markersize": 4, "linewidth": width}
        panel.plot(*zip(*at, strict=True), **line, label=style.label)
        for place, point in [] if style.quiet else zip(at, curve.points, strict=True):
            _cross(panel, point, style.colour)
            if point["weight"]:
                text, aside = f"{point['weight']:+g}", CORNERS[index % len(CORNERS)]
                panel.annotate(text, place, **aside, textcoords="offset points", color=style.colour, fontsize=8)
    unsteered = {(point["mean_tokens"], point["accuracy"]) for c in drawn for point in c.points if not point["weight"]}
    for index, (x, y) in enumerate(sorted(unsteered)):
        dashed = {"color": "#555555", "linestyle": "--", "linewidth": 1}
        panel.axvline(x, **dashed, label=None if index else "not steered")
        panel.axhline(100 * y, **dashed)
    panel.set(xlabel=LABELS["mean_tokens"], ylabel=LABELS["accuracy"])
    legend(figure, panel)
    save(figure, path)


def _cross(panel: Axes, point: Point, colour: str) -> None:
    """Both intervals of a point, faint, since there are many and they cross."""
    (x, left, right), (y, low, high) = _scaled(point, "mean_tokens"), _scaled(point, "accuracy")
    panel.plot([left, right], [y, y], color=colour, alpha=0.45, linewidth=0.9)
    panel.plot([x, x], [low, high], color=colour, alpha=0.45, linewidth=0.9)
