"""SEAL (arXiv 2504.07986): thoughts of execution, reflection and transition, and the vector that calibrates them.

A chain of thought is cut at its blank lines. The state at the blank line that opens a thought is read, and later added
to, so that what kind of thought comes next is steered once per thought. Upstream (VITA-Group/SEAL) subtracts the mean
of execution from that of the others and adds it with coefficient -1; as in the paper's formula, the signs are here the
other way round, and positive weights make for execution.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import dataclass

from thinksteer.flags import natural_int
from thinksteer.methods.method import Method, Penalty
from thinksteer.records import Condition, Passage, Reading, Record, Span
from thinksteer.thinking import Reader

EXECUTION, REFLECTION, TRANSITION = "execution", "reflection", "transition"
BREAK = "\n\n"

# hidden_states[20] of 28 layers, [55] of 64 (the paper's section 4): the outputs of the blocks before.
PUBLISHED_LAYERS = {28: 19, 64: 54}
DEPTH = 5 / 7


@dataclass(frozen=True)
class Marks:
    """A thought is of this label if it begins with one of `prefixes` or contains one of `parts`, whatever the case."""

    label: str
    prefixes: tuple[str, ...]
    parts: tuple[str, ...]

    def fit(self, text: str) -> bool:
        return text.startswith(self.prefixes) or any(part in text for part in self.parts)


_CHECKING = ("verify", "make sure", "hold on", "think again", "let me check", "seems right")
_CHECKING += ("'s correct", "'s incorrect")
_ANOTHER = tuple(f"another {word}" for word in ("way", "approach", "method", "solution", "strategy", "technique"))

# The first marks that fit decide; what nothing marks is execution.
KEYWORDS = {
    "corrected": (
        Marks(REFLECTION, ("wait",), _CHECKING),
        Marks(TRANSITION, ("alternatively",), ("think differently", *_ANOTHER)),
    ),
    # Upstream's hidden_analysis.py to the letter: its "think differenly" finds nothing.
    "upstream": (
        Marks(REFLECTION, ("wait",), _CHECKING),
        Marks(TRANSITION, ("alternatively",), ("think differenly", *_ANOTHER)),
    ),
    # The lists that esther119's fork of SEAL uses on programming problems.
    "code": (
        Marks(REFLECTION, (), ("wait", *_CHECKING, "hmm", "what if", "double-check", "recheck", "edge case")),
        Marks(
            TRANSITION,
            (),
            (
                *("alternatively", "think differently", "instead", "a better way", "rethink", "start over"),
                *("on second thought", *_ANOTHER),
            ),
        ),
    ),
    # EasySteer's replication: transitions are looked for first, both words anywhere.
    "easysteer": (
        Marks(TRANSITION, (), ("alternatively", "think differently", *_ANOTHER)),
        Marks(REFLECTION, (), ("wait", *_CHECKING)),
    ),
}


@dataclass(frozen=True)
class ThoughtRule:
    """Which list of `KEYWORDS` labels thoughts, and of how many correct and incorrect responses (None: all)."""

    keywords: str = "corrected"
    n_correct: int | None = 500
    n_incorrect: int | None = 500

    def __str__(self) -> str:
        counts = [
            f"{count or 'all'} {verdict}"
            for count, verdict in ((self.n_correct, "correct"), (self.n_incorrect, "incorrect"))
        ]
        return f"in {' and '.join(counts)} responses, by the keywords {self.keywords}"


def classify(text: str, rule: ThoughtRule) -> str:
    """The label of a thought."""
    stripped = text.strip().lower()
    return next((marks.label for marks in KEYWORDS[rule.keywords] if marks.fit(stripped)), EXECUTION)


def passages(records: Sequence[Record], rule: ThoughtRule, reader: Reader) -> list[Passage]:
    """The thoughts of the first so many correct and incorrect responses, and of all answers to open questions, each
    without the blank line that opens it.

    As upstream's, a thought lies between two tokens that complete a blank line: ".\\n\\n" does, and so does the second
    of two line breaks in vocabularies without one token for both. The first thought, which none opens, is left out;
    chains that never closed count as far as they got.
    """
    correct = [record for record in records if record.correct][: rule.n_correct]
    incorrect = [record for record in records if record.verdict is False][: rule.n_incorrect]
    ungraded = [record for record in records if record.verdict is None]
    found = []
    for record in (*correct, *incorrect, *ungraded):
        ids, inside = reader.inside(record)
        edges = sorted(reader.completing(ids, BREAK) & set(inside))
        spans = [
            Span(classify(reader.decode(ids[edge + 1 : after]), rule), edge + 1, after)
            for edge, after in zip(edges, [*edges[1:], inside.stop], strict=False)
            if edge + 1 < after
        ]
        if spans:
            found.append(Passage(record.id, ids, tuple(spans), record.sample))
    return found


def rule(args: Namespace, own_quantile: float | None) -> ThoughtRule:
    return ThoughtRule(args.keywords, args.n_correct or None, args.n_incorrect or None)


def add_flags(parser: ArgumentParser) -> None:
    flags = parser.add_argument_group("seal: thoughts and the responses they are taken from")
    flags.add_argument("--keywords", choices=KEYWORDS, default="corrected", help="default: %(default)s")
    for verdict in ("correct", "incorrect"):
        flags.add_argument(
            f"--n_{verdict}", type=natural_int, default=500, help=f"first {verdict} ones, 0: all (default: %(default)s)"
        )


def layer(num_layers: int) -> int:
    """The block after which the vector is added: the paper's where it tells, else at the same share of the depth."""
    return PUBLISHED_LAYERS.get(num_layers, round(DEPTH * num_layers) - 1)


def where(reader: Reader) -> Condition:
    """At every token that completes a blank line inside the thinking; not in the question, nor in the answer."""
    return Condition(text=BREAK, in_thinking=True)


_TERMS = {
    "seal": {(EXECUTION,): 1, (REFLECTION, TRANSITION): -1},
    "seal_reflection": {(EXECUTION,): 1, (REFLECTION,): -1},
    "seal_transition": {(EXECUTION,): 1, (TRANSITION,): -1},
    "seal_sum": {(EXECUTION,): 1, (REFLECTION,): -1, (TRANSITION,): -1},  # EasySteer's
}
METHODS = tuple(
    Method(
        name=name,
        passages=passages,
        rule=rule,
        add_flags=add_flags,
        classify=classify,
        reading=Reading("block_out", shift=-1, limit=1),  # the blank line
        terms=terms,
        sites=("block_out",),
        layer=layer,
        where=where,
        weights=(0.0, 1.0),
    )
    for name, terms in _TERMS.items()
)
PENALTIES = (Penalty("seal_penalty", ("wait", "alternatively"), (0.0, -3.0)),)
