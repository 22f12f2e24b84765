"""The figures of directions beside each other and beside the rows of a model's tokens."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from numpy.typing import ArrayLike

from thinksteer.drawing import COLOURS, GREY, frame, legend, save, series, whole_numbers


@dataclass(frozen=True)
class Chance:
    """Largest cosines of random directions: their mean, and where the middle 95 % of them lie."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Nearness:
    """Directions and the rows of one matrix: by direction the largest cosine in each layer, `[num_layers]`, NaN where
    it has no vector."""

    title: str
    largest: Mapping[str, Sequence[float]]
    chance: Chance


def similarity_figure(names: Sequence[str], cosines: ArrayLike, path: Path) -> None:
    """A heat map of the cosines `[N, N]` between N directions, each number in its cell; of a NaN a dash."""
    size, columns = 2.4 + 0.62 * len(names), range(len(names))
    figure, (panel,) = frame(1, size + 0.9, size)
    panel.grid(False)
    image = panel.imshow(cosines, cmap="coolwarm", vmin=-1, vmax=1)
    for row, values in enumerate(cosines):
        for column, value in enumerate(values):
            colour = "white" if abs(value) > 0.7 else "black"
            text = "–" if math.isnan(value) else f"{value:.2f}"
            panel.text(column, row, text, ha="center", va="center", color=colour, fontsize=9)
    panel.set_xticks(columns, names, rotation=40, ha="right", rotation_mode="anchor")
    panel.set_yticks(columns, names)
    figure.colorbar(image, ax=panel, label="cosine, mean over layers", shrink=0.8)
    save(figure, path)


def nearness_figure(found: Sequence[Nearness], path: Path) -> None:
    """A panel for each matrix: by layer, the largest cosine of each direction with a row of it.

    Grey: random directions, mean and the middle 95 %; the largest of so many cosines is far above 0 by chance.
    """
    figure, panels = frame(len(found), 1.5 + 4.2 * max(len(found), 1.4), 4 + 0.11 * len(found[0].largest))
    shown = [value for one in found for values in [*one.largest.values(), [one.chance.high]] for value in values]
    top = max(value for value in shown if not math.isnan(value))
    for panel, one in zip(panels, found, strict=True):
        for index, (name, values) in enumerate(one.largest.items()):
            style, line = series(index, name), ("-", "--", ":")[index // len(COLOURS) % 3]
            look = {"color": style.colour, "marker": style.marker, "markersize": 4, "label": style.label}
            panel.plot(range(len(values)), values, linestyle=line, **look)
        panel.axhspan(one.chance.low, one.chance.high, color=GREY, alpha=0.2, linewidth=0)
        panel.axhline(one.chance.mean, color=GREY, linewidth=1.6, label="random directions")
        panel.set_title(one.title, fontsize=10)
        panel.set_xlabel("layer")
        whole_numbers(panel.xaxis)
        panel.set_ylim(0, 1.05 * top)
    panels[0].set_ylabel("largest cosine with a token's row")
    legend(figure, panels[0])
    save(figure, path)
