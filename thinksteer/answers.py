"""Answers that were paid for: JSON lines, each flushed to the disk before anyone sees it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_type_hints

from thinksteer.lines import LineLog
from thinksteer.records import InputError


@dataclass(frozen=True)
class Answer:
    """One line of the file; the field names are the JSON keys.

    `key` says to what question it is, `model` is as the endpoint itself calls it, `cost` in USD.
    """

    key: str
    model: str
    text: str
    finish: str
    max_tokens: int
    prompt_tokens: int
    completion_tokens: int
    cost: float

    @property
    def whole(self) -> bool:
        """Whether it can be used: not cut, not withheld, not empty."""
        return self.finish not in ("length", "content_filter") and bool(self.text.strip())


KINDS = get_type_hints(Answer)  # field name -> type


class AnswerLog(LineLog):
    """The file being written: `with AnswerLog(path) as log`, `log.answers`, `log.paid`, `log.append(answer)`."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.answers: dict[str, Answer] = {}  # the last one of each key
        self.paid = 0.0  # USD, for all lines of the file

    def known(self, line: bytes, place: str) -> None:
        self._count(_decode(line, place))

    def append(self, answer: Answer) -> None:
        self.write(asdict(answer))
        self._count(answer)

    def settles(self, key: str, max_tokens: int) -> bool:
        """Whether asking again would bring nothing: the answer is whole, or was cut at no fewer tokens."""
        answer = self.answers.get(key)
        return answer is not None and (answer.whole or (answer.finish == "length" and answer.max_tokens >= max_tokens))

    def _count(self, answer: Answer) -> None:
        self.answers[answer.key] = answer
        self.paid += answer.cost


def _decode(line: bytes, place: str) -> Answer:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place}: {error}: remove the line, what it answered is then asked again") from None
    if type(value) is not dict or {name: type(one) for name, one in value.items()} != KINDS:
        raise InputError(f"{place}: not an answer ({', '.join(KINDS)}): remove the line, it is then asked again")
    return Answer(**value)
