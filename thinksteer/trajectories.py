"""How sure a model is of its answer along one chain of thought: what is measured, and how it is kept. A line of a
confidence file is a `Trajectory` as JSON."""

import json
import zlib
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_type_hints

import numpy as np

from thinksteer import analysis
from thinksteer.intervals import Floats
from thinksteer.lines import LineLog, whole_lines
from thinksteer.records import InputError, Record

LOW_MASS = 0.75
"""Below this the model would answer with none of the choices, and their odds say little (repeng's notebooks)."""
COMPRESSED_SHARE = 0.2
"""Below this a text is a loop, however short: English prose of any length compresses to above 0.37, chains of thought
to about a third, of the embedded model to above 0.5; a sentence said over and over to 0.23 at 200 characters."""
SPAN, LEAST = 25, 3  # of the score's average, in places

Key = tuple[str, int]
"""(id, sample) of a response."""


@dataclass(frozen=True)
class Trajectory:
    """What the model would have answered, had its chain been broken off at each of F places.

    `at`: tokens of the response before each place; `thinking_end`: those before the end of its thinking, None if that
    was never closed. `choice`: the one that is followed, the reference if it is among the choices, else what is the
    likeliest in the end. At each place: `log_odds` of the first of two choices against the second, of the followed one
    of several against all others, in nats; `mass`, the probability of all choices together; of that the shares
    `probability` of the followed choice and `confidence` of the `likeliest` one. `graded`: `choice` is the reference.
    """

    id: str
    sample: int
    choice: str
    graded: bool
    degenerate: bool
    thinking_end: int | None
    at: tuple[int, ...]
    log_odds: tuple[float, ...]
    mass: tuple[float, ...]
    probability: tuple[float, ...]
    likeliest: tuple[str, ...]
    confidence: tuple[float, ...]

    @property
    def low_mass(self) -> bool:
        return float(np.mean(self.mass)) < LOW_MASS

    @property
    def flagged(self) -> bool:
        """Whether it is left out of all figures."""
        return self.degenerate or self.low_mass

    @property
    def right(self) -> tuple[bool, ...]:
        """Whether the likeliest choice is the reference, at each place of a graded chain."""
        return tuple(one == self.choice for one in self.likeliest)

    @property
    def score(self) -> float | None:
        """The last value of the exponentially weighted mean of log-odds times mass over the places (span 25, as in
        repeng's notebooks); None of fewer than three places."""
        if len(self.at) < LEAST:
            return None
        weights = (1 - 2 / (SPAN + 1)) ** np.arange(len(self.at))[::-1]
        return float(np.average(np.multiply(self.log_odds, self.mass), weights=weights))


def trajectory(
    record: Record,
    at: Sequence[int],
    log_probs: Floats,
    names: Sequence[str],
    reference: int | None,
    thinking_end: int | None,
) -> Trajectory:
    """The measures of a chain from the natural-log probabilities `[F, choices]` of the choices `names` at its places;
    `reference`: which of them is right, None if that is not known."""
    from scipy.special import logsumexp

    likeliest = log_probs.argmax(axis=1)
    followed = int(likeliest[-1]) if reference is None else reference
    total = logsumexp(log_probs, axis=1, keepdims=True)  # [F, 1]
    shares = np.exp(log_probs - total)
    others = np.delete(log_probs, followed, axis=1)
    odds = log_probs[:, followed] - logsumexp(others, axis=1)
    if len(names) == 2:
        odds = log_probs[:, 0] - log_probs[:, 1]
    return Trajectory(
        id=record.id,
        sample=record.sample,
        choice=names[followed],
        graded=reference is not None,
        degenerate=degenerate(record.response),
        thinking_end=thinking_end,
        at=tuple(at),
        log_odds=_rounded(odds),
        mass=_rounded(np.exp(total[:, 0])),
        probability=_rounded(shares[:, followed]),
        likeliest=tuple(names[one] for one in likeliest),
        confidence=_rounded(shares.max(axis=1)),
    )


def degenerate(text: str) -> bool:
    """Whether a response ends in a loop or is one, be it too short for `analysis.degenerate`."""
    raw = text.encode("utf-8", "backslashreplace")
    return analysis.degenerate(text) or len(zlib.compress(raw)) < COMPRESSED_SHARE * len(raw)


def _rounded(values: Floats) -> tuple[float, ...]:
    return tuple(round(float(value), 6) for value in values)


class TrajectoryLog(LineLog):
    """The confidence file being written: `with TrajectoryLog(path) as log`, `log.done`, `log.append(trajectory)`."""

    sync_seconds = 1.0

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.done: set[Key] = set()  # of every whole line in the file

    def known(self, line: bytes, place: str) -> None:
        self.done.add(_key(_decode(line, place), self.done, place))

    def append(self, one: Trajectory) -> None:
        """Write one line. InputError if its (id, sample) is in the file already."""
        self.done.add(_key(one, self.done, str(self.path)))
        self.write(asdict(one))


def read_trajectories(path: Path) -> list[Trajectory]:
    """All lines of a file in the order of their ids; a torn last one is left out. InputError as for the log."""
    found: dict[Key, Trajectory] = {}
    for place, line in whole_lines(path):
        one = _decode(line, place)
        found[_key(one, found, place)] = one
    return [found[key] for key in sorted(found)]


def _key(one: Trajectory, done: Collection[Key], place: str) -> Key:
    key = (one.id, one.sample)
    if key in done:
        raise InputError(f"{place}: id {one.id!r} sample {one.sample} occurs twice: remove one of the two lines")
    return key


def _decode(line: bytes, place: str) -> Trajectory:
    try:
        value = json.loads(line)
        kinds = get_type_hints(Trajectory)
        one = Trajectory(**{name: tuple(item) if type(item) is list else item for name, item in value.items()})
        lists = [getattr(one, name) for name, kind in kinds.items() if getattr(kind, "__origin__", None) is tuple]
        if len({len(values) for values in lists}) != 1 or not one.at:
            raise ValueError("its lists differ in length, or are empty")
        return one
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{place}: no trajectory ({error}): remove the line, it is then made again") from None
