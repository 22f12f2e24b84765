"""The figures of labelled spans: how often each label occurs, and how well a model's states tell the labels apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from thinksteer.classes import Usage
from thinksteer.drawing import COLOURS, GREY, Style, curve, frame, legend, save, series, whole_numbers
from thinksteer.intervals import Estimate

if TYPE_CHECKING:
    from thinksteer.separability import Floats, Names, Separation

BY = {"all": "#000000", "verdict": COLOURS[1], "level": COLOURS[0]}
"""Colour of each way of grouping responses."""


@dataclass(frozen=True, eq=False)
class View:
    """States laid out in the plane, `[N, 2]`."""

    title: str
    points: Floats


def usage_figure(usages: Sequence[Usage], path: Path) -> None:
    """A column of panels per label: its spans per response above, its share of the tokens below, for each group."""
    labels = list(dict.fromkeys(one.label for one in usages))
    figure, panels = frame(2 * len(labels), 1.2 + 2.9 * len(labels), 5.6, rows=2)
    for column, label in enumerate(labels):
        rows = [one for one in usages if one.label == label]
        above, below = panels[column], panels[len(labels) + column]
        above.set_title(label, fontsize=10)
        for place, one in enumerate(rows):
            for panel, estimate, scale in ((above, one.spans, 1), (below, one.share, 100)):
                if estimate is not None:
                    low, high = _reach(estimate, scale)
                    value = scale * estimate.value
                    error = [[value - low], [high - value]]
                    style = {"color": BY[one.by], "marker": "o", "markersize": 5, "capsize": 3, "clip_on": False}
                    panel.errorbar([place], [value], yerr=error, **style)
        for panel in (above, below):
            panel.set_xticks(range(len(rows)), [one.group for one in rows], rotation=35, ha="right")
            panel.set_xlim(-0.6, len(rows) - 0.4)
            panel.set_ylim(bottom=0)
    panels[0].set_ylabel("spans per response")
    panels[len(labels)].set_ylabel("share of labelled tokens (%)")
    save(figure, path)


def reroll_figure(rates: Mapping[str, Sequence[float]], path: Path) -> None:
    """By label: the share of spans (%) that come out with the same label at least so often when drawn anew."""
    figure, (panel,) = frame(1, 6, 3.6)
    for index, (label, found) in enumerate(sorted(rates.items())):
        ordered = sorted(found, reverse=True)
        shares = [100 * (place + 1) / len(ordered) for place in range(len(ordered))]
        name = f"{label} (n = {len(found)})"
        panel.step([1, *ordered, 0], [0, *shares, 100], where="post", color=COLOURS[index], label=name)
    panel.set(xlabel="share of draws with the same label, at least", ylabel="spans (%)", xlim=(1, 0), ylim=(0, 102))
    legend(figure, panel)
    save(figure, path)


def separability_figure(
    found: Sequence[Separation], cosines: Sequence[float | None], n_labels: int, toward: str, path: Path
) -> None:
    """By layer: balanced accuracy of all labels, that and AUC of the direction's two sides (dotted: guessing), and the
    silhouette beside the cosines of the direction with what the probe has found."""
    figure, panels = frame(4, 8.6, 6.2, rows=2)
    layers = range(len(found))
    probe, along = series(0, "probe"), series(1, "along the direction alone")
    lines = (
        (panels[0], [one.balanced for one in found], probe),
        (panels[0], [one.shuffled for one in found], Style(GREY, "-", "", "probe, labels of other questions")),
        (panels[1], [one.sides for one in found], probe),
        (panels[1], [one.direction for one in found], along),
        (panels[2], [one.sides_auc for one in found], probe),
        (panels[2], [one.direction_auc for one in found], along),
    )
    for panel, estimates, style in lines:
        curve(panel, layers, estimates, style)
    titles = ("all labels", f"{toward} or not", f"{toward} or not")
    guesses, units = (1 / n_labels, 0.5, 0.5), ("balanced accuracy (%)", "balanced accuracy (%)", "AUC (%)")
    for panel, title, guess, unit in zip(panels, titles, guesses, units, strict=False):
        panel.axhline(100 * guess, color="#555555", linestyle=":", linewidth=1)
        panel.set(ylabel=unit, ylim=(0, 102))
        panel.set_title(title, fontsize=10)
        panel.legend(loc="best", frameon=False, fontsize=8)
    shapes = (
        (series(2, "silhouette of the labels"), [one.silhouette for one in found]),
        (series(3, "cosine of probe and direction"), cosines),
    )
    for style, values in shapes:  # None leaves a gap
        known = [float("nan") if value is None else value for value in values]
        panels[3].plot(layers, known, color=style.colour, marker=style.marker, markersize=4, label=style.label)
    panels[3].axhline(0, color="#555555", linestyle=":", linewidth=1)
    lowest = min(value for _, values in shapes for value in (0, *values) if value is not None)
    panels[3].set(ylim=(lowest - 0.1, 1.4), yticks=[tick for tick in (-1, -0.5, 0, 0.5, 1) if tick >= lowest - 0.1])
    panels[3].set_title("shape", fontsize=10)
    panels[3].legend(loc="upper right", frameon=False, fontsize=8)
    for panel in panels:
        panel.set_xlabel("layer")
        panel.set_xlim(-0.3, len(found) - 0.7)
        whole_numbers(panel.xaxis)
    save(figure, path)


def states_figure(rows: Sequence[Sequence[View]], examples: Names, labels: Sequence[str], path: Path) -> None:
    """Rows of views, the last may be shorter; the states' labels, `examples` `[N]`, are told apart by colour."""
    views, columns = [view for row in rows for view in row], len(rows[0])
    figure, panels = frame(len(rows) * columns, 0.6 + 3.4 * columns, 0.5 + 3.2 * len(rows), rows=len(rows))
    for panel in panels[len(views) :]:
        panel.set_axis_off()
    for panel, view in zip(panels, views, strict=False):
        for index, label in enumerate(labels):
            own = examples == label
            style = series(index, f"{label} (n = {own.sum()})")
            panel.scatter(
                *view.points[own].T,
                s=9,
                c=style.colour,
                marker=style.marker,
                alpha=0.6,
                linewidths=0,
                label=style.label,
            )
        panel.set_title(view.title, fontsize=9)
        panel.set(xticks=[], yticks=[])
    legend(figure, panels[0])
    save(figure, path)


def _reach(estimate: Estimate, scale: float) -> tuple[float, float]:
    """The ends of an interval; the value itself where there is none."""
    if estimate.low is None or estimate.high is None:
        return scale * estimate.value, scale * estimate.value
    return scale * estimate.low, scale * estimate.high
