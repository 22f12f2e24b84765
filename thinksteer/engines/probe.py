"""Probing with transformers: what would the model answer, were its chain of thought broken off here, or there?

The keys and values of a chain are computed once, up to its last fork: its stem. A fork then is a few tokens more, its
tail and each distinct beginning of the answers, which see the stem up to there and what leads to them (a tree, as
speculative decoding verifies them). The tokens of many forks, of many chains, lie in one row (`engines.pieces`).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel

from thinksteer.confidence import Chain, Fork, Tree
from thinksteer.engines.pieces import Piece, Row, attention_by_pieces
from thinksteer.engines.sampling import require_finite
from thinksteer.records import Condition, Edit
from thinksteer.steering import Gate, applied, conditions
from thinksteer.thinking import Follower, Marks

PASS_TOKENS = 2048  # of one forward pass, where no single stem is longer
PIECE_TOKENS = 96  # of forks that attend together: each also computes, in vain, the scores of the others' tokens
LOGITS = 1 << 26  # numbers in memory at once

Item = TypeVar("Item")


def probe(
    model: PreTrainedModel, chains: Sequence[Chain], tree: Tree, edits: Sequence[Edit], marks: Marks
) -> Iterator[tuple[Chain, Tensor]]:
    """Each chain with the log-probabilities `[forks, answers]` of a tree's answers (see `engines.Engine.probe`)."""
    with (
        attention_by_pieces(model) as row,
        applied(model, edits) as masks,
        tqdm(total=len(chains), unit="chain", desc="probe") as progress,
    ):
        prober = Prober(row, tree, conditions(edits), marks, masks)
        for together in packed(chains, stem_length, PASS_TOKENS):
            for chain, steps in zip(together, prober.steps(together), strict=True):
                progress.update()
                yield chain, tree.answers(steps)


def begin_of(chain: Chain, fork: Fork) -> int:
    """How many tokens a fork sees before its own. One without a tail reads the token before it once more."""
    return len(chain.prompt_ids) + fork.at - (not fork.tail)


def stem_length(chain: Chain) -> int:
    """Tokens up to the last fork."""
    return max([1, *(begin_of(chain, fork) for fork in chain.forks)])


def packed(items: Iterable[Item], length: Callable[[Item], float], limit: float) -> list[list[Item]]:
    """In their order, as many together as are not longer than the limit, but one at least."""
    packs: list[list[Item]] = []
    taken = 0.0
    for item in items:
        taken += length(item)
        if not packs or taken > limit:
            packs.append([])
            taken = length(item)
        packs[-1].append(item)
    return packs


def joined(held: Iterable[list[list[bool]]]) -> list[list[bool]]:
    """Where each condition holds on parts that follow each other."""
    return [[one for part in parts for one in part] for parts in zip(*held, strict=True)]


@dataclass
class Forks:
    """Forks of one chain, of as many tokens each, as a piece; `numbers`: theirs among the forks of all chains."""

    piece: Piece
    numbers: list[int]


