"""Reasoning against memory (LiReFs, Hong et al. 2025, arXiv 2503.23084): is a question thought through or remembered?

What questions of either kind leave at the last token of their prompt, before anything is generated, is read where it
enters each block; the direction leads from memory to reasoning. The kind is the question's `level`, in the data.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from thinksteer import probes
from thinksteer.methods.method import Method
from thinksteer.records import Passage, Reading, Record, Span
from thinksteer.thinking import Reader

KINDS = ("reasoning", "memory")


@dataclass(frozen=True)
class PromptRule:
    """Which of the prompt's tokens are read: the "last" one, as in the paper, or the "mean" of all."""

    states: Literal["last", "mean"] = "last"

    def __str__(self) -> str:
        return "among the questions, by their level"


def passages(records: Sequence[Record], rule: PromptRule, reader: Reader) -> list[Passage]:
    """The prompt of each question that is of one kind or the other; its samples share it, so it counts once."""
    first: dict[str, Record] = {}
    for record in records:
        if record.level in KINDS:
            first.setdefault(record.id, record)
    found = []
    for record in first.values():
        ids = reader.prompt(record)
        start = len(ids) - 1 if rule.states == "last" else 0
        found.append(Passage(record.id, ids, (Span(record.level, start, len(ids)),), record.sample))
    return found


def cure(records: Sequence[Record], rule: PromptRule, reader: Reader, enough: int) -> str:
    return (
        "generate responses to more questions of both kinds; arithmetic_and_facts and mmlu_pro_questions tell the kind "
        "of theirs, scripts.score_questions that of others"
    )


def rule(args: Namespace, own_quantile: float | None) -> PromptRule:
    return PromptRule(args.states)


def add_flags(parser: ArgumentParser) -> None:
    flags = parser.add_argument_group("reasoning_memory: what is read of a question's prompt")
    flags.add_argument(
        "--states", choices=["last", "mean"], default="last", help="token, or mean over all (default: %(default)s)"
    )


def two_thirds(num_layers: int) -> int:
    """The layer whose vector is used. LiReFs tries all but the first three; its successor: 21 of Llama-3-8B's 32."""
    return round(num_layers * 2 / 3)


# Applied as in LiReFs' code: one layer's direction in every layer, where the residual stream enters a block and where
# attention and MLP write into it, so that at weight -1 nothing along it is left anywhere.
METHODS = (
    Method(
        name="reasoning_memory",
        passages=passages,
        rule=rule,
        add_flags=add_flags,
        cure=cure,
        reading=Reading("block_in"),
        terms={("reasoning",): 1, ("memory",): -1},
        sites=("block_in", "attn_out", "mlp_out"),
        operation="amplify",
        vector_of=two_thirds,
        weights=(-1.0, -0.1, 0.0, 0.1, 1.0),
        probes=probes.by_level,
    ),
)
