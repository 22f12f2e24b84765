"""What a method says of itself. Stages, engines and reports know no more of it."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from thinksteer.records import EVERYWHERE, Condition, Edit, InputError, Operation, Passage, Reading, Record, Site
from thinksteer.thinking import NAME_THE_MARKS, Reader

if TYPE_CHECKING:
    from torch import Tensor

    from thinksteer.directions import Terms

Rule = Any  # a method's own frozen dataclass of JSON values; as a string, where it looks for examples


def all_layers(num_layers: int) -> None:
    """Steer every layer at once."""


def own_vector(num_layers: int) -> None:
    """Every layer is steered with the vector that was read there."""


def everywhere(reader: Reader) -> Condition:
    return EVERYWHERE


def more_responses(records: Sequence[Record], rule: Rule, reader: Reader, enough: int) -> str:
    if records and all(record.status in ("empty", "no_think") for record in records):
        return nothing_thinks(len(records), reader)
    return "generate more responses"


def nothing_thinks(count: int, reader: Reader) -> str:
    """What to do about responses none of which thinks."""
    opening, closing = (mark.decode(errors="replace") for mark in (reader.marks.open, reader.marks.close))
    where = f"between {opening} and {closing}" if opening else "before its answer"
    return f"none of {count} responses thinks {where}: {NAME_THE_MARKS}"


@dataclass(frozen=True)
class Method:
    """A direction: which tokens are compared, where they are read, what is made of them, where the paper adds it.

    - `passages` labels spans of records by a rule, which `rule` makes from the flags of `add_flags` and the share that
      the model's table states, if it does. `classify` labels a span by its text, where that is all it takes; `cure`
      says what would give enough examples of each label.
    - `reading` is where the labelled spans are read, `terms` what is made of the labels' means; `length_of` names the
      label whose mean gives the direction its length (None: it keeps its own).
    - `sites`, `layer`, `where`: the places that are steered, in which layer of a model with so many (None: all), and at
      which tokens. `operation` is what is done there with the layer's own vector, or with that of the layer `vector_of`
      everywhere (None: its own). `weights` are the paper's.
    - `probes` labels the spans before which the vector's effect is measured (None: those of `passages` that have
      another label than the direction leads to).
    """

    name: str
    passages: Callable[[Sequence[Record], Rule, Reader], list[Passage]]
    rule: Callable[[Namespace, float | None], Rule]
    add_flags: Callable[[ArgumentParser], None]
    reading: Reading
    terms: Terms
    sites: tuple[Site, ...]
    weights: tuple[float, ...]
    operation: Operation = "add"
    vector_of: Callable[[int], int | None] = own_vector
    length_of: str | None = None
    layer: Callable[[int], int | None] = all_layers
    where: Callable[[Reader], Condition] = everywhere
    classify: Callable[[str, Rule], str] | None = None
    cure: Callable[[Sequence[Record], Rule, Reader, int], str] = more_responses
    probes: Callable[[Sequence[Record], Rule, Reader], list[Passage]] | None = None

    @property
    def conditional(self) -> bool:
        """Whether it is added at some tokens only."""
        return self.where is not everywhere

    @property
    def constant(self) -> bool:
        """Whether a bias of the weights would do the same (see `Edit.constant`)."""
        return self.operation == "add" and not self.conditional and "block_in" not in self.sites

    def spread(self, vectors: Tensor) -> Tensor:
        """Vectors `[L, D]` as the layers are steered with them: each its own, or all with that of one."""
        source = self.vector_of(len(vectors))
        return vectors if source is None else vectors[source].expand_as(vectors)

    def edits(self, vectors: Tensor, layers: Sequence[int], coef: float, where: Condition) -> list[Edit]:
        """What is done with vectors `[L, D]` in these layers, at each of the sites."""
        return [Edit(site, vectors, tuple(layers), coef, where, self.operation) for site in self.sites]

    @property
    def labels(self) -> list[str]:
        """The labels of spans that the direction is made of."""
        return [label for labels in self.terms for label in labels if label != self.reading.whole]


def labelled(
    methods: Sequence[Method],
    records: Sequence[Record],
    rule: Rule,
    reader: Reader,
    enough: int,
    kept: Collection[tuple[str, int, int]] | None = None,
) -> list[Passage]:
    """The passages of methods that share them, of their spans those with (id, sample, start) in `kept` (None: all).

    InputError if a method has not enough examples of a term.
    """
    passages = methods[0].passages(records, rule, reader)
    if kept is not None:
        passages = [
            replace(one, spans=tuple(span for span in one.spans if (one.id, one.sample, span.start) in kept))
            for one in passages
        ]
        passages = [passage for passage in passages if passage.spans]
    counts = Counter(span.label for passage in passages for span in passage.spans)
    for method in methods:
        if method.reading.whole:
            counts[method.reading.whole] = len(passages)
        found = {" or ".join(labels): sum(counts[label] for label in labels) for labels in method.terms}
        if min(found.values()) < enough:
            found = " and ".join(f"{count} {labels}" for labels, count in found.items())
            raise InputError(
                f"{method.name} finds {found} {rule}, at least {enough} of each are needed: "
                f"{method.cure(records, rule, reader, enough)}"
            )
    return passages


@dataclass(frozen=True)
class Penalty:
    """A baseline without a direction: the weight is added to the logits of every token that contains one of `words`."""

    name: str
    words: tuple[str, ...]
    weights: tuple[float, ...]