class Prober:
    """Reads chains with the model of a row, which is steered; `masks`: of its conditions (see `steering.applied`)."""

    def __init__(
        self, row: Row, tree: Tree, conditions: list[Condition], marks: Marks, masks: dict[Condition, Tensor]
    ) -> None:
        self.row, self.conditions, self.marks, self.masks = row, conditions, marks, masks
        self.branches = list(tree.branches)
        counts = torch.tensor([len(tokens) for tokens in tree.branches.values()])
        self.branch_of = torch.arange(len(counts)).repeat_interleave(counts)
        self.tokens = torch.tensor([token for tokens in tree.branches.values() for token in tokens])
        self._trees: dict[int, Tensor] = {}

    @torch.inference_mode()
    def steps(self, chains: Sequence[Chain]) -> list[Tensor]:
        """For each chain the log-probabilities `[forks, tokens]` of each branch's tokens, at each fork, on the CPU."""
        forks: list[Forks] = []
        counts = [len(chain.forks) for chain in chains]
        begin = first = 0
        for chain, count in zip(chains, counts, strict=True):
            forks += self._forks(chain, begin, first)
            begin, first = begin + stem_length(chain), first + count
        self._logits([self._stem(chain) for chain in chains], torch.empty(0, dtype=torch.long))
        found = [self._steps(some) for some in packed(forks, self._share, 1)]
        order = [number for one in forks for number in one.numbers]
        steps = torch.cat(found)[torch.tensor(order).argsort()] if found else torch.empty(0, len(self.tokens))
        return list(steps.split(counts))

    def _share(self, forks: Forks) -> float:
        """Of what one pass may take."""
        logits = len(forks.numbers) * len(self.branches) * self.row.model.config.vocab_size
        return max(len(forks.piece.ids) / PASS_TOKENS, logits / LOGITS)

    def _steps(self, forks: Sequence[Forks]) -> Tensor:
        """Of forks that are read in one pass: `[forks, tokens]`."""
        begin, ends = 0, []
        for one in forks:
            end = begin + len(one.piece.ids)
            own = torch.arange(begin, end).unflatten(0, (len(one.numbers), -1))
            ends.append(own[:, -len(self.branches) :])  # the end of each tail, and what each branch but the first adds
            begin = end
        logits = self._logits([one.piece for one in forks], torch.cat(ends).flatten())
        return self._weighed(logits.unflatten(0, (-1, len(self.branches))))

    def _weighed(self, logits: Tensor) -> Tensor:
        """Log-probabilities `[forks, tokens]` from `[forks, branches, V]`."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        totals = logits.logsumexp(dim=-1)
        require_finite(totals)
        return (logits[:, self.branch_of, self.tokens] - totals[:, self.branch_of]).cpu()

    def _logits(self, pieces: Sequence[Piece], at: Tensor) -> Tensor:
        for index, where in enumerate(self.conditions):
            held = [one for piece in pieces for one in piece.held[index]]
            self.masks[where] = torch.tensor([held], device=self.row.model.device)
        return self.row.logits(pieces, at)

    def _gate(self, chain: Chain) -> Gate:
        return Gate(self.conditions, Follower(len(chain.prompt_ids), self.marks))

    def _stem(self, chain: Chain) -> Piece:
        ids = [*chain.prompt_ids, *chain.token_ids][: stem_length(chain)]
        return Piece(ids, list(range(len(ids))), self._gate(chain).mask(ids, 0, len(ids)))

    def _forks(self, chain: Chain, begin: int, first: int) -> Iterator[Forks]:
        """The forks of a chain whose stem begins there in the row, and whose first fork has that number."""
        alone = self._alone(chain)

        def length(number: int) -> int:
            return len(alone[number].ids)

        order = sorted(alone, key=lambda number: (length(number), alone[number].places[0]))
        for _, alike in groupby(order, key=length):
            for numbers in packed(alike, length, PIECE_TOKENS):
                piece = self._together([alone[number] for number in numbers], begin)
                yield Forks(piece, [first + number for number in numbers])

    def _alone(self, chain: Chain) -> dict[int, Piece]:
        """Each fork by its number: its tail and the last token of each branch."""
        ids, gate, alone = [*chain.prompt_ids, *chain.token_ids], self._gate(chain), {}
        for number, fork in sorted(enumerate(chain.forks), key=lambda one: one[1].at):
            begin = begin_of(chain, fork)
            tail = list(fork.tail) or ids[begin : begin + 1]
            end, branches = begin + len(tail), self.branches[1:]
            gate.mask(ids, begin, begin)  # follows the chain up to here
            held = [self._held(gate, ids[:begin], tail, branch) for branch in self.branches if self.conditions]
            alone[number] = Piece(
                tail + [branch[-1] for branch in branches],
                [*range(begin, end), *(end + len(branch) - 1 for branch in branches)],
                joined(held),
            )
        return alone

    def _held(self, gate: Gate, ids: list[int], tail: list[int], branch: tuple[int, ...]) -> list[list[bool]]:
        """Where the conditions hold on a tail, or at the last token of a branch behind it."""
        path = [*ids, *tail, *branch]
        return copy(gate).mask(path, len(path) - 1 if branch else len(ids), len(path))

    def _together(self, forks: Sequence[Piece], begin: int) -> Piece:
        length, ends = len(forks[0].ids), [one.places[0] for one in forks]
        return Piece(
            [token for one in forks for token in one.ids],
            [place for one in forks for place in one.places],
            joined(one.held for one in forks),
            slice(begin, begin + max(ends)),
            torch.tensor(ends).repeat_interleave(length),
            torch.block_diag(*[self._tree(length)] * len(forks)),
        )

    def _tree(self, length: int) -> Tensor:
        """Which tokens of a fork of that length each of them sees `[length, length]`."""
        if length not in self._trees:
            seen, tail = torch.ones(length, length, dtype=torch.bool).tril(), length - len(self.branches) + 1
            for row, branch in enumerate(self.branches[1:], tail):
                for column, other in enumerate(self.branches[1:], tail):
                    seen[row, column] = branch[: len(other)] == other
            self._trees[length] = seen
        return self._trees[length]
