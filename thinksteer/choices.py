r"""The answers that a chain is asked for when it is broken off, as token sequences.

A choice can be written in several ways (" Yes", "Yes", "Yes."), and its probability is the sum over them, as in
repeng's notebooks on thinking models. So that nothing counts twice, no way of writing one begins another; where the
words that ask leave a brace open (`\boxed{`), an answer is closed by one, which tells 1 from the beginning of 10.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from thinksteer.intervals import Floats
from thinksteer.records import InputError, Record

BEFORE, AFTER = ("", " ", "\n"), ("", ".", ",", "\n")

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Choices:
    """`answers`: all ways of writing all choices; `owners`: the index in `names` of what each of them stands for."""

    names: tuple[str, ...]
    answers: tuple[Tokens, ...]
    owners: tuple[int, ...]

    @classmethod
    def of(cls, names: Sequence[str], suffix: str, encode: Callable[[str], Sequence[int]]) -> "Choices":
        """How these are written after `suffix`; `encode` gives a text's tokens. InputError: one begins another."""
        ways = [written(name, suffix, encode) for name in names]
        pairs = [(way, owner) for owner, of_one in enumerate(ways) for way in of_one]
        first: dict[Tokens, int] = dict(reversed(pairs))
        for way, owner in pairs:
            begins = (first.get(way[:length], owner) for length in range(1, len(way) + 1))
            if (other := next((one for one in begins if one != owner), owner)) != owner:
                raise InputError(
                    f"--choices: as tokens, {names[other]!r} begins {names[owner]!r} or is the same, so they cannot be "
                    r"told apart: choose others, or end --suffix in \boxed{"
                )
        return cls(tuple(names), tuple(way for way, _ in pairs), tuple(owner for _, owner in pairs))

    def pooled(self, log_probs: Floats) -> Floats:
        """The log-probability of each choice `[F, choices]` from those of its ways of writing `[F, answers]`."""
        owners = np.asarray(self.owners)
        from scipy.special import logsumexp

        return np.stack([logsumexp(log_probs[:, owners == one], axis=1) for one in range(len(self.names))], axis=1)

    def index(self, answer: str) -> int | None:
        """Which choice an answer is, None if none; case does not matter."""
        plain = [name.casefold() for name in self.names]
        wanted = answer.strip().casefold()
        return plain.index(wanted) if wanted in plain else None


def named(values: Sequence[str], records: Sequence[Record]) -> list[str]:
    """What --choices names: words, a range of numbers or capital letters (`10-59`, `A-J`), or with `reference` every
    reference answer of the records. InputError: fewer than two, or one twice."""
    names = list(values)
    if names == ["reference"]:
        found = {record.reference.strip() for record in records if record.kind != "open"} - {""}
        names = sorted(found, key=lambda name: (len(name), name))
    elif len(names) == 1 and (match := re.fullmatch(r"(\d+)-(\d+)", names[0])):
        names = [str(number) for number in range(int(match[1]), int(match[2]) + 1)]
    elif len(names) == 1 and (match := re.fullmatch(r"([A-Z])-([A-Z])", names[0])):
        names = [chr(code) for code in range(ord(match[1]), ord(match[2]) + 1)]
    if len({name.casefold() for name in names}) != len(names) or len(names) < 2 or not all(names):
        raise InputError(
            f"--choices {' '.join(values)}: gives {len(names)} choices ({' '.join(names[:3])} ...), two or more "
            "different ones are needed: give words, a range such as 10-59 or A-J, or `reference`"
        )
    return names


def written(name: str, suffix: str, encode: Callable[[str], Sequence[int]]) -> list[Tokens]:
    """The ways of writing a choice, the shortest first: with and without a space before it, and with a line break
    before or punctuation behind it where that takes no token of its own."""
    if suffix.count("{") > suffix.count("}"):
        return [tuple(encode(name + "}"))]
    bare = len(encode(name))
    ways = [tuple(encode(before + name + after)) for before in BEFORE for after in AFTER]
    free = [tuple(encode(before + name)) for before in ("", " ")]
    kept: list[Tokens] = []
    for way in sorted(dict.fromkeys([*free, *(way for way in ways if len(way) <= bare)]), key=len):
        if not any(way[: len(shorter)] == shorter for shorter in kept):
            kept.append(way)
    return kept
