"""The figure of what steering does to questions of different kinds: accuracy against the weight, kind by kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

from thinksteer.drawing import GREY, Style, curve, frame, legend, save, series
from thinksteer.intervals import Estimate
from thinksteer.level_effects import ACCURACY, Run, contrast
from thinksteer.steered import Sweep, sweeps

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 3
TITLE_WIDTH = 36  # characters
PALE = "60"  # the opacity of a random control's line, as two hexadecimal digits behind its colour


def levels_figure(runs: Sequence[Run], levels: Sequence[str], path: Path) -> None:
    """A panel for each control and layer, a colour for each kind; pale: its random controls. Of two kinds, below it,
    the difference of their changes from no steering; grey: that of the random controls."""
    found, height = sweeps(runs), 2 if len(levels) == 2 else 1
    columns = min(len(found), COLUMNS)
    rows = height * -(-len(found) // columns)
    figure, panels = frame(rows * columns, 1.4 + 3.2 * columns, 0.8 + 2.5 * rows, rows=rows)
    for panel in panels:
        panel.set_visible(False)
    for index, sweep in enumerate(found):
        band, column = divmod(index, columns)
        own = [panels[(band * height + below) * columns + column] for below in range(height)]
        _accuracies(own[0], sweep, levels)
        if height == 2:
            _differences(own[1], sweep, levels)
        for panel, label in zip(
            own, ("accuracy (%)", f"change: {levels[0]}\nminus {levels[-1]} (points)"), strict=False
        ):
            panel.set_visible(True)
            panel.axvline(0, color="#888888", linewidth=0.8)
            if column == 0:
                panel.set_ylabel(label)
        own[-1].set_xlabel("weight of the direction")
    legend(figure, panels[0])
    save(figure, path)


def _accuracies(panel: Axes, sweep: Sweep[Run], levels: Sequence[str]) -> None:
    """The accuracy of each kind."""
    for index, level in enumerate(levels):
        _lines(panel, sweep, lambda run, level=level: ACCURACY.mean(run.of_level(level)), series(index, level))
    panel.plot([], [], color=GREY, linewidth=0.9, label="random directions as long (pale, grey)")
    panel.set_ylim(0, 102)
    title = fill(sweep.title.replace(".", ". "), TITLE_WIDTH).replace(". ", ".")  # names have no spaces to break at
    panel.set_title(title, fontsize=10)


def _differences(panel: Axes, sweep: Sweep[Run], levels: Sequence[str]) -> None:
    """How much more the first kind changed than the second."""
    base = next(run for run in sweep.runs if not run.weight)

    def value(run: Run) -> Estimate | None:
        return contrast(run, base, levels).difference if run.weight else Estimate(0.0, None, None, len(base.records))

    _lines(panel, sweep, value, series(6))
    panel.axhline(0, color="#888888", linewidth=0.8)


def _lines(panel: Axes, sweep: Sweep[Run], value: Callable[[Run], Estimate | None], style: Style) -> None:
    """A control's line and, pale beneath it, those of its random controls, which share its weight 0."""
    names = dict.fromkeys(run.control for random in sweep.random for run in random)
    base, pale = next(run for run in sweep.runs if not run.weight), replace(style, colour=f"{style.colour}{PALE}")
    lines = [(replace(pale, label=None, quiet=True), _of(name, sweep, base)) for name in names]
    for look, runs in (*lines, (style, sweep.runs)):
        points = [(run.weight, one) for run in runs if (one := value(run)) is not None]
        curve(panel, [weight for weight, _ in points], [one for _, one in points], look)


def _of(name: str, sweep: Sweep[Run], base: Run) -> list[Run]:
    """The settings of one random control in the order of weights, that of weight 0 among them."""
    own = [run for random in sweep.random for run in random if run.control == name]
    return sorted([*own, base], key=lambda run: run.weight)
