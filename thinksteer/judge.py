"""The client of any OpenAI-compatible endpoint, a vendor's or a local `vllm serve`: no answer is paid for twice.

A run that was killed, stopped by its cap, or refused by the endpoint goes on with the same command, and asks only for
the answers that its cache does not hold.
"""

import argparse
import asyncio
import atexit
import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from anyio.from_thread import start_blocking_portal
from tqdm import tqdm

from thinksteer.answers import Answer, AnswerLog
from thinksteer.flags import natural_float, natural_int, positive_int
from thinksteer.records import InputError

if TYPE_CHECKING:
    from openai import AsyncOpenAI

KEY_CURE = "put a valid key into the environment variable that --api_key_env names"
CURES = {  # by HTTP status
    400: "shorten the prompt or lower --max_tokens",
    401: KEY_CURE,
    403: KEY_CURE,
    404: "correct --endpoint (most end in /v1) or --endpoint_model",
    429: "lower --concurrency or raise --retries",
}


@dataclass(frozen=True)
class Endpoint:
    """A model behind an OpenAI-compatible URL, and how it is asked; prices in USD per million tokens.

    The key is only ever in the environment variable `api_key_env`, which servers without keys need not have.
    """

    url: str
    model: str
    max_tokens: int = 4096
    temperature: float = 0.0
    api_key_env: str = "OPENAI_API_KEY"
    price_in: float = 0.0
    price_out: float = 0.0

    @property
    def api_key(self) -> str:
        return os.environ.get(self.api_key_env, "").strip()

    def messages(self, prompt: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": prompt}]

    def key(self, prompt: str) -> str:
        """What an answer is found by: the digest of all that it depends on, wherever the model runs.

        `max_tokens` is not in it: it changes no answer, only where one is cut. So raising it asks again for those only.
        """
        asked = json.dumps([self.model, self.messages(prompt), float(self.temperature)])
        return hashlib.sha256(asked.encode()).hexdigest()


class Judge:
    """Asks an endpoint, `concurrency` prompts at a time, and keeps the answers in the file `cache`.

    Rate limits (429, with the server's Retry-After), timeouts (`timeout` seconds), lost connections and 5xx are tried
    again `retries` times, after growing pauses. Once all that the cache has ever cost reaches `max_cost` USD, no
    request is started; the requests then on their way (below `concurrency`) are what it can be passed by.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        cache: Path,
        concurrency: int = 8,
        timeout: int = 600,
        retries: int = 6,
        max_cost: float = math.inf,
    ) -> None:
        self.endpoint, self.cache = endpoint, cache
        self.concurrency, self.timeout, self.retries, self.max_cost = concurrency, timeout, retries, max_cost

    def answers(self, prompts: Sequence[str]) -> Iterator[tuple[int, str]]:
        """(index of the prompt, text of its answer): those in the cache first, the others as they arrive.

        Equal prompts are asked once. InputError if the endpoint refuses or stays away, if `max_cost` is reached, and,
        after all others were given, if answers were cut at `max_tokens` or empty; what has arrived stays in the cache.
        """
        endpoint = self.endpoint
        places: dict[str, list[int]] = {}
        for index, prompt in enumerate(prompts):
            places.setdefault(endpoint.key(prompt), []).append(index)
        with AnswerLog(self.cache) as log:
            known = {key: log.answers[key] for key in places if log.settles(key, endpoint.max_tokens)}
            missing = {where[0]: key for key, where in places.items() if key not in known}
            with (
                closing(self._arriving(prompts, missing, log)) as arriving,
                tqdm(total=len(prompts), unit="answer", desc=f"ask {endpoint.model}") as progress,
            ):
                for answer in chain(known.values(), arriving):
                    progress.set_postfix_str(f"{log.paid:.4f} USD", refresh=False)
                    for index in places[answer.key] if answer.whole else ():
                        progress.update()
                        yield index, answer.text
            useless = [
                f"{where[0]} ({log.answers[key].finish})" for key, where in places.items() if not log.answers[key].whole
            ]
        if useless:
            raise InputError(
                f"{endpoint.model}: {len(useless)} of {len(places)} answers are cut at --max_tokens "
                f"{endpoint.max_tokens}, withheld or empty, such as to prompt {', '.join(useless[:5])}: raise "
                f"--max_tokens; the other answers are kept in {self.cache}"
            )

    def _arriving(self, prompts: Sequence[str], missing: Mapping[int, str], log: AnswerLog) -> Iterator[Answer]:
        """The answers to these prompts (index -> key), asked in a thread of its own: none waits for the caller."""
        if not missing:
            return
        arrived: SimpleQueue[Answer | None] = SimpleQueue()
        left = len(missing)
        with ExitStack() as stack:
            # A caller that fails may hold this until Python ends, when it is too late to wait for a thread.
            atexit.register(stack.close)
            stack.callback(atexit.unregister, stack.close)
            portal = stack.enter_context(start_blocking_portal())
            asking = portal.start_task_soon(self._ask_all, prompts, missing, log, arrived.put)
            stack.callback(asking.cancel)  # what is on its way, when the caller has stopped listening
            asking.add_done_callback(lambda _: arrived.put(None))
            for answer in iter(arrived.get, None):
                left -= 1
                yield answer
            refusal = asking.result()
        if left:
            reason = refusal or f"--max_cost {self.max_cost:g} is reached: raise it"
            raise InputError(
                f"{reason} ({log.paid:.4f} USD are paid; {left} of {len(missing)} answers are missing; "
                f"the same command goes on, as {log.path} keeps the others)"
            )

    async def _ask_all(
        self, prompts: Sequence[str], missing: Mapping[int, str], log: AnswerLog, put: Callable[[Answer], None]
    ) -> InputError | None:
        """Ask until all is answered, the cap is reached, or a request has failed, which is returned."""
        from openai import AsyncOpenAI

        pending = iter(missing.items())
        refusals: list[InputError] = []

        async def work() -> None:
            for index, key in pending:
                if refusals or log.paid >= self.max_cost:
                    return
                try:
                    answer = await self._ask(client, key, prompts[index])
                except InputError as error:
                    refusals.append(InputError(f"prompt {index}: {error}"))
                    return
                log.append(answer)
                put(answer)

        endpoint = self.endpoint
        key = endpoint.api_key or "none"  # the client insists on one
        settings = {"base_url": endpoint.url, "timeout": self.timeout, "max_retries": self.retries}
        async with AsyncOpenAI(api_key=key, **settings) as client:
            # After a refusal, too, what is on its way is waited for: it will have been paid.
            await asyncio.gather(*(work() for _ in range(min(self.concurrency, len(missing)))))
        return refusals[0] if refusals else None

    async def _ask(self, client: "AsyncOpenAI", key: str, prompt: str) -> Answer:
        """InputError, without the key of the endpoint, which some endpoints repeat, if there is no answer."""
        from openai import APIError

        endpoint = self.endpoint
        asked = {"temperature": endpoint.temperature, "max_tokens": endpoint.max_tokens}
        try:
            completion = await client.chat.completions.create(
                model=endpoint.model, messages=endpoint.messages(prompt), **asked
            )
        except APIError as error:
            cure = CURES.get(getattr(error, "status_code", 0), "see to the server, raise --timeout or --retries")
            said = " ".join(f"{error} {error.__cause__ or ''}".split())
            said = said.replace(endpoint.api_key, "***") if endpoint.api_key else said
            raise InputError(f"{endpoint.url} ({endpoint.model}): {said:.500}: {cure}") from None
        except json.JSONDecodeError:
            completion = None
        if not getattr(completion, "choices", None):
            raise InputError(f"{endpoint.url} answers with no chat completion: {CURES[404]}")
        choice, usage = completion.choices[0], completion.usage
        if usage is None and self.max_cost < math.inf:
            raise InputError(f"{endpoint.url} does not tell the tokens it used: leave out --max_cost")
        read, written = (usage.prompt_tokens, usage.completion_tokens) if usage else (0, 0)
        cost = (read * endpoint.price_in + written * endpoint.price_out) / 1e6
        text, finish = choice.message.content or "", str(choice.finish_reason)
        return Answer(key, str(completion.model), text, finish, endpoint.max_tokens, read, written, cost)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `judge_from`."""
    group = parser.add_argument_group("OpenAI-compatible endpoint")
    group.add_argument(
        "--endpoint", metavar="URL", help="such as https://api.openai.com/v1 or http://localhost:8000/v1"
    )
    group.add_argument("--endpoint_model", metavar="NAME", help="as the endpoint calls it")
    group.add_argument(
        "--api_key_env", metavar="NAME", default="OPENAI_API_KEY", help="environment variable (default: %(default)s)"
    )
    group.add_argument("--max_tokens", type=positive_int, default=4096, help="of an answer (default: %(default)s)")
    group.add_argument("--concurrency", type=positive_int, default=8, help="requests at a time (default: %(default)s)")
    group.add_argument("--timeout", type=positive_int, default=600, help="seconds a request (default: %(default)s)")
    group.add_argument("--retries", type=natural_int, default=6, help="of a request (default: %(default)s)")
    group.add_argument("--price_in", type=natural_float, default=0.0, help="USD per million tokens read (default: 0)")
    group.add_argument(
        "--price_out", type=natural_float, default=0.0, help="USD per million tokens written (default: 0)"
    )
    group.add_argument("--max_cost", type=natural_float, help="in USD, with earlier runs; then stop (default: no cap)")


def _is_url(text: str) -> bool:
    try:
        parts, blank = urlsplit(text), re.search(r"\s", text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and not blank
    except ValueError:  # of a port that can be none
        return False


def judge_from(args: argparse.Namespace, cache: Path, temperature: float = 0.0) -> Judge:
    """The judge that the flags of `add_flags` describe. InputError if they describe none."""
    if not args.endpoint or not args.endpoint_model:
        raise InputError("--endpoint and --endpoint_model are missing: they say where to ask, and which model")
    if not _is_url(args.endpoint):
        raise InputError(f"--endpoint {args.endpoint}: give a URL such as http://localhost:8000/v1 or https://...")
    if not args.api_key_env.isidentifier():  # not repeated: it may be the key
        raise InputError("--api_key_env names an environment variable; put the key into that, not on the command line")
    if args.max_cost is not None and not args.price_in and not args.price_out:
        raise InputError("--max_cost needs --price_in and --price_out, USD per million tokens")
    prices = {"price_in": args.price_in, "price_out": args.price_out}
    endpoint = Endpoint(args.endpoint, args.endpoint_model, args.max_tokens, temperature, args.api_key_env, **prices)
    max_cost = math.inf if args.max_cost is None else args.max_cost
    return Judge(endpoint, cache, args.concurrency, args.timeout, args.retries, max_cost)
