"""Responses as columns: what is counted of them, without their texts, so that no statistic needs a loop over them."""

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from thinksteer.intervals import Estimate, Floats, mean

Rows = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Outcomes:
    """N responses: columns `[N]`, and the ids of their questions. NaN where a response has no such value.

    `question` is the row in `ids`, which are in order; `verdict` is 1 or 0, NaN if the question is open; `cut`: it
    reached the token limit; `forced`: its tokens from a forced answer on; `looped`: it ends in a loop, `reopened`: the
    thinking begins once more behind a forced answer (both None: not looked for, which takes its time).
    """

    ids: NDArray[np.str_]
    question: Rows
    sample: NDArray[np.int64]
    verdict: Floats
    length: Floats
    response_tokens: Floats
    answered: NDArray[np.bool_]
    cut: NDArray[np.bool_]
    status: NDArray[np.str_]
    forced: Floats
    looped: NDArray[np.bool_] | None
    reopened: NDArray[np.bool_] | None

    def __len__(self) -> int:
        return len(self.question)

    def __getitem__(self, rows: Rows | NDArray[np.bool_]) -> Self:
        """Those in some rows, by number or by mask."""
        columns = (getattr(self, field.name) for field in fields(self)[1:])
        return type(self)(self.ids, *(None if column is None else column[rows] for column in columns))

    def mean(self, values: Floats, bounds: tuple[float, float] | None) -> Estimate | None:
        """The mean of one value per response, `[N]`, where there is one (None: nowhere); `bounds` as in `intervals`."""
        there = ~np.isnan(values)
        return mean(self.question[there], values[there], bounds)

    @property
    def lengths(self) -> Floats:
        """Of those that think."""
        return self.length[~np.isnan(self.length)]

    def shortest(self, percent: int) -> Rows:
        """Of each run's n thinking responses the `floor(percent % of n)` shortest; all of one sample number are a run.

        As upstream (methods A7), but responses that never think are left out (upstream sorts them first, as length -1)
        and ties are broken by question id, so that the choice does not depend on the order of the file.
        """
        order = np.lexsort((self.question, self.length, self.sample))
        order = order[~np.isnan(self.length[order])]
        _, starts, sizes = np.unique(self.sample[order], return_index=True, return_counts=True)
        place = np.arange(len(order)) - np.repeat(starts, sizes)
        return order[place < np.repeat(sizes * percent // 100, sizes)]

    @cached_property
    def next_samples(self) -> Rows:
        """For each response the row of the next sample of the same question (the first after the last), -1 if there is
        no other.

        Picking a model's shortest responses picks their luck too; the next samples of their questions were not picked.
        """
        order = np.lexsort((self.sample, self.question))
        _, starts, sizes = np.unique(self.question[order], return_index=True, return_counts=True)
        place = np.arange(len(order)) - np.repeat(starts, sizes)
        size = np.repeat(sizes, sizes)
        following = np.repeat(starts, sizes) + (place + 1) % size
        found = np.empty_like(order)
        found[order] = np.where(size > 1, order[following], -1)
        return found


def shared(first: Outcomes, second: Outcomes) -> tuple[Rows, Rows]:
    """Where each (question, sample) that both have is in the one and in the other."""
    both = first, second
    _, at = np.unique(np.concatenate([one.ids for one in both]), return_inverse=True)
    of_id = np.split(at, [len(first.ids)])
    question = np.concatenate([codes[one.question] for codes, one in zip(of_id, both, strict=True)])
    _, sample = np.unique(np.concatenate([one.sample for one in both]), return_inverse=True)
    keys = np.split(question * len(sample) + sample, [len(first)])
    _, *rows = np.intersect1d(*keys, assume_unique=True, return_indices=True)
    return rows[0], rows[1]
