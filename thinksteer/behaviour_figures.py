"""The figures of behaviours: bars of negative, no and positive steering, curves against the weight, models, layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from thinksteer.annotation import LABELS
from thinksteer.behaviours import SECTIONS, TOKENS, Labelled, Measure, Run, level
from thinksteer.drawing import COLOURS, GREY, Style, curve, frame, legend, save, series, whole_numbers
from thinksteer.intervals import Estimate
from thinksteer.steered import Sweep

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 0.8  # of a group of bars


def bars_figure(
    found: Sequence[Sweep[Run]], negative: float | None, positive: float | None, measure: Measure, path: Path
) -> None:
    """The share of each control's own label at the negative weight, unsteered and at the positive one, a panel each,
    with the random controls of the same weights in grey (Figure 4 of the paper)."""
    drawn = [one for one in found if measure.has(one.runs[0].label)]
    figure, panels = _grid(len(drawn), 2.4)
    for panel, sweep in zip(panels, drawn, strict=False):
        ends = sweep.ends(negative, positive)
        _bars(panel, [list(_group(sweep, *ends, measure))])
        panel.set_xticks([])
        panel.set_xlabel("weights {:+g}, 0, {:+g}".format(*ends))
        _finish(panel, sweep, measure)
    legend(figure, panels[0])
    save(figure, path)


def _grid(count: int, width: float) -> tuple[Figure, list[Axes]]:
    """A figure with a panel for each of `count` controls, in two rows from four on."""
    rows = 1 if count < 4 else 2
    columns = -(-max(count, 1) // rows)
    figure, panels = frame(rows * columns, 1 + width * columns, 0.6 + 3 * rows, rows=rows)
    for panel in panels[count:]:
        panel.set_visible(False)
    return figure, panels


def _finish(panel: Axes, sweep: Sweep[Run], measure: Measure) -> None:
    """Title and share of a control's panel; from 0 on, unless all of it lies far above."""
    panel.set_title(sweep.title.replace(", ", "\n"), fontsize=10)
    panel.set_ylabel(f"{measure.title} (%)")
    shares = [level([run.labelled], run.label, measure) for run in sweep.runs]
    low = min((100 * (share.value if share.low is None else share.low) for share in shares if share), default=0)
    panel.set_ylim(bottom=low - 2 if low > 50 else 0)


def _group(
    sweep: Sweep[Run], negative: float, positive: float, measure: Measure
) -> Iterator[tuple[Estimate, str, str]]:
    """(value, colour, name) of each bar of a control."""
    bars = {negative: (COLOURS[1], "negative weight"), positive: (COLOURS[2], "positive")}
    bars[0.0] = COLOURS[0], "not steered"
    for run, random in zip(sweep.runs, sweep.random, strict=True):
        if run.weight in bars:
            for members, colour, label in (
                ((run,), *bars[run.weight]),
                (random, GREY, "random directions, same weight"),
            ):
                value = level([one.labelled for one in members], run.label, measure)
                if value is not None:
                    yield value, colour, label


def _bars(panel: Axes, groups: Sequence[Sequence[tuple[Estimate, str, str]]]) -> None:
    """(value, colour, name) of the bars side by side around each group's number; each name is given once."""
    seen = set()
    for group, bars in enumerate(groups):
        width = WIDTH / max(len(bars), 1)
        for index, (value, colour, name) in enumerate(bars):
            x, height = group + (index + 0.5) * width - WIDTH / 2, 100 * value.value
            low, high = (height if end is None else 100 * end for end in (value.low, value.high))
            error = [[max(0, height - low)], [max(0, high - height)]]  # rounding may put an end on the other side
            label, style = None if name in seen else name, {"capsize": 2, "error_kw": {"linewidth": 1}}
            panel.bar(x, height, 0.92 * width, color=colour, label=label, yerr=error, **style)
            seen.add(name)


def curves_figure(found: Sequence[Sweep[Run]], measure: Measure, path: Path) -> None:
    """The control's own label against the weight, one panel per sweep; grey: its random controls, taken together."""
    figure, panels = _grid(len(found), 3.2)
    grey = next((index for index, sweep in enumerate(found) if any(sweep.random)), None)
    for index, (panel, sweep) in enumerate(zip(panels, found, strict=False)):
        label, pairs = sweep.runs[0].label, list(zip(sweep.runs, sweep.random, strict=True))
        groups = [
            (Style(COLOURS[0], "-", "", "direction" if index == (grey or 0) else None), [(run,) for run in sweep.runs])
        ]
        if any(sweep.random):
            random = [others or (run,) for run, others in pairs if others or not run.weight]
            name = "random directions of the same norms" if index == grey else None
            groups.insert(0, (Style(GREY, "-", "", name), random))
        for style, settings in groups:
            values = [(one[0].weight, level([run.labelled for run in one], label, measure)) for one in settings]
            known = [(weight, value) for weight, value in values if value is not None]
            curve(panel, [weight for weight, _ in known], [value for _, value in known], style)
        panel.axvline(0, color="#888888", linewidth=0.8)
        panel.set_xlabel("weight of the direction")
        _finish(panel, sweep, measure)
    legend(figure, panels[grey or 0])
    save(figure, path)


def models_figure(models: Mapping[str, Labelled], path: Path) -> None:
    """The six labels of each model, of its sections above, of its tokens below."""
    figure, panels = frame(2, 9, 6.4, stacked=True)
    for panel, measure in zip(panels, (SECTIONS, TOKENS), strict=True):
        groups = []
        for label in LABELS:
            values = [(level([one], label, measure), index, name) for index, (name, one) in enumerate(models.items())]
            groups.append([(value, series(index).colour, name) for value, index, name in values if value is not None])
        _bars(panel, groups)
        panel.set_xticks(range(len(LABELS)), [label.replace("-", "-\n") for label in LABELS])
        panel.set_ylim(bottom=0)
        panel.set_ylabel(f"{measure.title} (%)")
    legend(figure, panels[0])
    save(figure, path)


def layers_figure(label: str, means: Sequence[Estimate], strongest: int, path: Path) -> None:
    """Upstream's published effects by layer, with intervals; dotted: the strongest layer."""
    figure, (panel,) = frame(1, 6, 3.6)
    low = [one.value if one.low is None else one.low for one in means]
    high = [one.value if one.high is None else one.high for one in means]
    panel.plot(range(len(means)), [one.value for one in means], color=COLOURS[3], marker="^", markersize=4)
    panel.fill_between(range(len(means)), low, high, color=COLOURS[3], alpha=0.2, linewidth=0)
    panel.axvline(strongest, color="#555555", linestyle=":", linewidth=1)
    whole_numbers(panel.xaxis)
    panel.set_title(f"{label}: layer {strongest} (n = {means[0].n})", fontsize=10)
    panel.set(xlabel="layer", ylabel="upstream's formula (no divergence)")
    panel.set_ylim(bottom=0)
    save(figure, path)
