"""How many questions, with how many samples each, show an effect: from what questions and samples vary in a pilot.

The mean of Q questions with S samples each has the variance (between + within / S) / Q. An effect is seen where its
95 % interval leaves out zero on its side, which happens with the probability `power` if it is z(0.975) + z(power)
standard errors large. More samples of a question lower only the second part of the variance.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from statistics import NormalDist

import numpy as np

from thinksteer.intervals import Z
from thinksteer.records import InputError

LEAST = 100
"""Questions below which intervals hold less than they say (docs/statistics.md)."""


@dataclass(frozen=True)
class Spread:
    """Variances of a value: `between` the questions' own means, and `within` a question, between its samples."""

    between: float
    within: float

    def of_question(self, n_samples: int) -> float:
        """The variance of the mean of so many samples, over questions."""
        return self.between + self.within / n_samples

    def __add__(self, other: "Spread") -> "Spread":
        """That of a difference, each side of which has questions of its own."""
        return Spread(self.between + other.between, self.within + other.within)


def spread(ids: Sequence[str], values: Sequence[float]) -> Spread:
    """The spread of one value per response (one-way analysis of variance; `between` is 0 at least).

    InputError without two questions, or where none has two samples, as samples cannot be told from questions then.
    """
    names, question = np.unique(np.asarray(ids, dtype=str), return_inverse=True)
    n, n_questions = len(ids), len(names)
    if n_questions < 2 or n == n_questions:
        raise InputError(
            f"{n} responses to {n_questions} questions do not tell how samples of one differ: generate two of each"
        )
    counts, each = np.bincount(question), np.asarray(values, dtype=np.float64)
    means = np.bincount(question, weights=each) / counts
    within = ((each - means[question]) ** 2).sum() / (n - n_questions)
    among = (counts * (means - each.mean()) ** 2).sum() / (n_questions - 1)
    samples = (n - (counts**2).sum() / n) / (n_questions - 1)  # of a question; what they are if all have as many
    return Spread(float(max(0.0, (among - within) / samples)), float(within))


def questions_needed(of: Spread, effect: float, n_samples: int, power: float = 0.8) -> int:
    """The number of questions that show a mean change of `effect`, in the unit of the values, with that power; `LEAST`
    where fewer would do."""
    errors = Z + NormalDist().inv_cdf(power)
    return max(LEAST, ceil(of.of_question(n_samples) * (errors / effect) ** 2))
