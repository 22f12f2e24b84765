"""The figure of published numbers beside recomputed ones."""

from collections.abc import Sequence
from pathlib import Path

from thinksteer.drawing import COLOURS, frame, save
from thinksteer.verification import Check

SHADES = {"agree": COLOURS[0], "differ": COLOURS[1]}
NAMES = {"agree": "recomputed, 95 % interval", "differ": "recomputed, differs"}


def published_figure(checks: Sequence[Check], path: Path) -> None:
    """A panel per data set, a row per model and measure: the printed number as a ring, what records give as a dot.

    Checks need an estimate of ours; bars are its interval, blue where both agree, orange where not.
    """
    datasets = list(dict.fromkeys(one.published.dataset for one in checks))
    rows = list(dict.fromkeys(_row(one) for one in checks))
    figure, panels = frame(len(datasets), 2.6 + 2.1 * len(datasets), 1.6 + 0.24 * len(rows))
    for panel, dataset in zip(panels, datasets, strict=True):
        for one in checks:
            if one.published.dataset == dataset and one.ours is not None:
                y, colour = rows.index(_row(one)), SHADES[one.verdict]
                panel.plot([one.ours.low, one.ours.high], [y, y], color=colour, linewidth=1.4)
                panel.plot(one.ours.value, y, "o", color=colour, markersize=4, label=NAMES[one.verdict])
                ring = {"markerfacecolor": "none", "markeredgecolor": "#222222", "markersize": 8}
                panel.plot(one.published.value, y, "o", **ring, label="published")
        panel.set_title(dataset, fontsize=10)
        panel.set_xlabel(f"{checks[0].published.unit}")
        panel.set_yticks(range(len(rows)), rows if panel is panels[0] else [""] * len(rows), fontsize=8)
        panel.set_ylim(len(rows) - 0.5, -0.5)
    named = {
        label: handle for panel in panels for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(named.values(), named.keys(), loc="outside upper left", ncols=3, frameon=False, fontsize=9)
    save(figure, path)


def _row(check: Check) -> str:
    one = check.published
    measure = "" if one.percent is None else f", {one.percent} %"
    return f"{one.model.replace('deepseek-', '')}{measure}"
