"""What a report leaves in its folder: tables in three forms, and figures, which the page holds too."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from thinksteer import store
from thinksteer.page import Picture
from thinksteer.tables import Table, as_csv, as_json, markdown

Drawn = TypeVar("Drawn")

DRAWN = {  # figures that are shown as they are: a heading, and the folders that they lie in
    "Responses, directions and heads": ("responses", "directions", "heads"),
    "What directions change": ("layers", "behaviours", "levels"),
}


def draw(figure: Callable[[Drawn, Path], None], what: Drawn, path: Path, caption: str) -> Picture:
    """The figure of something, written to `path`."""
    with store.atomic(path) as partial:
        figure(what, partial)
    return picture(path, caption)


def figures_of(root: Path, model: str, heading: str) -> list[Path]:
    """What was drawn of a model, of one of `DRAWN`, in its order."""
    return [path for folder in DRAWN[heading] for path in sorted(root.glob(f"{folder}/{model}/*.png"))]


def picture(path: Path, caption: str | None = None) -> Picture:
    """A figure that is there; its caption, unless given, is the end of its path."""
    return Picture(path.read_bytes(), caption or "/".join(path.with_suffix("").parts[-3:]))


def write_tables(tables: Sequence[Table], folder: Path) -> None:
    """Each as `<name>.md`, `.csv` and `.json`."""
    for table in tables:
        store.write_text(folder / f"{table.name}.md", markdown(table))
        store.write_text(folder / f"{table.name}.csv", as_csv(table))
        store.write_json(folder / f"{table.name}.json", as_json(table))
