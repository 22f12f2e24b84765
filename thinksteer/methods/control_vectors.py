"""Control vectors (repeng; vgel/repeng#69 for models that think): how they are applied.

They are made of pairs of prompts, not of responses (`scripts/control_vectors.py`), and added to every token behind each
block that the file has a vector for. The vectors are of length 1; with `--scale overall` a weight is a share of the
norm of the residual stream.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import NoReturn

from thinksteer.methods.method import Method
from thinksteer.records import InputError, Passage, Reading, Record
from thinksteer.thinking import Reader

NAME = "control_vector"


def passages(records: Sequence[Record], rule: None, reader: Reader) -> list[Passage]:
    """There are none, as no rule chooses any."""
    return []


def rule(args: Namespace, own_quantile: float | None) -> NoReturn:
    raise InputError(f"{NAME} labels nothing in responses: it is made of pairs of prompts, by scripts.control_vectors")


def add_flags(parser: ArgumentParser) -> None:
    """There are none."""


METHODS = (
    Method(
        name=NAME,
        passages=passages,
        rule=rule,
        add_flags=add_flags,
        reading=Reading("block_out"),
        terms={},
        sites=("block_out",),
        weights=(-1.0, -0.5, 0.0, 0.5, 1.0),
    ),
)
