r"""Read the answer out of a response and say whether it is right. The only place where a computation is cut off.

Most pairs are settled by exact rules in microseconds (`equality.decide`); the rest goes to math-verify in worker
processes that are killed at the time limit, since what a model writes can be anything (`9^{9^{9^9}}`).
"""

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import wait
from pathlib import Path
from types import TracebackType
from typing import Literal

from thinksteer import equality, letters, livecodebench, programs, verifier
from thinksteer.records import Graded, InputError
from thinksteer.sandbox import Sandbox

Kind = Literal["math", "choice", "letter", "code", "open"]
Pair = tuple[str, str]

THINKING_END = "</think>"
START_S = 120.0  # a worker imports math-verify and sympy, perhaps from a slow network disk

_BRACES = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
_BARE_BOX = re.compile(r"\\boxed\s*([^\s{}$\\]+)")  # \boxed 5, as some solutions of MATH have it
_LAST_NUMBER = re.compile(r"(?:(?<![\w)}\]])-)?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:/\d+)?(?:\\?%)?")
_CUED_CHOICE = re.compile(r"(?:answer|option|choice)(?:\s+is)?\W{0,6}\(?([A-J]|\d\d?)\b(?![.,]\d)", re.IGNORECASE)
_CHOICE = re.compile(
    r"(?:option|choice|answer)?\s*:?\s*\(?([A-J]|\d\d?)(?:\)?[.:]?|(?:\)|[.:]|\)[.:])\s+.*)", re.DOTALL | re.IGNORECASE
)
_STYLING = re.compile(r"\\(?:text\w*|mbox|mathrm|mathbf)\s*\{([^{}]*)\}|[{}$*]|\\[ ,;!]")


def extract(text: str, kind: Kind = "math") -> str | None:
    r"""The answer that a response states, None if there is none.

    The last non-empty balanced `\boxed{...}` after the thinking, else in the whole text; without any, the option named
    after a word such as "answer" (`kind` "choice"), else the last number, again after the thinking first. A letter
    (`kind` "letter") is the first one after "answer is", a program (`kind` "code") the last one between ```, likewise.
    An open question (`kind` "open") has none to read.
    """
    parts = [text.partition(THINKING_END)[2], text]
    for read in READERS[kind]:
        for part in parts:
            if (found := read(part)) is not None:
                return found
    return None


def last_boxed(text: str) -> str | None:
    r"""Content of the last `\boxed{...}` that is closed and not empty (of nested ones, the inner). One linear pass."""
    opened: list[int | None] = []  # for each open brace, where its box's content starts; None: an ordinary brace
    start, content = -1, None
    for match in _BRACES.finditer(text):
        if match[0] == "}" and opened:
            begun = opened.pop()
            if begun is not None and begun > start and text[begun : match.start()].strip():
                start, content = begun, text[begun : match.start()].strip()
        elif match[0] == "{":
            opened.append(None)
        elif match[0].endswith("{") and match[0] != r"\{":
            opened.append(match.end())
    if content is None and (bare := _BARE_BOX.findall(text)):
        content = bare[-1].rstrip(".,;")
    return content or None


def _last_number(text: str) -> str | None:
    numbers = _LAST_NUMBER.findall(text)
    return numbers[-1] if numbers else None


def _last_option(text: str) -> str | None:
    options = _CUED_CHOICE.findall(text)
    return options[-1] if options else _last_number(text)


READERS: dict[Kind, tuple[Callable[[str], str | None], ...]] = {
    "math": (last_boxed, _last_number),
    "choice": (last_boxed, _last_option),
    "letter": (letters.published_letter,),
    "code": (programs.fenced,),
    "open": (),
}


def shown(answer: str, kind: Kind) -> str:
    """The reference answer as records state it."""
    return livecodebench.summary(answer) if kind == "code" else answer


def option(answer: str) -> int | None:
    r"""Number of a multiple-choice option, from 1: `3`, `C`, `(c)`, `\text{C}`, `C. 12`, `3) 12` are all 3."""
    match = _CHOICE.fullmatch(_STYLING.sub(lambda m: m[1] or "", answer).strip())
    if match is None:
        return None
    return int(match[1]) if match[1].isdigit() else ord(match[1].upper()) - ord("A") + 1


def decide(prediction: str, reference: str, kind: Kind) -> bool | None:
    """Whether the answers, numbers or options, are equal; None where math-verify has to tell."""
    if kind == "letter":
        return prediction == reference
    if kind == "choice":
        wanted = option(reference)
        return wanted is not None and len(prediction) <= equality.MAX_CHARS and option(prediction) == wanted
    return equality.decide(prediction, reference)


def equal(prediction: str, reference: str, kind: Kind) -> bool:
    """Whether the answers are equal, with no limit of time: for answers that are trusted. `Grader` is for models'."""
    verdict = decide(prediction, reference, kind)
    return verifier.verify(prediction, reference) if verdict is None else verdict


