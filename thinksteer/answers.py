"""Answers that were paid for: JSON lines, each flushed to the disk before anyone sees it."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self, get_type_hints

from thinksteer.files import claim, sync
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


class AnswerLog:
    """The file being written: `with AnswerLog(path) as log`, `log.answers`, `log.paid`, `log.append(answer)`.

    Entering creates the file or reads what earlier runs left: a last line without its line break (torn by a kill) is
    cut off, any other fault is an InputError naming file and line. One process at a time may hold the file; InputError
    for the second.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers: dict[str, Answer] = {}  # the last one of each key
        self.paid = 0.0  # USD, for all lines of the file

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self.path, "a+b")
        try:
            claim(self._file, self.path)
            self._file.seek(0)
            whole = 0  # bytes
            for number, line in enumerate(self._file, start=1):
                if not line.endswith(b"\n"):
                    break
                self._count(_decode(line, f"{self.path}:{number}"))
                whole += len(line)
            self._file.truncate(whole)
            sync(self.path.parent)
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, answer: Answer) -> None:
        line = json.dumps(asdict(answer), ensure_ascii=False) + "\n"
        self._file.write(line.encode("utf-8", "backslashreplace"))  # half of a surrogate pair has no UTF-8
        self._file.flush()
        os.fsync(self._file.fileno())
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
    except ValueError as error:
        raise InputError(f"{place}: {error}: remove the line, what it answered is then asked again") from None
    if type(value) is not dict or {name: type(one) for name, one in value.items()} != KINDS:
        raise InputError(f"{place}: not an answer ({', '.join(KINDS)}): remove the line, it is then asked again")
    return Answer(**value)
