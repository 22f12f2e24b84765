"""The report as one HTML page that needs nothing else: images inside it, no scripts, every outside text escaped."""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from thinksteer.analysis import SHORTEST_PERCENTS
from thinksteer.comparison import Family, Member
from thinksteer.document import document
from thinksteer.outcomes import shared
from thinksteer.records import Record
from thinksteer.tables import Table, as_html

SHOWN_CHARACTERS = 1600
EXAMPLES_HEADING = (
    f"<h3>Examples among the base's shortest {max(SHORTEST_PERCENTS)} %</h3>\n"
    '<p class="note">The shortest response that is right in the edited model only, the shortest right in the base '
    "only, and the shortest with the same verdict in both, as far as there are such.</p>"
)

STYLE = """
:root { color-scheme: light dark; --text: #1c1c1c; --page: #fff; --faint: #595959; --rule: #d9d9d9; --box: #f6f6f4;
  --accent: #0072b2; --right: #00664b; --wrong: #a33c00; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6e6e6; --page: #161616; --faint: #a8a8a8; --rule: #3a3a3a; --box: #222; --accent: #58b4e8;
    --right: #4cc9a0; --wrong: #f09050; }
  figure.image img { border-radius: 6px; }
}
body { font: 16px/1.55 system-ui, sans-serif; color: var(--text); background: var(--page); max-width: 74rem;
  margin: 2.5rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin-bottom: .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .8rem; padding-top: .6rem; border-top: 1px solid var(--rule);
  overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
.facts, .note, .meta { color: var(--faint); font-size: .86rem; }
.headline { border-left: 4px solid var(--accent); padding: .2rem 0 .2rem .9rem; margin: .9rem 0; }
p { max-width: 52rem; overflow-wrap: break-word; }
figure { margin: 1.4rem 0; overflow-x: auto; }
figure img { display: block; max-width: min(100%, 44rem); height: auto; }
figcaption { font-weight: 600; margin-bottom: .35rem; }
figure.image figcaption { font-weight: 400; color: var(--faint); font-size: .86rem; margin: .35rem 0 0; }
figcaption, .note { position: sticky; left: 0; }
table { border-collapse: collapse; font-size: .86rem; font-variant-numeric: tabular-nums; }
th, td { padding: .28rem .9rem .28rem 0; text-align: right; white-space: nowrap; vertical-align: top; }
th { border-bottom: 2px solid var(--text); font-weight: 600; white-space: normal; vertical-align: bottom; }
th.text, td.text { text-align: left; }
td.text { white-space: normal; overflow-wrap: break-word; max-width: 14rem; }
th:first-child, td:first-child { position: sticky; left: 0; background: var(--page); }
tr.starts td { border-top: 1px solid var(--rule); }
.note { margin: .45rem 0 0; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(18rem, 100%), 1fr)); gap: 1rem; }
.pair > div { min-width: 0; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--box); padding: .8rem; font-size: .78rem;
  line-height: 1.45; margin: .2rem 0; max-height: 26rem; overflow-y: auto; }
.right { color: var(--right); } .wrong { color: var(--wrong); }
@media (max-width: 40rem) { td.text:first-child { min-width: 7rem; overflow-wrap: anywhere; } }
""".strip()

METHODS = f"""
<p>The unit of uncertainty is the question: the samples of one question are not independent of each other.
Intervals are 95 % percentile intervals of 2000 resamples of the questions, with one fixed seed, so that the same
records give the same page. An accuracy has Wilson's interval instead, for as many independent responses as its own
are worth: all of them with one sample per question, fewer where the samples of a question agree. Where no verdict
changed no resample differs; the half-width is then Wilson's for that many unanimous questions. Changes are paired:
both models on the same question and sample. Intervals are conditional on the responses picked as shortest, and they
are not corrected for the number of comparisons: of twenty comparisons without any effect, one is expected to lie
apart from zero.</p>
<p>Thinking length counts tokens, both delimiters included. A chain cut by the token budget counts as far as it
got, a lower bound. Responses that never begin to think have no length; they count in the accuracies, and are
never among the shortest {", ".join(map(str, SHORTEST_PERCENTS))} %. A response without an answer is wrong;
answers to open questions are not graded, and no accuracy counts them.</p>
""".strip()


