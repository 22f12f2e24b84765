"""How far a generating run is: tokens, tokens per second, responses, and an estimate of the time left."""

import sys
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Collection
from itertools import accumulate
from shutil import get_terminal_size
from types import TracebackType
from typing import Self

from tqdm import tqdm

LOOK_S = 0.25  # seconds between two looks, each of which refreshes the bar of a terminal
LOG_S = 30.0  # seconds between two lines where there is no terminal
RATE_S = 30.0  # seconds over which tokens per second are counted
LENGTHS = 1024  # of the latest finished responses, from which the length of the others is estimated
KNOWN_SHARE = 1 / 8  # of the responses begun must have finished before their lengths say anything about the others


class Forecast:
    """Estimates what is left of a run of `responses`, none of which gets longer than `max_tokens`. Reads no clock.

    A running response is expected to get as long as the finished ones that are longer than it is now, one that has not
    begun as long as the others on average. A response that is longer than all of them is expected to get twice as long
    as now. While too few have finished to tell, every response is taken to reach `max_tokens`, and the estimate is an
    upper `bound`.
    """

    def __init__(self, responses: int, max_tokens: int) -> None:
        self.responses, self.max_tokens = responses, max_tokens
        self.finished = self.tokens = 0
        self.rate: float | None = None  # tokens per second
        self.left: float | None = None  # seconds, None: not known yet
        self.expected = responses * max_tokens  # tokens of the whole run
        self.bound = True
        self._finished_tokens = 0
        self._lengths: deque[int] = deque(maxlen=LENGTHS)
        self._seen: deque[tuple[float, int]] = deque()  # (seconds, tokens)

    def finish(self, length: int) -> None:
        self.finished += 1
        self._finished_tokens += length
        self._lengths.append(length)

    def look(self, now: float, running: Collection[int], together: int) -> None:
        """`running`: tokens so far of each response that has begun and not finished, of which `together` are being
        generated now; `now`: seconds of any clock."""
        self.tokens = self._finished_tokens + sum(running)
        self._count(now)
        whole, unbegun = self._expected_lengths(running)
        missing = [length - tokens for length, tokens in zip(whole, running, strict=True)]
        waiting = self.responses - self.finished - len(running)
        left = sum(missing) + waiting * unbegun
        self.expected = round(self.tokens + left)
        # At the end fewer run together, so the longest one decides.
        longest = max([*missing, *([unbegun] if waiting else [])], default=0)
        self.left = max(left, longest * together) / self.rate if self.rate else None

    def _count(self, now: float) -> None:
        self._seen.append((now, self.tokens))
        while len(self._seen) > 2 and self._seen[1][0] <= now - RATE_S:
            self._seen.popleft()
        begin, tokens = self._seen[0]
        self.rate = (self.tokens - tokens) / (now - begin) if now > begin else None

    def _expected_lengths(self, running: Collection[int]) -> tuple[list[float], float]:
        """Of each running response, and of one that has not begun."""
        self.bound = self.finished < max(1, KNOWN_SHARE * (self.finished + len(running)))
        if self.bound:
            return [self.max_tokens] * len(running), self.max_tokens
        lengths = sorted(self._lengths)
        sums = list(accumulate(reversed(lengths), initial=0))  # of the longest so many

        def expected(tokens: int) -> float:
            longer = len(lengths) - bisect_right(lengths, tokens)
            return sums[longer] / longer if longer else min(2 * tokens, self.max_tokens)

        whole = [expected(tokens) for tokens in running]
        return whole, (sum(whole) + sums[-1]) / (len(whole) + len(lengths))


class Progress:
    """Shows how far a run is, on stderr: a bar in a terminal, else a line now and then."""

    def __init__(self, responses: int, max_tokens: int) -> None:
        self.forecast = Forecast(responses, max_tokens)
        self._running: dict[int, int] = {}  # tokens so far of the responses that have begun and not finished
        self._moved: set[int] = set()  # those of them that got a token since the last look
        self._begin = self._looked = self._logged = time.monotonic()
        layout = "generate: {percentage:3.0f}%|{bar}| {desc}"
        width, height = get_terminal_size()  # tqdm itself shows nothing in a terminal that states no size
        hidden = not sys.stderr.isatty()
        self._bar = tqdm(bar_format=layout, ncols=width, nrows=height, disable=hidden, file=sys.stderr)
        self._bar.set_description_str(self._text())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._look(time.monotonic())
        self._show()
        self._bar.close()

    def update(self, response: int, tokens: int) -> None:
        """A response, known by a number of its own, has so many tokens now."""
        if self._running.get(response) != tokens:
            self._running[response] = tokens
            self._moved.add(response)
        self.tick()

    def finish(self, response: int, tokens: int) -> None:
        self._running.pop(response, None)
        self._moved.discard(response)
        self.forecast.finish(tokens)
        self.tick()

    def tick(self) -> None:
        """Shows what is new, if the last time is long enough ago."""
        now = time.monotonic()
        if now - self._looked < LOOK_S:
            return
        self._look(now)
        if not self._bar.disable:
            self._show()
        elif now - self._logged >= LOG_S:
            self._logged = now
            self._show()

    def _look(self, now: float) -> None:
        self._looked = now
        self.forecast.look(now - self._begin, self._running.values(), len(self._moved))
        self._moved.clear()

    def _show(self) -> None:
        forecast = self.forecast
        if self._bar.disable:
            share = forecast.tokens / max(1, forecast.expected)
            print(f"generate: {share:.0%}, {self._text()}", file=sys.stderr, flush=True)
        else:
            self._bar.n, self._bar.total = forecast.tokens, forecast.expected
            self._bar.set_description_str(self._text())

    def _text(self) -> str:
        found = self.forecast
        text = f"{found.finished}/{found.responses} responses, {found.tokens} tokens"
        if found.rate is not None:
            text += f" ({found.rate:.{0 if found.rate >= 10 else 1}f}/s)"
        if found.finished == found.responses:
            text += f" in {tqdm.format_interval(self._looked - self._begin)}"
        elif found.left is not None:
            text += f", {'at most ' * found.bound}{tqdm.format_interval(found.left)} left"
        return text
