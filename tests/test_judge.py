"""The client against a real server on this machine that counts what it is asked."""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import closing, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from thinksteer.answers import AnswerLog
from thinksteer.judge import Endpoint, Judge, add_flags, judge_from
from thinksteer.records import InputError

ROOT = Path(__file__).parent.parent
SECRET = "sk-very-secret"
PROMPTS = [f"prompt {index}" for index in range(12)]


def completion(prompt, **changes):
    """Each answer takes 10 tokens in and 20 out."""
    finish, text = changes.pop("finish", "stop"), changes.pop("text", f"answer to {prompt}")
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text}}
    usage = {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "m-2",
        "choices": [choice],
        "usage": usage,
    } | changes


class Server(ThreadingHTTPServer):
    """`reply(prompt, number)` says what request `number` (from 0) gets: (status, headers, body), or None to hang up."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, reply=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"
        self.reply = reply or (lambda prompt, number: good(prompt))
        self.lock = threading.Lock()
        self.asked, self.bodies, self.headers, self.times = [], [], [], []
        self.running = self.most = 0

    def handle_error(self, request, address):
        pass  # a client that was killed or timed out has hung up


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        server, body = self.server, json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = body["messages"][0]["content"]
        with server.lock:
            number = len(server.asked)
            server.asked.append(prompt)
            server.bodies.append(body)
            server.headers.append(self.headers)
            server.times.append(time.monotonic())
            server.running += 1
            server.most = max(server.most, server.running)
        reply = server.reply(prompt, number)
        with server.lock:
            server.running -= 1
        if reply is None:
            return
        status, headers, content = reply
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json", "Content-Length": len(content)} | headers).items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


def good(prompt, **changes):
    return 200, {}, completion(prompt, **changes)


def bad(status, message="no", **headers):
    return status, headers, {"error": {"message": message, "type": "t", "code": None, "param": None}}


@contextmanager
def serving(reply=None):
    server = Server(reply)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache.jsonl"


def judge(server, cache, concurrency=1, endpoint=None, **settings):
    url = server if isinstance(server, str) else server.url
    return Judge(Endpoint(url, "m", **(endpoint or {})), cache, concurrency=concurrency, **settings)


def expected(prompts):
    return [(index, f"answer to {prompt}") for index, prompt in enumerate(prompts)]


def error_of(asking):
    """What the judge gave before its InputError, and the error's text."""
    got = []
    with pytest.raises(InputError) as error:
        got.extend(iter(asking))
    return got, str(error.value)


def test_each_prompt_is_asked_as_the_endpoint_says_and_answered_with_its_own_text(cache):
    with serving() as server:
        asking = judge(server, cache, endpoint={"max_tokens": 77, "temperature": 0.5})
        assert list(asking.answers(PROMPTS[:3])) == expected(PROMPTS[:3])
    assert server.bodies[1] == {
        "model": "m",
        "messages": [{"role": "user", "content": "prompt 1"}],
        "max_tokens": 77,
        "temperature": 0.5,
    }


def test_answers_come_as_they_arrive_those_in_the_cache_first(cache):
    others = threading.Event()

    def reply(prompt, number):
        if prompt == "prompt 0":
            others.wait(10)
        return good(prompt)

    with serving(reply) as server:
        assert len(list(judge(server, cache).answers(PROMPTS[5:6]))) == 1
        asking = judge(server, cache, concurrency=2).answers(PROMPTS[:6])
        order = []
        for index, _ in asking:
            order.append(index)
            assert len(cache.read_bytes().splitlines()) >= len(order)  # on the disk before it is seen
            if len(order) == 5:
                others.set()
    assert order[0] == 5 and order[-1] == 0 and sorted(order) == list(range(6)) and len(server.asked) == 6


def test_a_second_run_asks_nothing_and_gives_the_same(cache):
    with serving() as server:
        first = sorted(judge(server, cache, concurrency=4).answers(PROMPTS))
        assert sorted(judge(server, cache).answers(PROMPTS)) == first == expected(PROMPTS)
    assert sorted(server.asked) == sorted(PROMPTS)
    assert list(judge("http://127.0.0.1:9/v1", cache).answers(PROMPTS[:2])) == expected(PROMPTS[:2])  # nobody is there


def test_another_model_or_temperature_is_asked_anew_and_a_higher_limit_of_tokens_is_not(cache):
    with serving() as server:
        for change in ({}, {"model": "n"}, {"temperature": 1.0}, {"max_tokens": 9}, {"price_in": 2.0}):
            one = judge(server, cache)
            one.endpoint = replace(one.endpoint, **change)
            assert list(one.answers(PROMPTS[:1])) == expected(PROMPTS[:1])
    assert [(body["model"], body["temperature"]) for body in server.bodies] == [("m", 0), ("n", 0), ("m", 1)]


