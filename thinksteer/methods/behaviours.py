"""Behaviours of thinking (Venhoff et al. 2025, arXiv 2506.18167): a direction for each label of an annotator.

What is special about the states where a behaviour begins, beside all annotated thinking of the same responses, is added
to every token in one layer, positive weights for more of it and negative ones for less. Which layer matters most is
measured (`scripts/layer_effects.py`), as the paper's own choices are of three models only.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from thinksteer.annotation import LABELS, annotate, passage, render, thinking_text
from thinksteer.keywords import annotate_text
from thinksteer.methods.method import Method
from thinksteer.records import Passage, Reading, Record
from thinksteer.thinking import Reader

OVERALL = "overall"

# Upstream's STEERING_CONFIG, by the number of layers: R1-Distill-Qwen-1.5B, R1-Distill-Llama-8B, R1-Distill-Qwen-14B.
PUBLISHED_LAYERS = {
    28: {"backtracking": 17, "uncertainty-estimation": 18, "example-testing": 15, "adding-knowledge": 18},
    32: {"backtracking": 12, "uncertainty-estimation": 12, "example-testing": 12, "adding-knowledge": 12},
    48: {"backtracking": 29, "uncertainty-estimation": 29, "example-testing": 29, "adding-knowledge": 24},
}
DEPTH = 0.6


@dataclass(frozen=True)
class KeywordRule:
    """Sections as the keyword annotator has them: nothing to choose."""

    def __str__(self) -> str:
        return "among the annotated sections"


def passages(records: Sequence[Record], rule: KeywordRule, reader: Reader) -> list[Passage]:
    """The sections of all responses that the keyword annotator finds; --annotations takes those of another."""
    found = []
    for record in records:
        start, end = thinking_text(record, reader)
        thinking = record.response[start:end]
        annotated = render(thinking, annotate_text(thinking, record.question))
        found.append(passage(record, annotate(record, reader, annotated), reader))
    return [one for one in found if one.spans]


def rule(args: Namespace, own_quantile: float | None) -> KeywordRule:
    return KeywordRule()


def add_flags(parser: ArgumentParser) -> None:
    """There are none."""


def layer(label: str, num_layers: int) -> int:
    """The block after which upstream adds a label's vector, else the one at a like depth."""
    return PUBLISHED_LAYERS.get(num_layers, {}).get(label, round(DEPTH * num_layers))


def method(name: str, label: str, reading: Reading, rest: tuple[str, ...], length_of: str | None) -> Method:
    """A label's examples minus those of `rest`."""
    return Method(
        name=name,
        passages=passages,
        rule=rule,
        add_flags=add_flags,
        reading=reading,
        terms={(label,): 1, rest: -1},
        length_of=length_of,
        sites=("block_out",),
        layer=partial(layer, label),
        weights=(-1.0, 0.0, 1.0),
    )


# The paper's: from the token before a section on, 11 tokens at most, beside a response's annotated thinking as a whole.
PUBLISHED = Reading("block_out", shift=-1, limit=11, whole=OVERALL)
# The token before a section alone, where it is decided what begins, beside that of all other sections. The paper's mean
# is mostly one of what the behaviour's own words look like, which need not make it begin.
ONSET = Reading("block_out", shift=-1, limit=1)

METHODS = (
    *(method(label, label, PUBLISHED, (OVERALL,), OVERALL) for label in LABELS),
    *(
        method(f"{label}.onset", label, ONSET, tuple(other for other in LABELS if other != label), None)
        for label in LABELS
    ),
)
