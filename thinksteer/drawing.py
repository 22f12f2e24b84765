"""What the figures share: colours, panels, legends, bands.

Colours are Okabe and Ito's (told apart by colour-blind readers): the base is blue, its edits orange first, and random
controls are grey.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from numpy.typing import ArrayLike

from thinksteer.intervals import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#8a8a8a"
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


@dataclass(frozen=True)
class Style:
    """How one series is drawn; `quiet`: a thin line without interval."""

    colour: str
    line: str
    marker: str
    label: str | None
    quiet: bool = False


def series(index: int, label: str | None = None) -> Style:
    return Style(COLOURS[index % len(COLOURS)], "-", MARKERS[index % len(MARKERS)], label)


def blank(width: float, height: float) -> Figure:
    """An empty figure, `width` x `height` inches."""
    # Here, since it takes a second: a script that draws nothing does without.
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["text.parse_math"] = False  # names and kinds of questions may have dollars
    return Figure(figsize=(width, height), layout="constrained")


def whole_numbers(axis: Axis) -> None:
    """Ticks at whole numbers only: layers, heads, steps."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True))


def frame(count: int, width: float, height: float, stacked: bool = False, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels, `width` x `height` inches in all, without the frame's top and right.

    `stacked`: one above the other along the same x, else in `rows` of as many each.
    """
    figure = blank(width, height)
    rows, columns = (count, 1) if stacked else (rows, count // rows)
    panels = list(figure.subplots(rows, columns, squeeze=False, sharex=stacked).flat)
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(True, color="#e4e4e4", linewidth=0.6)
        panel.set_axisbelow(True)
    return figure, panels


def save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=150, format="png")


def legend(figure: Figure, panel: Axes) -> None:
    """Names above the panels, where they cover no data; none for a single unnamed series."""
    handles, labels = panel.get_legend_handles_labels()
    if labels:
        columns = 1 if max(map(len, labels)) > 40 else 2
        figure.legend(handles, labels, loc="outside upper left", ncols=columns, frameon=False, fontsize=9)


def curve(panel: Axes, xs: ArrayLike, estimates: Sequence[Estimate], style: Style) -> None:
    """Accuracies in % with their intervals as a band."""
    width, values = 0.9 if style.quiet else 1.6, [100 * one.value for one in estimates]
    panel.plot(xs, values, style.line, color=style.colour, label=style.label, linewidth=width)
    if style.quiet:
        return
    low = [100 * (one.value if one.low is None else one.low) for one in estimates]
    high = [100 * (one.value if one.high is None else one.high) for one in estimates]
    panel.fill_between(xs, low, high, color=style.colour, alpha=0.13, linewidth=0)
