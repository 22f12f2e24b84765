"""The annotator that needs nothing: sentences of thinking, labelled by what they say.

The rule, for each sentence in order:

1. The first of `MARKED` whose cue it has labels it: backtracking, uncertainty, examples. Within a thought (up to a
   blank line) such a label carries on to the next sentences, until one has a cue of its own: all three sentences of
   "Wait, let me check. 31+9=40. Yes." are uncertainty-estimation.
2. If nothing is carried, a sentence that repeats the question is initializing.
3. The first of `REST` whose cue it has; else what is carried; else deduction.

Neighbouring sentences with one label make one section, but not across a blank line. As in upstream's annotations, where
a section is a stretch of one behaviour (two sentences on average), so its beginning is where the behaviour begins; a
new thought begins it anew.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

INITIALIZING, DEDUCTION, KNOWLEDGE = "initializing", "deduction", "adding-knowledge"
EXAMPLE, UNCERTAINTY, BACKTRACKING = "example-testing", "uncertainty-estimation", "backtracking"

CARRIED = (BACKTRACKING, UNCERTAINTY, EXAMPLE)


@dataclass(frozen=True)
class Cues:
    """A sentence has this label if it begins with one of `openers` or has one of `parts`; both are regular expressions
    for whole words in lower case. `first`: in the first thought only."""

    label: str
    openers: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    first: bool = False

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        nothing = r"(?!)"
        openers, parts = "|".join(self.openers) or nothing, "|".join(self.parts) or nothing
        return re.compile(rf"^(?:{openers})(?!\w)|\b(?:{parts})(?!\w)")


# Of several that fit, the first decides.
MARKED = (
    Cues(
        BACKTRACKING,
        ("alternatively", "instead", "on second thought", "scratch that", "never mind"),
        (
            "(another|a different|a better|some other) (way|approach|method|solution|strategy|technique|idea|angle)",
            *("try something else", "think differently", "start over", "start again", "start from scratch"),
            *("(go|going) back to", "backtrack", "rethink", "reconsider", "abandon", "dead end", "change course"),
            *("(doesn't|does not|won't|isn't|is not|not) work(ing)?", "not getting anywhere", "switch to"),
            *("i (made|must have made) (a mistake|an error)", "that was wrong"),
        ),
    ),
    Cues(
        UNCERTAINTY,
        ("(but |so )?(wait|hold on)", "hmm+", "hm", "maybe", "perhaps", "actually", "is (it|that|this)", "am i"),
        (
            *("(not|am i|are we) (sure|certain|clear)", "unsure", "uncertain", "unclear", "confus(ed|ing)"),
            *("i (wonder|doubt|guess|suppose)", "(might|may|could) be", "probably", "(seems|looks) (right|off|odd)"),
            *("verif(y|ying|ies)", "make sure", "(re|double)[- ]?check(ing)?", "sanity check", "think again"),
            *("(let me|let's|i should|i'll) (check|confirm|see if)", "(is|was) (that|this|it) (right|correct)"),
            *("'s (in)?correct", "(doesn't|does that|does this) make sense", "did i", "(is|am|be) missing something"),
        ),
    ),
    Cues(
        EXAMPLE,
        ("suppose", "imagine", "let's say"),
        (
            *("for (example|instance)", "as an example", r"e\.g", "(concrete|simple|small|test|special) cases?"),
            *("(let me|let's|i can|i could|we can|if i|if we) (try|test|take|pick)", "test with", "try with"),
            *("plug(ging)? (it |them |this )?in", "see what happens"),
        ),
    ),
)
REST = (
    Cues(
        INITIALIZING,
        (),
        (
            *("the (question|problem|puzzle|task|riddle|user|prompt)", "(i'm|i am|we're|we are) (asked|given)"),
            *("let me (understand|parse|read|restate)", "let me start by"),
        ),
    ),
    Cues(
        INITIALIZING,
        ("okay", "ok", "alright", "all right"),
        ("(i|we) (need|have|want) to", "i should", "(trying|try) to", "figure out"),
        first=True,
    ),
    Cues(
        KNOWLEDGE,
        (r"the \w+ \w+ has (a number|\d+)",),  # the embedded model's made-up facts
        (
            *(
                "(i|we) (know|remember|recall|learned)",
                "recall",
                "remember",
                "(well-)?known (as|that|to)",
                "by definition",
            ),
            *("(defined|definition) (as|of)", "formulas? (for|of|is)", "theorem", "according to", "states that"),
            *("generally", "in general", "typically", "usually", "commonly", "(is|are) called", "refers to"),
            *("the fact that", "identity", "law of", "rule of thumb", "(property|properties) of"),
        ),
    ),
    # What has no cue is deduction, too; these end what is carried.
    Cues(
        DEDUCTION,
        ("so", "therefore", "thus", "hence", "consequently", "accordingly", "in conclusion", "overall", "next"),
        (
            *("(which|this|that) (means|implies|gives|leads to)", "it follows", "(we|i) (get|have|obtain|find)"),
            *("as a result", "the answer is"),
        ),
    ),
)

_LEADING = re.compile(r"^\W*(?:\d+[.)]\s+)?\W*")  # bullets, numbers of lists, markup
# Only from the first of a row of full stops on, and abbreviations only in the last characters: there may be thousands.
_SENTENCE_END = re.compile(r"(?<![.!?])[.!?]+[\"')\]*_”’]*(?=\s)|[。！？]+|\n")
# A full stop after these ends no sentence: "e.g.", "Dr.", and the number or letter of a list's item.
_ABBREVIATION = re.compile(
    r"\b(?:e\.g|i\.e|cf|vs|etc|approx|resp|eq|eqs|fig|sec|ch|mr|mrs|ms|dr|prof|st|jr)\.$", re.IGNORECASE
)
_LONGEST = len("approx.")
_ITEM = re.compile(r"\s*[(*]*(?:\d+|[a-z])\.\**", re.IGNORECASE)
_WORD = re.compile(r"[^\W_]+(?:[.,'][^\W_]+)*|[-+*/=<>^]")
_FUNCTION_WORDS = """
a an and are as at be been but by can do does for from had has have he her his how i if in into is it its let me my need
of on one or our she so that the their them then there these they this to up was we what when where which who will with
would you your okay ok alright first find
"""
_EMPTY = frozenset(_FUNCTION_WORDS.split())
CONTENT_SHARE, CONTENT_WORDS, REPEATED_WORDS = 0.8, 4, 3


def annotate_text(thinking: str, question: str) -> list[tuple[str, int, int]]:
    """(label, start, end) of each section: characters of `thinking`, which they cover but for white space."""
    sections: list[tuple[str, int, int]] = []
    for index, (begin, end) in enumerate(_thoughts(thinking)):
        carried, fresh = None, True
        for start, stop in sentences(thinking, begin, end):
            label = _label(thinking[start:stop], question, carried, first=index == 0)
            carried = label if label in CARRIED else None
            if not fresh and sections[-1][0] == label:
                sections[-1] = (label, sections[-1][1], stop)
            else:
                sections.append((label, start, stop))
            fresh = False
    return sections


def sentences(text: str, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """The sentences of text[begin:end], without the white space around them: a line break ends one, and a full stop
    that white space follows, unless it belongs to an abbreviation or to the number of a list's item."""
    start = begin
    for place in (*(match.end() for match in _SENTENCE_END.finditer(text, begin, end)), end):
        if place < end and text[place - 1] == "." and _abbreviated(text, start, place):
            continue
        piece = text[start:place]
        if piece.strip():
            yield start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())
        start = place