def test_equal_prompts_are_asked_once_and_all_answered(cache):
    prompts = ["a", "b", "a", "a", "b"]
    with serving() as server:
        assert sorted(judge(server, cache, concurrency=4).answers(prompts)) == expected(prompts)
        assert sorted(judge(server, cache, concurrency=4).answers(prompts)) == expected(prompts)
    assert sorted(server.asked) == ["a", "b"]


def test_so_many_requests_run_together_and_never_more(cache):
    together = threading.Barrier(3, timeout=10)  # a request is answered when two others wait beside it

    def reply(prompt, number):
        together.wait()
        time.sleep(0.03)
        return good(prompt)

    with serving(reply) as server:
        assert sorted(judge(server, cache, concurrency=3).answers(PROMPTS)) == expected(PROMPTS)
    assert server.most == 3


@pytest.mark.parametrize(
    ("fault", "least"),
    [
        (bad(429, **{"Retry-After": "1.1"}), 1.1),  # without the header it would be 0.5 s at most
        (bad(500), 0.3),
        ("late", 1.1),
        (None, 0.3),  # the connection is lost
    ],
)
def test_rate_limits_errors_timeouts_and_lost_connections_are_tried_again(cache, fault, least):
    def reply(prompt, number):
        if number == 0 and fault == "late":
            time.sleep(1.0)  # beyond the timeout
        return fault if number == 0 and fault != "late" else good(prompt)

    with serving(reply) as server:
        asking = judge(server, cache, timeout=0.8 if fault == "late" else 20, retries=1)
        assert list(asking.answers(PROMPTS[:2])) == expected(PROMPTS[:2])
    assert server.asked == ["prompt 0", "prompt 0", "prompt 1"]
    assert least <= server.times[1] - server.times[0]
    with AnswerLog(cache) as log:
        assert len(log.answers) == 2


def test_a_server_that_stays_bad_is_given_up_after_so_many_retries(cache):
    with serving(lambda prompt, number: bad(429, "slow down", **{"Retry-After": "0.01"})) as server:
        _, error = error_of(judge(server, cache, retries=2).answers(PROMPTS))
    assert len(server.asked) == 3
    assert server.url in error and "429" in error and "slow down" in error and "--concurrency" in error
    _, error = error_of(judge("http://127.0.0.1:9/v1", cache, retries=0).answers(PROMPTS))
    assert "127.0.0.1:9/v1" in error and "onnect" in error and "--retries" in error and "12 of 12" in error


@pytest.mark.parametrize(
    ("status", "message", "cure"),
    [
        (400, "the context is 2048 tokens", "--max_tokens"),
        (401, f"Incorrect API key provided: {SECRET}.", "--api_key_env"),
        (404, "The model `m` does not exist", "--endpoint_model"),
        (422, "odd", "server"),
    ],
)
def test_a_lasting_error_stops_at_once_and_says_where_and_what_and_the_cure(cache, status, message, cure):
    with serving(lambda prompt, number: good(prompt) if number < 2 else bad(status, message)) as server:
        got, error = error_of(judge(server, cache).answers(PROMPTS))
        assert got == expected(PROMPTS[:2]) and len(server.asked) == 3
        for part in (
            "prompt 2",
            server.url,
            "(m)",
            str(status),
            message.split(SECRET)[0],
            cure,
            "10 of 12",
            str(cache),
        ):
            assert part in error
        assert SECRET not in error and "\n" not in error
        server.reply = lambda prompt, number: good(prompt)
        assert sorted(judge(server, cache).answers(PROMPTS)) == expected(PROMPTS)
    assert len(server.asked) == 13


def test_what_is_on_its_way_when_a_request_is_refused_is_kept_and_given(cache):
    refused = threading.Event()

    def reply(prompt, number):
        if prompt == "prompt 1":
            refused.set()
            return bad(400)
        refused.wait(10)
        time.sleep(0.5)
        return good(prompt)

    with serving(reply) as server:
        got, error = error_of(judge(server, cache, concurrency=2).answers(PROMPTS))
    assert got == expected(PROMPTS[:1]) and sorted(server.asked) == PROMPTS[:2] and "11 of 12" in error


@pytest.mark.parametrize("content", [b"<html>", {"error": "busy"}, {"choices": []}, b"{broken"])
def test_an_endpoint_that_answers_with_something_else_is_an_input_error(cache, content):
    kind = {"Content-Type": "text/html"} if content == b"<html>" else {}
    with serving(lambda prompt, number: (200, kind, content)) as server:
        _, error = error_of(judge(server, cache, retries=0).answers(PROMPTS))
    assert server.url in error and "--endpoint" in error and len(server.asked) == 1


