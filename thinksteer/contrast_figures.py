"""The figure of a control vector."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from thinksteer.drawing import COLOURS, GREY, frame, save


def contrast_figure(layers: Sequence[Mapping[str, float]], path: Path) -> None:
    """By layer: how long the mean difference is beside the mean state; the vector's cosine with it and share of the
    differences' squares; in how many pairs the positive side lies further along it."""
    figure, panels = frame(3, 11, 3.3)
    xs = [one["layer"] for one in layers]
    drawn = (
        ("mean_difference", COLOURS[0], "o", None),
        ("cosine", COLOURS[1], "s", "cosine with the mean difference"),
        ("explained", COLOURS[2], "^", "share of the differences' squares"),
        ("right_side", COLOURS[3], "o", "pairs on the right side"),
        ("held_out", COLOURS[4], "D", "held-out pairs"),
    )
    for panel, (name, colour, marker, label) in zip([panels[0], *panels[1:2] * 2, *panels[2:] * 2], drawn, strict=True):
        panel.plot(xs, [one[name] for one in layers], color=colour, marker=marker, markersize=4, label=label)
        panel.set_xlabel("layer")
        panel.locator_params(axis="x", integer=True)
    panels[0].set(ylabel="norm of the mean difference\n(share of the mean state's)")
    panels[0].set_ylim(bottom=0)
    panels[1].set(ylabel="in the layer", ylim=(min(0, *(one["cosine"] for one in layers)) - 0.02, 1.02))
    panels[2].set(ylabel="share of pairs", ylim=(0, 1.02))
    panels[2].axhline(0.5, color=GREY, linewidth=1)
    for panel in panels[1:]:
        panel.legend(frameon=False, fontsize=8)
    save(figure, path)
