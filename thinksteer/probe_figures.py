"""The figure of a direction's effects on questions of different kinds, by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from thinksteer.drawing import GREY, Style, frame, legend, save, series
from thinksteer.intervals import Estimate
from thinksteer.probes import ANSWER, BEGINNING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Means = Mapping[str, Sequence[Estimate]]
"""An estimate per layer of each measure."""

PALE = {"alpha": 0.45, "linewidth": 0.9}


def kinds_figure(control: str, found: Mapping[str, Means], path: Path) -> None:
    """What a direction does before the response (left) and before its answer (right), a colour for each kind.

    Above, how far what comes next moves (KL), pale: random vectors as long. Below, the gradient of the log-odds of what
    was said, pale: the size it has along random vectors, either way. `found` goes by the labels of `probes.by_level`.
    """
    kinds = list(dict.fromkeys(_kind(label) for label in found))
    places = [place for place in (BEGINNING, ANSWER) if any(label.endswith(f", {place}") for label in found)]
    figure, panels = frame(2 * len(places), 1.4 + 3.6 * len(places), 6.4, rows=2)
    for column, place in enumerate(places):
        above, below = panels[column], panels[len(places) + column]
        for index, kind in enumerate(kinds):
            if means := found.get(f"{kind}, {place}"):
                style = series(index, kind)
                _line(above, means["random"], style, pale=True)
                _line(above, means["kl"], style)
                size = [one.value for one in means["random_log_odds"]]
                for sign in (1, -1):
                    below.plot(range(len(size)), [sign * one for one in size], color=style.colour, **PALE)
                _line(below, means["signed_log_odds"], style)
        above.plot([], [], color=GREY, label="random vectors as long (pale)", **PALE)
        above.set_title(f"{control}\nbefore the {place}", fontsize=10)
        above.set_ylim(bottom=0)
        below.axhline(0, color="#888888", linewidth=0.8)
        below.set_xlabel("layer")
        for panel in (above, below):
            panel.locator_params(axis="x", integer=True)
    panels[0].set_ylabel("KL (nats)")
    panels[len(places)].set_ylabel("gradient of the log-odds\nof what was said (nats)")
    legend(figure, panels[0])
    save(figure, path)


def _kind(label: str) -> str:
    return label.rpartition(", ")[0]


def _line(panel: Axes, estimates: Sequence[Estimate], style: Style, pale: bool = False) -> None:
    """A line over layers, with its interval unless it is pale."""
    layers, values = range(len(estimates)), [one.value for one in estimates]
    if pale:
        panel.plot(layers, values, color=style.colour, **PALE)
        return
    low = [one.value if one.low is None else one.low for one in estimates]
    high = [one.value if one.high is None else one.high for one in estimates]
    panel.plot(layers, values, color=style.colour, marker=style.marker, markersize=4, label=style.label)
    panel.fill_between(layers, low, high, color=style.colour, alpha=0.2, linewidth=0)