def test_the_key_is_sent_and_is_nowhere_else(cache, monkeypatch):
    own = "sk-of-another-vendor"
    monkeypatch.setenv("MY_KEY", f"{own}\n")
    with serving() as server:
        asking = judge(server, cache, endpoint={"api_key_env": "MY_KEY"})
        list(asking.answers(PROMPTS[:1]))
        assert server.headers[0]["Authorization"] == f"Bearer {own}"
        assert own not in cache.read_text() and own not in repr((asking.endpoint, vars(asking)))
        monkeypatch.delenv("MY_KEY")
        assert list(asking.answers(PROMPTS[1:2])) == [(0, "answer to prompt 1")]  # a server without keys


PRICED = {"price_in": 1000.0, "price_out": 2000.0}  # 10 in, 20 out: 0.05 USD an answer


def test_no_request_is_started_once_the_cap_is_reached_over_all_runs(cache, capsys):
    with serving() as server:
        for _ in range(2):
            _, error = error_of(judge(server, cache, endpoint=PRICED, max_cost=0.12).answers(PROMPTS))
            assert len(server.asked) == 3
            assert "--max_cost 0.12" in error and "0.1500 USD" in error and str(cache) in error
            assert "0.1500 USD]" in capsys.readouterr().err  # of the progress bar
        assert "9 of 9" in error
        with AnswerLog(cache) as log:
            assert log.paid == pytest.approx(0.15)
            assert {answer.cost for answer in log.answers.values()} == {0.05} and answer_tokens(log) == {
                (10, 20, "m-2")
            }
        _, error = error_of(judge(server, cache, 4, PRICED, max_cost=0.28).answers(PROMPTS))
        assert 6 <= len(server.asked) < 6 + 4  # those on their way when it is reached
        assert sorted(judge(server, cache, endpoint=PRICED, max_cost=0.6).answers(PROMPTS)) == expected(PROMPTS)
    assert sorted(server.asked) == sorted(PROMPTS)


def answer_tokens(log):
    return {(answer.prompt_tokens, answer.completion_tokens, answer.model) for answer in log.answers.values()}


def test_a_cap_that_the_last_answer_reaches_is_no_error(cache):
    with serving() as server:
        asking = judge(server, cache, endpoint=PRICED, max_cost=0.15)
        assert sorted(asking.answers(PROMPTS[:3])) == expected(PROMPTS[:3])


def test_an_endpoint_may_tell_neither_tokens_nor_model_but_a_cap_needs_the_tokens(cache):
    with serving(lambda prompt, number: good(prompt, usage=None, model=None)) as server:
        _, error = error_of(judge(server, cache, endpoint=PRICED, max_cost=1).answers(PROMPTS))
        assert "--max_cost" in error and len(server.asked) == 1
        for _ in range(2):
            assert sorted(judge(server, cache, endpoint=PRICED).answers(PROMPTS)) == expected(PROMPTS)
    assert len(server.asked) == 13


def test_answers_that_are_cut_or_empty_are_not_given_and_named_after_the_others(cache):
    def reply(prompt, number):
        if prompt == "prompt 1":
            return good(prompt, finish="length")
        return good(prompt, text=None if prompt == "prompt 3" and number < 8 else f"answer to {prompt}")

    with serving(reply) as server:
        got, error = error_of(judge(server, cache, endpoint={"max_tokens": 20}).answers(PROMPTS[:4]))
        assert got == [expected(PROMPTS)[0], expected(PROMPTS)[2]]
        assert "2 of 4" in error and "--max_tokens 20" in error and "1 (length), 3 (stop)" in error
        got, error = error_of(judge(server, cache, endpoint={"max_tokens": 20}).answers(PROMPTS[:4]))
        assert len(got) == 2 and server.asked[4:] == ["prompt 3"]  # another 20 tokens would be cut as well
        server.reply = lambda prompt, number: good(prompt)
        asking = judge(server, cache, endpoint={"max_tokens": 21})
        assert sorted(asking.answers(PROMPTS[:4])) == expected(PROMPTS[:4])
    assert sorted(server.asked[5:]) == ["prompt 1", "prompt 3"]


CHILD = """
import sys, time
from pathlib import Path
from thinksteer.judge import Endpoint, Judge
asking = Judge(Endpoint(sys.argv[1], "m"), Path(sys.argv[2]), concurrency=2).answers(sys.argv[3:])
for _ in asking:
    time.sleep(60)  # a slow caller: what arrives meanwhile has to be kept, too
"""
FAILS = CHILD.replace("time.sleep(60)", "sys.exit('a bug')")


