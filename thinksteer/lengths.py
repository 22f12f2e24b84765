"""Which chains of thought count as long and which as short."""

import json
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from statistics import quantiles
from typing import Literal

from thinksteer.records import InputError

Label = Literal["long", "short"]
BUCKETS = 10  # of questions of like size, when groups are matched


@dataclass(frozen=True)
class Chain:
    """One closed chain of thought: `ids[start:end]` is the thinking with both its delimiters."""

    ids: tuple[int, ...]
    prompt_tokens: int
    start: int
    end: int

    @property
    def length(self) -> int:
        return self.end - self.start


@dataclass(frozen=True)
class LengthRule:
    """Long is above, short below a number of thinking tokens, both strictly (paper, section 3: 1000 and 100).

    InputError for thresholds that a length can be both above and below.
    """

    long_above: float = 1000
    short_below: float = 100

    def __post_init__(self) -> None:
        if self.short_below > self.long_above + 1:
            flags = f"--long_above {self.long_above:g} --short_below {self.short_below:g}"
            raise InputError(f"{flags}: what lies between would be both, long and short: let the second be the smaller")

    def __str__(self) -> str:
        return f"above {self.long_above:g} tokens of thinking (long) and below {self.short_below:g} (short)"

    def labels(self, chains: Sequence[Chain]) -> list[Label | None]:
        return [self._label(chain.length) for chain in chains]

    def _label(self, length: int) -> Label | None:
        if length > self.long_above:
            return "long"
        return "short" if length < self.short_below else None

    def cure(self, chains: Sequence[Chain], enough: int) -> str:
        """Which thresholds would give `enough` of each label; lengths are whole tokens."""
        lengths = sorted(chain.length for chain in chains)
        if len(lengths) < 2 * enough or lengths[-enough] == lengths[enough - 1]:
            return "no thresholds give enough of both: generate more responses"
        short_below = min(max(self.short_below, lengths[enough - 1] + 1), lengths[-enough])
        long_above = min(max(self.long_above, short_below - 1), lengths[-enough] - 1)
        return f"long_above {long_above:g} and short_below {short_below:g} would give enough"


@dataclass(frozen=True)
class QuantileRule:
    """The longest and the shortest `share` of the chains, as many long as short; for models that never think briefly.

    With `match="prompt_tokens"` the shares are taken within each of ten buckets of prompt length, so that both groups
    have the same distribution of question size and the direction does not encode it.
    """

    share: float = 0.2
    match: Literal["prompt_tokens"] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.share <= 0.5:
            raise InputError(f"--quantile {self.share:g}: the longest and shortest shares lie in (0, 0.5]")

    def __str__(self) -> str:
        return f"among the longest and the shortest {self.share:.0%} of the chains"

    def labels(self, chains: Sequence[Chain]) -> list[Label | None]:
        labels: list[Label | None] = [None] * len(chains)
        for bucket in self._buckets(chains):
            ranked = sorted(bucket, key=lambda index: chains[index].length)
            count = int(self.share * len(ranked) + 1e-9)  # 0.29 * 100 is a little less than 29
            # Where the same length would be both long and short, fewer are taken.
            while count and chains[ranked[count - 1]].length == chains[ranked[-count]].length:
                count -= 1
            for short, long in zip(ranked[:count], ranked[len(ranked) - count :], strict=True):
                labels[short], labels[long] = "short", "long"
        return labels

    def _buckets(self, chains: Sequence[Chain]) -> list[list[int]]:
        """Indices of the chains by question size; chains of equal size are never torn apart."""
        if self.match is None or len(chains) < 2:
            return [list(range(len(chains)))]
        edges = quantiles((chain.prompt_tokens for chain in chains), n=BUCKETS, method="inclusive")
        buckets: defaultdict[int, list[int]] = defaultdict(list)
        for index, chain in enumerate(chains):
            buckets[bisect_left(edges, chain.prompt_tokens)].append(index)
        return list(buckets.values())

    def cure(self, chains: Sequence[Chain], enough: int) -> str:
        """Which share would give `enough` of each label."""
        for percent in range(1, 51):
            if replace(self, share=percent / 100).labels(chains).count("long") >= enough:
                return f"share {percent / 100:g} would give enough"
        return "no share gives enough: generate more responses"


Rule = LengthRule | QuantileRule


def choose_rule(
    own_quantile: float | None,
    long_above: int | None,
    short_below: int | None,
    quantile: float | None,
    match: Literal["prompt_tokens"] | None,
) -> Rule:
    """The rule that the flags ask for; without any, the model's own quantile or else the paper's thresholds."""
    absolute = long_above is not None or short_below is not None
    if absolute and (quantile is not None or match is not None):
        raise InputError("--long_above and --short_below exclude --quantile and --match: give either pair")
    share = None if absolute else quantile or own_quantile
    if share is not None:
        return QuantileRule(share, match)
    if match is not None:
        raise InputError("--match goes with --quantile: thresholds take every chain beyond them")
    return LengthRule(long_above or LengthRule.long_above, short_below or LengthRule.short_below)


def rule_text(rule: Rule) -> str:
    """The rule as a file states it: JSON of its fields."""
    return json.dumps(asdict(rule))


def read_rule(text: str) -> Rule:
    """The rule that `rule_text` states. InputError if the text states another method's, or none."""
    try:
        fields = json.loads(text)
        return QuantileRule(**fields) if "share" in fields else LengthRule(**fields)
    except (TypeError, ValueError) as error:
        raise InputError(f"{text[:80]!r} states no rule about thinking lengths ({error})") from None
