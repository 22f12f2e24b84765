"""The figures of models and edits. A function takes numbers and the path of the PNG it writes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from thinksteer.analysis import accuracy_below, accuracy_by_length
from thinksteer.comparison import Family
from thinksteer.drawing import COLOURS, GREY, Style, blank, curve, frame, legend, save, series, whole_numbers
from thinksteer.intervals import Floats
from thinksteer.records import Head

BINS = 30


def styles(family: Family) -> dict[str, Style]:
    """The style of each model of a family, the same in every figure; the controls, often a dozen, share one."""
    edits, controls = family.having("edited"), family.having("control")
    result = {family.base.model: series(0, family.base.model)} if family.base else {}
    result |= {member.model: series(index, member.model) for index, member in enumerate(edits, start=1)}
    for index, member in enumerate(controls):
        label = f"random controls ({len(controls)})" if index == 0 else None
        result[member.model] = Style(GREY, "-", "", label, quiet=True)
    return result


def threshold_figure(family: Family, path: Path) -> None:
    """The paper's plot: accuracy of the responses whose thinking is shorter than a threshold, by threshold.

    The thresholds are spaced by ratio, not evenly as upstream's, since what the edit changes is at the short end.
    """
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    lengths = np.concatenate([member.outcomes.lengths for member in family.members])
    first = max(1.0, float(np.quantile(lengths, 0.01))) if len(lengths) else 1.0
    thresholds = np.geomspace(first, max(lengths, default=1) + 1, BINS)
    figure, (panel,) = frame(1, 7, 4)
    for member in family.members:
        below = accuracy_below(member.outcomes, thresholds.tolist())
        drawn = [(at, one) for at, one in zip(thresholds, below, strict=True) if one is not None]
        curve(panel, [at for at, _ in drawn], [one for _, one in drawn], styles(family)[member.model])
    panel.set(xscale="log", xlim=thresholds[[0, -1]], xlabel="threshold (tokens of thinking, log scale)")
    panel.set(ylabel="accuracy below the threshold (%)", ylim=(0, 102))
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.xaxis.set_major_formatter(ScalarFormatter())
    panel.xaxis.set_minor_formatter(NullFormatter())
    legend(figure, panel)
    save(figure, path)


def decile_figure(family: Family, path: Path) -> None:
    """Accuracy within each tenth of a model's responses, from its shortest thinking to its longest."""
    figure, (panel,) = frame(1, 7, 4)
    loud = [member.model for member in family.members if member.role != "control"]
    for member in family.members:
        style = styles(family)[member.model]
        estimates = [one for _, one in accuracy_by_length(member.outcomes)]
        xs = np.arange(1, len(estimates) + 1, dtype=np.float64)
        values = np.asarray([100 * one.value for one in estimates])
        below = values - [100 * (one.value if one.low is None else one.low) for one in estimates]
        above = [100 * (one.value if one.high is None else one.high) for one in estimates] - values
        if not style.quiet:
            xs += 0.12 * (loud.index(member.model) - (len(loud) - 1) / 2)  # side by side
        panel.errorbar(
            xs,
            values,
            yerr=None if style.quiet else np.stack([below, above]),
            color=style.colour,
            linestyle=style.line,
            marker=style.marker,
            markersize=4,
            linewidth=0.9 if style.quiet else 1.2,
            label=style.label,
        )
    panel.set(xlabel="tenth of the model's own responses (1: shortest thinking)", ylabel="accuracy (%)", ylim=(-2, 102))
    panel.set_xticks(range(1, 11))
    legend(figure, panel)
    save(figure, path)


def length_histogram(lengths: Mapping[str, Sequence[int] | Floats], path: Path) -> None:
    """Thinking lengths in tokens by name, in shared bins, as shares of each name's responses; dashed lines: means."""
    longest = max((max(values) for values in lengths.values() if len(values)), default=0)
    edges = np.linspace(0, longest + 1, BINS + 1)
    figure, (panel,) = frame(1, 7, 3.4)
    for index, (name, values) in enumerate(lengths.items()):
        if not len(values):
            continue
        colour = series(index).colour
        weights = np.full(len(values), 100 / len(values))
        panel.hist(values, edges, weights=weights, color=colour, alpha=0.18)
        label = f"{name} (mean {np.mean(values):.0f}, n = {len(values)})"
        panel.hist(values, edges, weights=weights, color=colour, histtype="step", linewidth=1.6, label=label)
        panel.axvline(float(np.mean(values)), color=colour, linestyle="--", linewidth=1.1)
    panel.set(xlabel="thinking length (tokens)", ylabel="share of responses (%)")
    panel.set_xlim(0, longest + 1)
    legend(figure, panel)
    save(figure, path)


def direction_figure(norms: Sequence[float], cosines: Sequence[float], path: Path) -> None:
    """Per layer: the direction's norm, and the cosine between the two means that it leads between. `[num_layers]`."""
    figure, panels = frame(2, 7.4, 3)
    for panel, values, colour in zip(panels, (norms, cosines), COLOURS, strict=False):
        panel.plot(range(len(values)), values, color=colour, marker="o", markersize=3)
        whole_numbers(panel.xaxis)
        panel.set_xlabel("layer")
    panels[0].set(ylabel="norm of the direction")
    panels[0].set_ylim(bottom=0)
    panels[1].set(ylabel="cosine of the two means")
    save(figure, path)


def head_heatmap(scores: ArrayLike, heads: Sequence[Head], path: Path) -> None:
    """Head scores `[num_layers, num_heads]`, red where a head writes the short-reasoning direction; boxes: `heads`."""
    grid = np.asarray(scores, dtype=np.float64)
    limit = float(np.quantile(np.abs(grid), 0.99)) or 1.0  # one extreme head must not grey out all others
    n_layers, n_heads = grid.shape
    cell = min(0.45, 6.2 / n_heads, 9 / n_layers)  # inches
    figure = blank(max(3.2, n_heads * cell) + 1.6, max(2.2, n_layers * cell) + 0.9)
    panel = figure.subplots()
    image = panel.imshow(grid, cmap="coolwarm", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    size = 72 * cell * 0.62  # points
    panel.plot(
        [head.head for head in heads],
        [head.layer for head in heads],
        linestyle="none",
        marker="s",
        markersize=size,
        markerfacecolor="none",
        markeredgecolor="black",
        markeredgewidth=max(0.6, size / 12),
    )
    panel.set(xlabel="head", ylabel="layer")
    whole_numbers(panel.xaxis)
    whole_numbers(panel.yaxis)
    bar = figure.colorbar(image, ax=panel, fraction=0.05, extend="both")
    bar.set_label("writes short reasoning (score)")
    save(figure, path)
