"""A base model beside its edits and controls on one dataset: every figure of the tables, and what they say in words.

"The shortest 5 %" of two models are answers to different questions, so a table of them compares questions as much as
models. The matched form takes the (question, sample) pairs of the BASE model's shortest responses and looks at the same
pairs in every model. These pairs were picked for being short in the base, so any second draw, even of the base itself,
steps back towards the mean: the matched change is not all the edit's. Two comparisons are free of that step. With
several samples, every model is judged by the NEXT sample of the same questions, which was picked in none of them; and
random controls, where there are any, take the same step as the edit, which is therefore judged against them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from thinksteer.analysis import (
    SHORTEST_PERCENTS,
    Pair,
    accuracy,
    identities,
    matching,
    mcnemar_p,
    mean_length,
    metrics,
    next_samples,
    paired_difference,
    paired_length_difference,
    shortest,
)
from thinksteer.intervals import Estimate
from thinksteer.records import InputError, Record

Role = Literal["base", "edited", "control"]
Group = Literal["edit", "control", "edit minus control"]


@dataclass(frozen=True)
class Member:
    """One model's evaluation and its token budget; a control is an edit of random heads or along a random direction.

    `setting` says how large an edit is (heads, strength): an edit is held against the controls of its own size.
    """

    model: str
    role: Role
    records: Sequence[Record]
    max_length: int | None
    setting: str = ""


@dataclass(frozen=True)
class Family:
    """A base model and its descendants on one dataset; the base, where it was evaluated, comes first."""

    dataset: str
    members: tuple[Member, ...]

    @property
    def base(self) -> Member | None:
        """The unedited model, None if it was not evaluated."""
        return next((member for member in self.members if member.role == "base"), None)

    def having(self, role: Role) -> list[Member]:
        """The members with this role, in order."""
        return [member for member in self.members if member.role == role]


@dataclass(frozen=True)
class Summary:
    """One model on one dataset. The dictionaries go from a percentage to the estimate over that share of responses."""

    dataset: str
    model: str
    role: Role
    accuracy: Estimate | None
    length: Estimate | None
    shortest: dict[int, Estimate | None]
    shortest_length: dict[int, Estimate | None]
    matched: dict[int, Estimate | None]
    matched_length: dict[int, Estimate | None]
    metrics: dict[str, Any]


@dataclass(frozen=True)
class Difference:
    """`model` minus `reference` on the responses both have.

    `matched` is accuracy on the pairs of the base's shortest responses, `held_out` on the next samples of the same
    questions (None without a second sample); both by percentage.
    """

    dataset: str
    reference: str
    model: str
    group: Group
    accuracy: Estimate | None
    p: float | None
    length: Estimate | None
    matched: dict[int, Estimate | None]
    held_out: dict[int, Estimate | None]


def _base_shortest(family: Family) -> dict[int, frozenset[Pair]]:
    """The pairs of the base's shortest responses by percentage; empty without a base."""
    records = family.base.records if family.base else []
    return {percent: identities(shortest(records, percent)) for percent in SHORTEST_PERCENTS}


def summaries(family: Family) -> list[Summary]:
    """One summary per member, in order."""
    pairs = _base_shortest(family)
    result = []
    for member in family.members:
        own = {percent: shortest(member.records, percent) for percent in SHORTEST_PERCENTS}
        same = {percent: matching(member.records, pairs[percent]) for percent in SHORTEST_PERCENTS}
        result.append(
            Summary(
                dataset=family.dataset,
                model=member.model,
                role=member.role,
                accuracy=accuracy(member.records),
                length=mean_length(member.records),
                shortest={percent: accuracy(records) for percent, records in own.items()},
                shortest_length={percent: mean_length(records) for percent, records in own.items()},
                matched={percent: accuracy(records) for percent, records in same.items()},
                matched_length={percent: mean_length(records) for percent, records in same.items()},
                metrics=metrics(member.records, member.max_length),
            )
        )
    return result


def differences(family: Family) -> list[Difference]:
    """Every edit and control against the base, then every edit against its controls; empty without a base."""
    if family.base is None:
        return []
    pairs = _base_shortest(family)
    edits, controls = family.having("edited"), family.having("control")
    compared: list[tuple[Member, Member, Group]] = [(family.base, member, "edit") for member in edits]
    compared += [(family.base, member, "control") for member in controls]
    compared += [
        (control, member, "edit minus control")
        for member in edits
        for control in controls
        if control.setting == member.setting
    ]
    return [_difference(family.dataset, *one, pairs) for one in compared]


def _difference(
    dataset: str, reference: Member, member: Member, group: Group, pairs: dict[int, frozenset[Pair]]
) -> Difference:
    if not identities(reference.records) & identities(member.records):
        raise InputError(
            f"{dataset}: {reference.model} and {member.model} share no (question, sample); "
            "evaluate both on the same questions, or leave one out of --models"
        )
    matched, held_out = (
        {
            percent: _paired_difference(choose(reference.records, chosen), choose(member.records, chosen))
            for percent, chosen in pairs.items()
        }
        for choose in (matching, next_samples)
    )
    return Difference(
        dataset=dataset,
        reference=reference.model,
        model=member.model,
        group=group,
        accuracy=paired_difference(reference.records, member.records),
        p=mcnemar_p(reference.records, member.records),
        length=paired_length_difference(reference.records, member.records),
        matched=matched,
        held_out=held_out,
    )


def _paired_difference(before: Sequence[Record], after: Sequence[Record]) -> Estimate | None:
    return paired_difference(before, after) if identities(before) & identities(after) else None
