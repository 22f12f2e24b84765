"""Estimates against simulated runs whose end is known, and what is shown of them."""

import io
import random
import re
import sys
from typing import ClassVar, Self

import pytest

from thinksteer.engines import progress as module
from thinksteer.engines.progress import Forecast, Progress

MAX_TOKENS = 4096


def simulate(lengths, places, seconds=lambda together: 0.05 + 0.002 * together):
    """A run of responses of these lengths, so many at a time; what is estimated every second, and the true time left:
    `[(elapsed, left, bound, true)]`."""
    forecast = Forecast(len(lengths), MAX_TOKENS)
    waiting, running, now, seen = list(lengths), [], 0.0, []
    while waiting or running:
        while waiting and len(running) < places:
            running.append([0, waiting.pop(0)])
        now += seconds(len(running))
        for one in running:
            one[0] += 1
        for _, length in (one for one in running if one[0] == one[1]):
            forecast.finish(length)
        running = [one for one in running if one[0] < one[1]]
        if now >= len(seen):
            forecast.look(now, [tokens for tokens, _ in running], len(running))
            seen.append((now, forecast.left, forecast.bound))
    return [(at, left, bound, now - at) for at, left, bound in seen if left is not None]


def lognormal(count, spread=0.45, seed=0):
    draw = random.Random(seed)
    return [min(MAX_TOKENS, 1 + int(draw.lognormvariate(5.7, spread))) for _ in range(count)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("count, places, known_by", [(600, 64, 0.1), (64, 8, 0.2), (64, 64, 0.6), (24, 24, 0.6)])
def test_the_estimate_is_near_the_truth_long_before_the_end(count, places, known_by, seed):
    seen = simulate(lognormal(count, seed=seed), places)
    total = seen[0][0] + seen[0][3]
    known = [(at, left, true) for at, left, bound, true in seen if not bound]
    assert known[0][0] < known_by * total
    for at, left, true in known:
        assert left < 1.5 * true + 0.4 * total, (at, left, true)
        if true > 0.2 * total:
            assert left > 0.4 * true, (at, left, true)


def test_as_long_as_nothing_tells_the_length_the_estimate_is_an_upper_bound():
    for lengths in ([300] * 24, lognormal(24)):
        seen = simulate(lengths, places=24)
        assert seen[0][2] and all(left >= true for _, left, bound, true in seen if bound)
    assert all(bound for _, _, bound, _ in simulate([300] * 24, places=24)[:-1])  # all end at once


def test_responses_of_one_length_are_foretold_to_the_second():
    for at, left, bound, true in simulate([300] * 64, places=8):
        assert bound or left == pytest.approx(true, rel=0.1, abs=1.5), at


@pytest.mark.parametrize("longest", [2000, MAX_TOKENS])
def test_one_long_response_at_the_end_never_seems_to_take_longer_than_the_run_so_far(longest):
    for at, left, bound, _ in simulate([*[300] * 40, longest], places=64):
        assert bound or left < 1.1 * at
    *_, (_, left, bound, true) = simulate([*[300] * 40, MAX_TOKENS], places=64)
    assert not bound and left == pytest.approx(true, abs=2)


def test_the_rate_is_that_of_the_last_half_minute():
    forecast = Forecast(2, 10_000)
    for second in range(200):
        forecast.look(second, [100 * second if second < 100 else 9900 + 10 * (second - 99)], 1)
    assert forecast.rate == pytest.approx(10)
    assert forecast.tokens == 10_900


def test_nothing_is_foretold_before_the_first_token():
    forecast = Forecast(2, 10)
    forecast.look(0.0, [], 0)
    forecast.look(5.0, [], 0)
    assert forecast.left is None and forecast.tokens == 0


class Watched(Progress):
    """Keeps what it was told."""

    runs: ClassVar[list[Self]] = []

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.seen = []
        self.runs.append(self)

    def update(self, response, tokens):
        self.seen.append((self.forecast.finished, response, tokens))
        super().update(response, tokens)


class Stream(io.StringIO):
    def __init__(self, terminal):
        super().__init__()
        self.terminal = terminal

    def isatty(self):
        return self.terminal


@pytest.fixture
def shown(monkeypatch):
    """Shows a run of 40 responses, 10 at a time, a step per tenth of a second; what it wrote in all."""

    def show(terminal, length=200):
        clock, stream = [0.0], Stream(terminal)
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
        with Progress(40, 1000) as progress:
            for first in range(0, 40, 10):
                for tokens in range(1, length):
                    clock[0] += 0.1
                    for response in range(first, first + 10):
                        progress.update(response, tokens)
                for response in range(first, first + 10):
                    progress.finish(response, length)
        return stream.getvalue()

    return show


def test_a_terminal_sees_tokens_move_before_the_first_response_ends(shown):
    text = shown(terminal=True)
    early = re.findall(r" 0/40 responses, (\d+) tokens \(10[01]/s\), at most ([\d:]+) left", text)
    assert len({tokens for tokens, _ in early}) > 30
    assert re.search(r" 10/40 responses, 3\d\d\d tokens \(10[01]/s\), 00:\d\d left", text)
    assert "at most" not in text[text.index(" 10/40 responses") :]
    assert re.search(r" 40/40 responses, 8000 tokens \(10[01]/s\) in 01:\d\d\s*$", text)
    assert "100%" in text


def test_a_log_gets_a_line_now_and_then_and_one_at_the_end(shown):
    lines = shown(terminal=False).splitlines()
    assert len(lines) == 3 and not any("\r" in line for line in lines)
    assert lines[0].startswith("generate: ") and "tokens (" in lines[0] and lines[0].endswith(" left")
    assert re.fullmatch(r"generate: 100%, 40/40 responses, 8000 tokens \(10[01]/s\) in 01:\d\d", lines[-1])
