"""Whether a paired change is more than chance, exactly, and whether it still is when many were looked at."""

from collections import Counter
from collections.abc import Sequence

import numpy as np


def swap_p(changes: Sequence[int]) -> float:
    """The exact two-sided p of paired changes in counts, one per question (its samples together).

    If steering did nothing, which run a question's responses came from could as well be tossed up; p is how often so
    large a sum of changes, of either sign, would come of that. With one sample each it is McNemar's exact test.
    """
    from scipy.stats import binom  # half a second that most stages never need

    below = np.ones(1)  # how likely the changes that are tossed to the negative side are to be 0, 1, 2, ... in all
    for size, count in sorted(Counter(abs(change) for change in changes if change).items()):
        tossed = np.zeros(size * count + 1)
        tossed[::size] = binom.pmf(np.arange(count + 1), count, 0.5)
        below = np.convolve(below, tossed)
    sums = len(below) - 1 - 2 * np.arange(len(below))
    return min(1.0, float(below[np.abs(sums) >= abs(sum(changes))].sum()))


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected for their number, in their order (Holm 1979): where none of the effects exists, the least
    corrected one is below 0.05 in at most 5 % of all cases, however the tests depend on each other."""
    found = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(found)
    corrected = np.empty_like(found)
    corrected[order] = np.minimum(1, np.maximum.accumulate(found[order] * np.arange(len(found), 0, -1)))
    return corrected.tolist()
