"""The option that a response names by letter, A to J: as MMLU-Pro reads it, and more strictly."""

import re

_PUBLISHED = re.compile(r"answer is \(?([ABCDEFGHIJ])\)?")

# A letter in parentheses, or a bare one that is a word by itself and no article: what follows ends a clause or joins.
_OPTION = r"(?:\([A-J]\)|[A-J](?=\s*(?:[.,;:!?&/]|and\b|or\b|\n|$)))"
_STATED = re.compile(rf"answer is ({_OPTION}(?:\s*(?:,|&|/|\band\b|\bor\b)+\s*{_OPTION})*)")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
_NEXT_QUESTION = re.compile(r"^[^\S\n]*(?:Q|Question):", re.MULTILINE)  # within a line: empty ones are many


def published_letter(text: str) -> str | None:
    """The first letter after "answer is", the beginning of a word too ("answer is III" is I), None if there is none.

    What MMLU-Pro's run_gpt4o.py and LiReFs' get_prediction read. LiReFs guess one of ten letters where there is none;
    here that is no answer, and wrong.
    """
    match = _PUBLISHED.search(text)
    return match and match[1]


def strict_letter(text: str) -> str | None:
    """The last option that a sentence states to be the answer, None if there is none. Narrower than the published:

    - Thinking states nothing: only what follows it is read, and of unfinished thinking what precedes it.
    - Nor does what follows a line "Q:" or "Question:", where base models go on with questions of their own.
    - Bare letters count where they are words: not "answer is III", "answer is A's", "answer is A body at rest".
    - A sentence that states two ("answer is (A) or (B)") states none.
    """
    _, closed, after = text.partition("</think>")
    said = _NEXT_QUESTION.split(after if closed else text.partition("<think>")[0])[0]
    for sentence in reversed(_SENTENCE_END.split(said)):
        letters = {letter for stated in _STATED.findall(sentence) for letter in re.findall("[A-J]", stated)}
        if len(letters) == 1:
            return letters.pop()
    return None