@dataclass(frozen=True)
class Picture:
    """A PNG and what it shows."""

    png: bytes
    caption: str


@dataclass(frozen=True)
class Section:
    """A heading with its tables and pictures; `html` is text already safe to insert (see `examples`)."""

    title: str
    tables: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()
    html: str = ""


def paragraphs(texts: Sequence[str], css_class: str) -> str:
    """Plain texts as escaped paragraphs."""
    return "\n".join(f'<p class="{css_class}">{html.escape(text)}</p>' for text in texts)


def _picture(picture: Picture) -> str:
    data = base64.b64encode(picture.png).decode()
    caption = html.escape(picture.caption)
    return (
        f'<figure class="image"><img alt="{caption}" src="data:image/png;base64,{data}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _section(section: Section) -> str:
    parts = [f"<h2>{html.escape(section.title)}</h2>"]
    parts += [as_html(table) for table in section.tables]
    parts += [_picture(picture) for picture in section.pictures]
    return "\n".join([*parts, section.html])


def page(title: str, facts: Sequence[str], headlines: Sequence[str], sections: Sequence[Section]) -> str:
    """The whole page: what was run, what it shows in words, then the sections, then how intervals are made."""
    body = "\n".join(
        [
            paragraphs(facts, "facts"),
            paragraphs(headlines, "headline"),
            *(_section(section) for section in sections),
            "<h2>How the numbers are made</h2>",
            METHODS,
        ]
    )
    return document(title, STYLE, body)


def picked(base: Member, edited: Member) -> list[tuple[Record, Record]]:
    """Examples among the base's shortest responses: the shortest gained, the shortest lost, the shortest unchanged.

    One of each kind (where there is one), so that the page does not show the gains only.
    """
    rows = base.outcomes.shortest(max(SHORTEST_PERCENTS))
    at, others = shared(base.outcomes[rows], edited.outcomes)
    rows = rows[at]
    before, after = base.outcomes[rows], edited.outcomes[others]
    order = np.lexsort((before.sample, before.question, before.length))
    right, then_right = before.verdict[order] == 1, after.verdict[order] == 1
    kinds = (order[~right & then_right], order[right & ~then_right], order[right == then_right])
    return [(base.records[rows[kind[0]]], edited.records[others[kind[0]]]) for kind in kinds if len(kind)]


def examples(family: Family) -> str:
    """Responses of the base beside those of its first edit, escaped, as HTML; empty where one of them is missing."""
    edits = family.having("edited")
    if family.base is None or not edits:
        return ""
    parts = []
    for before, after in picked(family.base, edits[0]):
        sides = _side(family.base, before) + _side(edits[0], after)
        question = f"<pre>{html.escape(before.question)}</pre>"
        meta = f'<p class="meta">question {html.escape(before.id)}, sample {before.sample}; reference answer: '
        parts.append(f'{question}{meta}{html.escape(before.reference)}</p><div class="pair">{sides}</div>')
    return "\n".join([EXAMPLES_HEADING, *parts]) if parts else ""


def _side(member: Member, record: Record) -> str:
    length = "no thinking" if record.length is None else f"{record.length} tokens of thinking"
    verdict = {True: "right", False: "wrong", None: "not graded"}[record.verdict]
    text = record.response
    if len(text) > SHOWN_CHARACTERS:
        cut = len(text) - SHOWN_CHARACTERS
        half = SHOWN_CHARACTERS // 2
        text = f"{text[:half]}\n[… {cut} characters left out …]\n{text[-half:]}"
    return (
        f'<div><p class="meta"><b>{html.escape(member.model)}</b>: {length}, {record.status}, '
        f'<span class="{verdict}">{verdict}</span></p><pre>{html.escape(text)}</pre></div>'
    )