def test_after_kill_9_nothing_that_had_arrived_is_asked_again(cache):
    released = threading.Event()

    def reply(prompt, number):
        if prompt in PROMPTS[5:]:
            released.wait(60)
        return good(prompt)

    with serving(reply) as server:
        child = subprocess.Popen([sys.executable, "-c", CHILD, server.url, str(cache), *PROMPTS], cwd=ROOT)
        deadline = time.monotonic() + 60
        while len(server.asked) < 7 or cache.read_bytes().count(b"\n") < 5:
            assert child.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        child.kill()
        assert child.wait() == -9
        with open(cache, "ab") as file:  # what a kill inside a write leaves
            file.write(b'{"key": "0')
        released.set()
        assert sorted(judge(server, cache, concurrency=2).answers(PROMPTS)) == expected(PROMPTS)
    asked = Counter(server.asked)
    assert len(asked) == 12 and sum(asked.values()) == 12 + 2  # two were on their way
    assert {asked[prompt] for prompt in PROMPTS[:5]} == {1}
    assert len(cache.read_text().splitlines()) == 12


@pytest.fixture
def stopping():
    """As in the scripts, SIGTERM does what Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    yield
    signal.signal(signal.SIGTERM, before)


def test_a_stopped_run_ends_at_once_and_leaves_a_cache_to_go_on_from(cache, stopping):
    released = threading.Event()

    def reply(prompt, number):
        if prompt == "prompt 6" and not released.is_set():
            os.kill(os.getpid(), signal.SIGTERM)
        if prompt in PROMPTS[6:]:
            released.wait(20)
        return good(prompt)

    with serving(reply) as server:
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            list(judge(server, cache, concurrency=2).answers(PROMPTS))
        assert time.monotonic() - start < 15 and not [one for one in threading.enumerate() if "portal" in one.name]
        released.set()
        assert len(cache.read_text().splitlines()) >= 5
        assert sorted(judge(server, cache).answers(PROMPTS)) == expected(PROMPTS)
    assert len(set(server.asked)) == 12 and len(server.asked) <= 12 + 2


def test_a_caller_that_stops_listening_stops_the_asking(cache):
    with serving(lambda prompt, number: time.sleep(0.05) or good(prompt)) as server:
        with closing(judge(server, cache).answers(PROMPTS)) as asking:
            next(asking)
        time.sleep(0.1)
        count = len(server.asked)
        time.sleep(0.2)
        assert count == len(server.asked) < 12
        assert sorted(judge(server, cache, concurrency=4).answers(PROMPTS)) == expected(PROMPTS)


def test_a_script_that_fails_while_it_asks_ends(cache):
    with serving(lambda prompt, number: time.sleep(0.05 if number < 3 else 5) or good(prompt)) as server:
        command = [sys.executable, "-c", FAILS, server.url, str(cache), *PROMPTS]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "a bug" in done.stderr and len(server.asked) < 12


def flags(*given):
    parser = argparse.ArgumentParser()
    add_flags(parser)
    return parser.parse_args(given)


GIVEN = ("--endpoint", "http://x/v1", "--endpoint_model", "m")


def test_the_flags_say_all_that_the_judge_needs(cache):
    plain = judge_from(flags(*GIVEN), cache)
    assert plain.endpoint == Endpoint("http://x/v1", "m") and plain.cache == cache
    assert vars(plain) == vars(Judge(plain.endpoint, cache))
    more = ("--api_key_env", "K", "--max_tokens", "5", "--price_in", "2.5", "--price_out", "10", "--max_cost", "3")
    more += ("--concurrency", "2", "--timeout", "9", "--retries", "0")
    full = judge_from(flags(*GIVEN, *more), cache, temperature=0.7)
    assert full.endpoint == Endpoint("http://x/v1", "m", 5, 0.7, "K", 2.5, 10.0)
    assert vars(full) == vars(Judge(full.endpoint, cache, 2, 9, 0, 3.0))


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ((), "--endpoint and --endpoint_model"),
        (GIVEN[:2], "--endpoint_model"),
        (("--endpoint", "localhost:8000/v1", *GIVEN[2:]), "localhost:8000/v1: .*http://"),
        ((*GIVEN, "--max_cost", "1"), "--price_in"),
    ],
)
def test_flags_that_describe_no_endpoint_are_refused(cache, given, fault):
    with pytest.raises(InputError, match=fault):
        judge_from(flags(*given), cache)