class _Worker:
    """A process that answers pairs with math-verify's verdicts (`verifier.serve`).

    A program of its own rather than a fork (which would copy a CUDA context) or a spawn (which would import the running
    script, torch and all, again).
    """

    def __init__(self, limit_s: float) -> None:
        self.connection, theirs = Pipe()
        command = [sys.executable, "-m", "thinksteer.verifier", str(theirs.fileno()), str(limit_s)]
        root = Path(__file__).resolve().parents[1]
        self.process = subprocess.Popen(
            command, cwd=root, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True
        )
        theirs.close()
        self.pair: Pair | None = None

    def await_ready(self) -> None:
        """Wait until the process has imported what it needs, so that no pair pays for it."""
        try:
            ready = self.connection.poll(START_S) and self.connection.recv() == "ready"
        except (EOFError, ConnectionResetError):
            ready = False
        if not ready:
            self.stop()
            raise RuntimeError("a grading process did not start; the reason is printed above")

    def give(self, pair: Pair) -> None:
        self.pair = pair
        self.connection.send(pair)

    def verdict(self) -> bool | None:
        """The verdict on the pair given; None if the process died of it."""
        try:
            return self.connection.recv()
        except (EOFError, ConnectionResetError):
            if self.process.wait() == -signal.SIGKILL:
                # Not ours: the time limit is SIGALRM, memory is limited. Calling the answer wrong would be a guess.
                raise RuntimeError("a grading process was killed from outside (out of memory?)") from None
            return None

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.connection.close()


class Grader:
    """Grades responses; a context manager, as it may hold up to `workers` processes (the first starts when needed).

    A comparison that takes longer than `limit_s` seconds is wrong; its process is replaced. Programs have limits of
    their own (see `programs`), and run one after the other.
    """

    def __init__(self, workers: int = 1, limit_s: float = 5.0) -> None:
        if workers < 1 or not limit_s > 0:
            raise InputError(f"grading needs at least one worker and a positive limit, not {workers} and {limit_s} s")
        self._size, self._limit_s = workers, limit_s
        self._workers: list[_Worker] = []
        self._verdicts: dict[Pair, bool] = {}  # samples of a question repeat their answers
        self._sandbox = Sandbox()

    def __enter__(self) -> "Grader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        for worker in self._workers:
            worker.stop()
        self._workers.clear()
        self._sandbox.stop()

    def prepare(self, kinds: Iterable[Kind]) -> None:
        """InputError if answers of these kinds cannot be graded on this machine."""
        if "code" in kinds:
            self._sandbox.start()

    def grade(self, text: str, answer: str, kind: Kind) -> Graded:
        """The answer read out of the response `text`, and whether it equals the reference `answer`."""
        return self.grade_all([(text, answer, kind)])[0]

    def grade_all(self, items: Iterable[tuple[str, str, Kind]]) -> list[Graded]:
        """`grade` of every (text, reference answer, kind), in order, the workers side by side."""
        read = [(extract(text, kind), answer, kind) for text, answer, kind in items]
        decided = [False if p is None else self._decide(p, answer, kind) for p, answer, kind in read]
        hard = [(p, answer) for (p, answer, _), verdict in zip(read, decided, strict=True) if verdict is None]
        try:
            self._verify(list(dict.fromkeys(pair for pair in hard if pair not in self._verdicts)))
        except BaseException:
            self._stop()  # their verdicts would reach the next call
            raise
        return [
            Graded(p, self._verdicts[p, answer] if verdict is None else verdict)
            for (p, answer, _), verdict in zip(read, decided, strict=True)
        ]

    def _decide(self, prediction: str, answer: str, kind: Kind) -> bool | None:
        if kind == "code":
            return programs.passes(self._sandbox, prediction, livecodebench.unpack(answer))
        return decide(prediction, answer, kind)

    def _verify(self, pairs: Sequence[Pair]) -> None:
        """Have the workers judge the pairs. They keep the time themselves, so here is only waiting for any of them."""
        waiting = list(reversed(pairs))
        missing = min(self._size, len(waiting)) - len(self._workers)
        self._workers += self._started(missing)
        for worker in self._workers[: len(waiting)]:
            worker.give(waiting.pop())
        while busy := {worker.connection: worker for worker in self._workers if worker.pair is not None}:
            for connection in wait(list(busy)):
                worker = busy[connection]
                pair, worker.pair = worker.pair, None
                verdict = worker.verdict()
                self._verdicts[pair] = bool(verdict)
                if verdict is None:
                    worker.stop()
                    self._workers.remove(worker)
                    if waiting:
                        self._workers += self._started(1)
                        worker = self._workers[-1]
                if waiting:
                    worker.give(waiting.pop())

    def _started(self, count: int) -> list[_Worker]:
        workers = [_Worker(self._limit_s) for _ in range(count)]
        for worker in workers:
            worker.await_ready()
        return workers
