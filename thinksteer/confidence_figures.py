"""The figures of answer confidence along chains. A function takes named sets of trajectories, or numbers of
`calibration`, and the path of the PNG it writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from thinksteer.calibration import Exit, Reliability, Strength
from thinksteer.drawing import GREY, Style, curve, frame, legend, save, series
from thinksteer.intervals import Estimate, mean
from thinksteer.trajectories import Trajectory

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SINGLE, POINTS = 4, 60  # chains drawn one by one, places of the mean
MEASURED = {
    "score": "smoothed score\n(nats)",
    "probability": "final probability\nof the answer",
    "confidence": "final confidence\nin the likeliest",
}
WORDS = {"log_odds": "log-odds (nats)", "probability": "probability"}


def trajectories_figure(named: Mapping[str, Sequence[Trajectory]], what: str, path: Path) -> None:
    """Mean log-odds and probability of the followed choice by tokens of the response, with intervals, a colour for each
    name; a chain that has ended keeps its last value. Pale: single chains. Triangles: the (mean) end of thinking.

    `what`: whose odds they are, in words. The axis ends where 95 % of the longest set's chains have.
    """
    last = max(float(np.quantile([one.at[-1] for one in chains], 0.95)) for chains in named.values())
    places = np.linspace(0, max(last, 1.0), POINTS)
    figure, panels = frame(2, 7, 6.2, stacked=True)
    for panel, key in zip(panels, WORDS, strict=True):
        for index, (name, chains) in enumerate(named.items()):
            style = series(index, f"{name} (n = {len(chains)})")
            values = np.array([_held(one, key, places) for one in chains])  # [N, POINTS]
            means = [mean([one.id for one in chains], column.tolist(), None) for column in values.T]
            _band(panel, places, [one for one in means if one is not None], style)
            for one in chains[:SINGLE]:
                panel.plot(one.at, getattr(one, key), color=style.colour, alpha=0.3, linewidth=0.7)
            ends = [one.thinking_end for one in chains if one.thinking_end is not None]
            if ends:
                end = float(np.mean(ends))
                height = np.interp(end, places, values.mean(axis=0))
                panel.plot([end], [height], "v", color=style.colour, markersize=9, markeredgecolor="white")
        panel.set_ylabel(f"{WORDS[key]}\nof {what}")
    panels[0].axhline(0, color="#888888", linewidth=0.8)
    panels[1].set(ylim=(-0.02, 1.02), xlim=(0, places[-1]), xlabel="tokens of the response (▼ mean end of thinking)")
    legend(figure, panels[1])
    save(figure, path)


def _held(one: Trajectory, key: str, places: Sequence[float]) -> np.ndarray:
    """A chain's values at these tokens: each place's own until the next one, the last one's from there on."""
    stops = np.maximum(np.searchsorted(one.at, places, side="right") - 1, 0)
    return np.asarray(getattr(one, key))[stops]


def _band(panel: Axes, xs: Sequence[float], means: Sequence[Estimate], style: Style) -> None:
    panel.plot(xs, [one.value for one in means], color=style.colour, linewidth=1.8, label=style.label)
    low = [one.value if one.low is None else one.low for one in means]
    high = [one.value if one.high is None else one.high for one in means]
    panel.fill_between(xs, low, high, color=style.colour, alpha=0.15, linewidth=0)


def exits_figure(named: Mapping[str, tuple[Sequence[Exit], Sequence[Exit]]], path: Path) -> None:
    """Accuracy of the likeliest choice had all chains been stopped: by share of the chain done, and by tokens."""
    figure, panels = frame(2, 8.4, 3.8)
    for index, (name, exits) in enumerate(named.items()):
        for panel, line, scale in zip(panels, exits, (100, 1), strict=True):
            graded = [(one.place, one.accuracy) for one in line if one.accuracy is not None]
            curve(panel, [scale * place for place, _ in graded], [one for _, one in graded], series(index, name))
    panels[0].set(ylabel="accuracy if stopped there (%)", ylim=(0, 102), xlabel="of the chain done (%)")
    panels[1].set(ylim=(0, 102), xlabel="tokens of the response")
    legend(figure, panels[0])
    save(figure, path)


def reliability_figure(found: Reliability, path: Path) -> None:
    """How many answers are right against the confidence in them; the areas go by how many answers there are."""
    figure, (panel,) = frame(1, 5.4, 5)
    panel.plot([0, 100], [0, 100], color=GREY, linestyle="--", linewidth=1, label="calibrated")
    colour, total = series(0).colour, sum(one.accuracy.n for one in found.bins)
    for one in found.bins:
        x, low, high = (100 * value for value in (one.confidence, one.accuracy.low or 0, one.accuracy.high or 0))
        if one.accuracy.low is not None:
            panel.plot([x, x], [low, high], color=colour, linewidth=1.1)
        y, size = 100 * one.accuracy.value, 4 + 16 * (one.accuracy.n / total) ** 0.5  # points
        panel.plot([x], [y], "o", color=colour, markersize=size)
        aside = (5, 9) if y < 50 else (9, -12)
        panel.annotate(str(one.accuracy.n), (x, y), xytext=aside, textcoords="offset points", fontsize=8)
    panel.set(xlabel="confidence in the final answer (%)", ylabel="right (%)", xlim=(-3, 108), ylim=(-4, 104))
    calibrated = f"{found.error_if_calibrated:.3f} if calibrated"
    panel.set_title(f"calibration error {found.error.value:.3f} ({calibrated}), n = {total}", fontsize=10)
    legend(figure, panel)
    save(figure, path)


def strength_figure(lines: Mapping[str, Sequence[Strength]], random: Sequence[str], path: Path) -> None:
    """Mean score, final probability and final confidence against the steering weight, a line per control; those named
    in `random` are grey."""
    figure, panels = frame(len(MEASURED), 7, 7.5, stacked=True)
    for (key, label), panel in zip(MEASURED.items(), panels, strict=True):
        for index, (name, points) in enumerate(lines.items()):
            found = [(one.weight, getattr(one, key).value) for one in points]
            drawn = [(weight, value) for weight, value in found if value is not None]
            style = Style(GREY, "--", "s", name) if name in random else series(index, name)
            weights = [weight for weight, _ in drawn]
            _band(panel, weights, [one for _, one in drawn], style)
            panel.plot(weights, [one.value for _, one in drawn], style.marker, color=style.colour, markersize=5)
        panel.axvline(0, color="#888888", linewidth=0.8)
        panel.set_ylabel(label)
    panels[-1].set_xlabel("weight of the direction (0: not steered)")
    legend(figure, panels[-1])
    save(figure, path)
