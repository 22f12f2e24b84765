"""Chains of thought as one HTML page that needs nothing else, coloured by how likely the answer is so far.

The text is a model's: every character of it is escaped, and the page's own policy forbids scripts and requests.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from thinksteer.annotation import token_spans
from thinksteer.document import document
from thinksteer.records import Record
from thinksteer.thinking import Reader
from thinksteer.trajectories import Trajectory

STEPS = 10  # colours between probability 0 and 1, besides that of 1/2
STRONGEST = 0.75  # opacity

STYLE = """
:root { color-scheme: light dark; --low: 213 94 0; --high: 0 114 178; }
body { font: 16px/1.55 system-ui, sans-serif; color: #1c1c1c; background: #fff; max-width: 66rem; margin: 2.5rem auto;
  padding: 0 1.25rem; }
h1 { font-size: 1.5rem; line-height: 1.25; } h2 { font-size: 1.05rem; margin: 2.2rem 0 .3rem; }
p { margin: .3rem 0; } .note { color: #595959; font-size: .86rem; }
pre { font: .86rem/1.7 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; margin: .4rem 0;
  border: 1px solid #d9d9d9; border-radius: 6px; padding: .8rem; }
pre span, .legend span { border-radius: 2px; padding: .1rem 0; } .legend span { padding: .1rem .45rem; }
.end { border-right: 3px solid currentColor; }
@media (prefers-color-scheme: dark) {
  :root { --low: 230 120 40; --high: 50 140 220; } body { color: #e6e6e6; background: #161616; }
  .note { color: #a8a8a8; } pre { border-color: #3a3a3a; }
}
""".strip()


@dataclass(frozen=True)
class Told:
    """A chain with its question and the text of each token of its response."""

    chain: Trajectory
    question: str
    tokens: tuple[str, ...]


def token_texts(record: Record, reader: Reader) -> tuple[str, ...]:
    """The text of each token of a response; a character that several tokens make together is the last one's."""
    starts = [start for start, _ in token_spans(record, reader)]
    return tuple(record.response[start:end] for start, end in pairwise([*starts, len(record.response)]))


def page(title: str, notes: Sequence[str], told: Sequence[Told]) -> str:
    """The whole page: notes, the legend, then each chain."""
    body = "\n".join([*(f'<p class="note">{html.escape(note)}</p>' for note in notes), _legend(), *map(_section, told)])
    return document(title, f"{STYLE}\n{_colours()}", body)


def _colours() -> str:
    """A class per step: orange below one half, blue above, each the paler the nearer to it."""
    lines = []
    for step in range(STEPS + 1):
        side = "--high" if 2 * step > STEPS else "--low"
        lines.append(f".p{step} {{ background: rgb(var({side}) / {STRONGEST * abs(2 * step / STEPS - 1):.2f}); }}")
    return "\n".join(lines)


def _legend() -> str:
    cells = "<wbr>".join(f'<span class="p{step}">{step / STEPS:.1f}</span>' for step in range(STEPS + 1))
    return (
        f'<p class="legend">probability of the answer {cells}</p>\n<p class="note">Tokens have the colour of the first '
        "place behind them where the chain was broken off; the bar marks the end of thinking. The numbers show under "
        "the pointer.</p>"
    )


def _section(told: Told) -> str:
    one = told.chain
    facts = f"{'right answer' if one.graded else 'answer in the end'}: {one.choice}, likeliest in the end: "
    facts += f"{one.likeliest[-1]} ({one.confidence[-1]:.0%})" + "; degenerate" * one.degenerate
    facts += "; seldom one of the choices" * one.low_mass
    return (
        f"<h2>{html.escape(one.id)}, sample {one.sample}</h2>\n<p>{html.escape(told.question)}</p>\n"
        f'<p class="note">{html.escape(facts)}</p>\n<pre>{_text(told)}</pre>'
    )


def _text(told: Told) -> str:
    """Every token in a span with the numbers of the place behind it; those behind the last place are bare."""
    one, parts, place = told.chain, [], 0
    for index, token in enumerate(told.tokens):
        while place < len(one.at) and one.at[place] <= index:
            place += 1
        if place == len(one.at):
            parts.append(html.escape(token))
            continue
        numbers = f"token {index + 1}; after {one.at[place]}: {one.choice} {one.probability[place]:.3f}, log-odds "
        numbers += f"{one.log_odds[place]:+.2f}, mass {one.mass[place]:.3f}, likeliest {one.likeliest[place]}"
        ends = " end" * (one.thinking_end == index + 1)
        css = f"p{round(STEPS * one.probability[place])}{ends}"
        parts.append(f'<span class="{css}" title="{html.escape(numbers)}">{html.escape(token)}</span>')
    return "".join(parts)
