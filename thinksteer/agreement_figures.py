"""The figure of two annotators' agreement."""

from pathlib import Path

from thinksteer.agreement import Agreement
from thinksteer.drawing import blank, save


def confusion_figure(agreement: Agreement, first: str, second: str, path: Path) -> None:
    """Of the characters that the first annotator gave a label (rows), the share (%) with each of the second's."""
    counts = agreement.counts.sum(axis=0)
    totals = counts.sum(axis=1, keepdims=True)
    shares = 100 * counts / totals.clip(min=1)
    size = 0.85 * len(agreement.labels)
    figure = blank(size + 3.6, size + 2.2)
    panel = figure.subplots()
    image = panel.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    for row, column in zip(*counts.nonzero(), strict=True):
        colour = "white" if shares[row, column] > 55 else "black"
        panel.text(column, row, f"{shares[row, column]:.0f}", ha="center", va="center", color=colour, fontsize=9)
    overall = counts.sum()
    names = [
        f"{label} ({100 * total / overall:.1f} %)" for label, total in zip(agreement.labels, totals[:, 0], strict=True)
    ]
    panel.set_xticks(range(len(names)), agreement.labels, rotation=35, ha="right")
    panel.set_yticks(range(len(names)), names)
    panel.set(xlabel=f"label by {second}", ylabel=f"label by {first} (share of all characters)")
    figure.colorbar(image, ax=panel, label="share of the row's characters (%)", shrink=0.8)
    save(figure, path)
