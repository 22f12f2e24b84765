"""The figures of effects by layer: where a vector changes what comes next, and which estimates see the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from thinksteer.drawing import COLOURS, GREY, Style, frame, legend, save, whole_numbers
from thinksteer.intervals import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STYLES = {
    "kl": Style(COLOURS[0], "-", "o", "KL by patching"),
    "random": Style(GREY, "-", "", "random vectors as long"),
    "integrated": Style(COLOURS[2], "--", "", "integrated gradients"),
    "gradient": Style(COLOURS[1], "-", "s", "gradient of log p, size"),
    "upstream": Style(COLOURS[3], ":", "^", "upstream's formula"),
}
SHAPES = ("kl", "gradient", "integrated", "upstream")


@dataclass(frozen=True)
class Curves:
    """A control's mean effects: an estimate per layer of each measure, and the layer of the strongest effect."""

    control: str
    means: Mapping[str, Sequence[Estimate]]
    strongest: int


def effects_figure(found: Sequence[Curves], path: Path) -> None:
    """Two panels for each control: KL by layer beside random vectors, and the shapes of all measures.

    Side by side, four and more controls in two rows. Dotted upright: the strongest layer.
    """
    rows = 1 if len(found) < 4 else 2
    columns = -(-len(found) // rows)
    figure, panels = frame(2 * rows * columns, 1.2 + 3.4 * columns, 0.8 + 4.6 * rows, rows=2 * rows)
    for panel in panels:
        panel.set_visible(False)
    for index, curves in enumerate(found):
        row, column = divmod(index, columns)
        above, below = (panels[(2 * row + under) * columns + column] for under in (0, 1))
        _divergences(above, curves)
        _shapes(below, curves)
        for panel, label in ((above, "KL (nats)"), (below, "share of its largest")):
            panel.set_visible(True)
            panel.axvline(curves.strongest, color="#555555", linestyle=":", linewidth=1)
            whole_numbers(panel.xaxis)
            panel.set_ylim(bottom=0)
            if column == 0:
                panel.set_ylabel(label)
        below.set_xlabel("layer")
    legend(figure, panels[columns])
    save(figure, path)


def _divergences(panel: Axes, curves: Curves) -> None:
    """KL of the vector and of random ones, with intervals."""
    for name in ("random", "kl"):
        style, estimates, layers = STYLES[name], curves.means[name], range(len(curves.means[name]))
        low = [one.value if one.low is None else one.low for one in estimates]
        high = [one.value if one.high is None else one.high for one in estimates]
        panel.plot(layers, [one.value for one in estimates], color=style.colour, marker=style.marker, markersize=4)
        panel.fill_between(layers, low, high, color=style.colour, alpha=0.2, linewidth=0)
    panel.set_title(f"{curves.control}: strongest in layer {curves.strongest}", fontsize=10)


def _shapes(panel: Axes, curves: Curves) -> None:
    """Every measure divided by its largest layer mean."""
    for name in SHAPES:
        style, values = STYLES[name], [one.value for one in curves.means[name]]
        look = {"color": style.colour, "linestyle": style.line, "marker": style.marker, "markersize": 4}
        look |= {"linewidth": 3, "alpha": 0.5} if name == "kl" else {}  # it lies under what agrees with it
        panel.plot(range(len(values)), [value / (max(values) or 1) for value in values], label=style.label, **look)
    panel.plot([], [], color=GREY, label=STYLES["random"].label)