def _abbreviated(text: str, start: int, end: int) -> bool:
    return bool(_ABBREVIATION.search(text, max(start, end - _LONGEST), end) or _ITEM.fullmatch(text, start, end))


def repeats(sentence: str, question: str) -> bool:
    """Whether a sentence of at least three words stands in the question, or at least four fifths of its content words
    do, of which it has at least four."""
    words, asked = _words(sentence), _words(question)
    if len(words) >= REPEATED_WORDS and f" {' '.join(words)} " in f" {' '.join(asked)} ":
        return True
    content = [word for word in words if word not in _EMPTY]
    return len(content) >= CONTENT_WORDS and sum(word in asked for word in content) >= CONTENT_SHARE * len(content)


def _label(sentence: str, question: str, carried: str | None, first: bool) -> str:
    said = _LEADING.sub("", sentence.lower().replace("’", "'"))
    if found := _fits(MARKED, said, first):
        return found
    if carried is None and repeats(sentence, question):
        return INITIALIZING
    return _fits(REST, said, first) or carried or DEDUCTION


def _fits(groups: tuple[Cues, ...], said: str, first: bool) -> str | None:
    return next((cues.label for cues in groups if (first or not cues.first) and cues.pattern.search(said)), None)


@lru_cache(maxsize=2)  # the question's are asked for with every sentence
def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower().replace("’", "'"))


def _thoughts(text: str) -> Iterator[tuple[int, int]]:
    """What blank lines divide."""
    start = 0
    for blank in re.finditer(r"\n\s*\n", text):
        yield start, blank.start()
        start = blank.end()
    yield start, len(text)
