"""Stock vLLM: continuous batching, tensor, pipeline and data parallelism, steering by biases or by hooks.

The model runs in vLLM's own processes; the part of steering that runs there is `vllm_worker`.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import os
import tempfile
from collections.abc import Collection, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, TypeVar

from safetensors.torch import save
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

# vLLM reads these when it is imported. Children that fork would hold this process's file locks.
os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

from vllm import ModelRegistry, SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.inputs import TokensPrompt
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind
from vllm.usage.usage_lib import UsageContext
from vllm.v1.engine.async_llm import AsyncLLM

from thinksteer import model_files, models
from thinksteer.confidence import Chain, Tree
from thinksteer.engines import Loading
from thinksteer.engines.outcome import Outcome, eos_ids
from thinksteer.engines.progress import LOOK_S, Progress
from thinksteer.engines.sampling import check, native
from thinksteer.engines.vllm_probe import CacheUse, check_lengths, weighed
from thinksteer.engines.vllm_processor import told
from thinksteer.engines.vllm_start import heir, runnable, settings, stated_eos
from thinksteer.engines.vllm_trial import Distribution, prove
from thinksteer.models import ModelRef
from thinksteer.records import EVERYWHERE, Edit, InputError, Request, Response, Sampling, Site
from thinksteer.steering import Changes, changes
from thinksteer.thinking import Marks, Template

TRIAL_LOGPROBS = 20
LEAST_TEMPERATURE, LARGEST_TEMPERATURE = 0.01, 2.0  # vLLM takes a smaller one for the least, and no larger one
WAITING_PROBES = 1024  # requests: enough for any batch

Result = TypeVar("Result")


class VLLMEngine:
    """Generates with vLLM the model in a folder."""

    def __init__(self, folder: Path, tokenizer: PreTrainedTokenizerBase, template: Template, loading: Loading) -> None:
        self.tokenizer, self.template, self.steering = tokenizer, template, loading.steering
        self.marks = Marks.of(template, tokenizer)
        self.native_sampling = loading.native_sampling
        self.device = "cpu" if current_platform.is_cpu() else current_platform.get_device_name()
        if loading.device not in ("auto", current_platform.device_type):
            raise InputError(
                f"--device {loading.device}: the vLLM that is installed runs on {current_platform.device_type}; use "
                "--engine hf"
            )
        split = loading.pipeline_parallel_size > 1 or loading.data_parallel_size > 1
        if loading.steering == "any" and split:
            raise InputError(
                "steering that depends on the token or its state runs with --tensor_parallel_size alone; divide the "
                "questions with --shard instead of --data_parallel_size and --pipeline_parallel_size"
            )
        self._loop, self._heir = asyncio.new_event_loop(), heir()
        try:
            with tempfile.TemporaryDirectory(prefix="thinksteer-") as scratch:
                place = runnable(folder, Path(scratch), loading.trust_remote_code)
                self._llm = self._wait(_start(settings(place, loading)))
        except (ValueError, RuntimeError) as error:
            raise InputError(f"vLLM cannot run {folder}: {error}; use --engine hf") from error
        config = self._llm.model_config
        self.dtype, self.threads = str(config.dtype).removeprefix("torch."), None
        self.cache = f"{self._llm.vllm_config.cache_config.kv_cache_size_tokens} tokens"
        self.longest = config.max_model_len
        self.shape = config.get_total_num_hidden_layers(), config.get_hidden_size()
        self.eos_ids = eos_ids(stated_eos(folder, config.hf_text_config.eos_token_id), tokenizer)
        self._changes: Changes = {}
        self._salt: str | None = None  # a cached prefix serves only requests that are steered alike
        self._tried: set[tuple[Site, bool, bool]] = set()
        self._numbers = itertools.count()
        self._uncounted: list[int] = []
        self._counts: dict[int, int] = {}
        self._counting = asyncio.Lock()

    @classmethod
    def load(cls, ref: ModelRef, loading: Loading) -> Self:
        if loading.mean_recurrence is not None:
            raise InputError("--mean_recurrence: vLLM runs no recurrent-depth models; use --engine hf")
        tokenizer = models.load_tokenizer(ref, loading.trust_remote_code)
        return cls(model_files.folder(ref), tokenizer, ref.template, loading)

    def close(self) -> None:
        self._llm.shutdown()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._wait(_gather(tasks))
        self._loop.close()
        self._heir.kill()
        del self._llm  # else it is shut down once more, with a traceback, when Python ends

    def forget(self) -> bool:
        """Empties the prefix cache; whether that was possible."""
        return self._wait(self._llm.reset_prefix_cache())

    def generate(
        self, requests: Iterable[Request], sampling: Sampling, edits: Sequence[Edit] = ()
    ) -> Iterator[Response]:
        """Responses in the order in which they finish. Edits act on all positions they hold for, prompts included.

        InputError for parameters out of range, a request that is too long for the engine, edits that the model has no
        place for, or steering that changes nothing (see `_try`).
        """
        check(sampling)
        sampling = replace(sampling, eos_ids=self.eos_ids)
        if sampling.temperature and not LEAST_TEMPERATURE <= sampling.temperature <= LARGEST_TEMPERATURE:
            raise InputError(
                f"temperature is {sampling.temperature}; vLLM draws at {LEAST_TEMPERATURE} to {LARGEST_TEMPERATURE}: "
                "use --engine hf"
            )
        if self.native_sampling and not native(sampling):
            raise ValueError("this engine was loaded for sampling that vLLM does itself")
        asked = list(requests)
        outcome = Outcome(self.tokenizer, self.template, self.marks, self.eos_ids | sampling.stop_ids, sampling)
        for request in asked:
            length = len(request.prompt_ids) + sampling.max_tokens + outcome.forced_room
            if not request.prompt_ids:
                raise InputError(f"request {request.id!r} has an empty prompt")
            if length > self.longest:
                raise InputError(
                    f"the prompt of {request.id!r} and its response may have {length} tokens, the engine takes "
                    f"{self.longest}: lower --max_length"
                )
        if not asked:
            return
        self._apply(edits, asked[0].prompt_ids)
        with Progress(len(asked), sampling.max_tokens + outcome.forced_room) as progress:
            watch = self._loop.create_task(self._watch(progress))
            try:
                yield from self._as_finished([self._answer(one, sampling, outcome, progress) for one in asked])
            finally:
                watch.cancel()

    def probe(
        self, chains: Iterable[Chain], answers: Sequence[tuple[int, ...]], edits: Sequence[Edit] = ()
    ) -> Iterator[tuple[Chain, Tensor]]:
        """See `Engine.probe`; in the order in which they finish. `cache_use` is then of this call alone."""
        asked, tree, self.cache_use = list(chains), Tree(answers), CacheUse()
        check_lengths(asked, tree, self.longest)
        if not asked:
            return
        self._apply(edits, asked[0].prompt_ids)
        room = asyncio.Semaphore(WAITING_PROBES)
        with tqdm(total=len(asked), unit="chain", desc="probe") as progress:
            yield from self._as_finished([self._probe(chain, tree, room, progress) for chain in asked])

    def _apply(self, edits: Sequence[Edit], prompt_ids: Sequence[int]) -> None:
        """Steers from now on as these edits say, after a trial behind a prompt."""
        if edits and not (
            self.steering == "any" or (self.steering == "constant" and all(one.constant for one in edits))
        ):
            raise ValueError(f"this engine was loaded for steering: {self.steering}")
        wanted = changes(edits, self.shape)
        self._try(wanted, prompt_ids)
        self._steer(wanted)

    def _as_finished(self, works: Sequence[Coroutine[Any, Any, Result]]) -> Iterator[Result]:
        """What they give, in the order in which they finish."""
        finished: asyncio.Queue[asyncio.Task[Result]] = asyncio.Queue()
        tasks = [self._loop.create_task(work) for work in works]
        for task in tasks:
            task.add_done_callback(finished.put_nowait)
        try:
            for _ in tasks:
                yield self._wait(finished.get()).result()
        finally:
            for task in tasks:
                task.cancel()
            self._wait(_gather(tasks))

    async def _watch(self, progress: Progress) -> None:
        """Reads how many tokens the running requests have: vLLM keeps that count, and streaming outputs costs time."""
        while True:
            await asyncio.sleep(LOOK_S)
            for state in self._llm.output_processor.request_states.values():
                number, begun = state.external_req_id.split(".")  # see `_complete`
                if tokens := int(begun) + state.detokenizer.num_output_tokens():
                    progress.update(int(number), tokens)
            progress.tick()

    async def _probe(self, chain: Chain, tree: Tree, room: asyncio.Semaphore, progress: tqdm) -> tuple[Chain, Tensor]:
        numbers = []

        async def weigh(ids: list[int], tokens: list[int]) -> Distribution:
            """The log-probabilities of these tokens behind those."""
            numbers.append(number := next(self._numbers))
            extra = {"thinksteer": [number, len(chain.prompt_ids)]}
            params = SamplingParams(temperature=0.0, max_tokens=1, logprob_token_ids=tokens, extra_args=extra)
            output = await self._request(ids, params, f"probe {number}")
            self.cache_use.add(len(ids), output.num_cached_tokens)
            return {token: one.logprob for token, one in output.outputs[0].logprobs[0].items()}

        found = await weighed(chain, tree, weigh, room)
        if any(where != EVERYWHERE for parts in self._changes.values() for where in parts):
            await self._llm.collective_rpc("steered_positions", args=(numbers,))  # nobody asks: it forgets them
        progress.set_postfix(cached=f"{self.cache_use.share:.0%}", refresh=False)
        progress.update()
        return chain, found

    async def _answer(self, request: Request, sampling: Sampling, outcome: Outcome, progress: Progress) -> Response:
        number = next(self._numbers)
        ids = await self._complete(request, [], sampling, number)
        forced_at, forced = None, []
        if ids[-1] not in outcome.eos_ids:
            forced = outcome.forced_ids(request, ids)
        if forced:
            # At once, among the requests that still run: its prefix is cached from a moment ago.
            forced_at, rest = len(ids), replace(sampling, max_tokens=sampling.forced_tokens)
            ids = await self._complete(request, ids + forced, rest, number)
        progress.finish(number, len(ids))
        return outcome.response(request, ids, forced_at, await self._steered_positions(request, ids, number))

    async def _complete(self, request: Request, ids: list[int], sampling: Sampling, number: int) -> list[int]:
        """The tokens of a response from those with which it has begun, which may be none."""
        ends = self.eos_ids | sampling.stop_ids
        for part in _parts(sampling, len(ids)):
            extra = {"thinksteer": [number, len(request.prompt_ids)]}
            if not native(part):
                extra["sampling"] = told(part)
                part = replace(part, top_p=1.0, top_k=0, min_p=0.0, repetition_penalty=1.0)
            params = SamplingParams(
                temperature=part.temperature,
                top_p=part.top_p,
                top_k=part.top_k,
                min_p=part.min_p,
                repetition_penalty=part.repetition_penalty,
                max_tokens=part.max_tokens,
                seed=(request.seed + len(ids)) % (1 << 63),  # a later part does not repeat the draws of an earlier one
                logit_bias=dict.fromkeys(part.bias.tokens, part.bias.value) if part.bias else None,
                stop_token_ids=sorted(ends),
                extra_args=extra,
            )
            output = await self._sample([*request.prompt_ids, *ids], params, f"{number}.{len(ids)}")
            ids = [*ids, *output.token_ids]
            if ids[-1] in ends:
                break
        return ids

    async def _sample(self, ids: list[int], params: SamplingParams, name: str) -> CompletionOutput:
        return (await self._request(ids, params, name)).outputs[0]

    async def _request(self, ids: list[int], params: SamplingParams, name: str) -> RequestOutput:
        params.detokenize, params.output_kind = False, RequestOutputKind.FINAL_ONLY
        prompt = TokensPrompt(prompt_token_ids=ids)
        if self._salt:
            prompt["cache_salt"] = self._salt
        return [output async for output in self._llm.generate(prompt, params, name)][-1]

    async def _steered_positions(self, request: Request, ids: list[int], number: int) -> int:
        if any(EVERYWHERE in parts for parts in self._changes.values()):
            return len(request.prompt_ids) + len(ids) - 1
        if not self._changes:
            return 0
        # One call to the workers asks for all responses that ended during the call before.
        self._uncounted.append(number)
        async with self._counting:
            if number not in self._counts:
                numbers, self._uncounted = self._uncounted, []
                (counts, *_) = await self._llm.collective_rpc("steered_positions", args=(numbers,))
                self._counts.update(zip(numbers, counts, strict=True))
        return self._counts.pop(number)

    def _steer(self, wanted: Changes) -> None:
        """Puts these changes in the place of those that steer now."""
        if not wanted and not self._changes:
            return
        wheres = list(dict.fromkeys(where for parts in wanted.values() for where in parts))
        tensors = {
            f"{layer}.{site}.{wheres.index(where)}": one.rows()
            for (layer, site), parts in wanted.items()
            for where, one in parts.items()
        }
        payload = save(tensors)
        listed = [
            [None if where.tokens is None else sorted(where.tokens), where.in_thinking, where.responding, where.text]
            for where in wheres
        ]
        conditional = any(where != EVERYWHERE for where in wheres)
        marks = [self.marks.open, self.marks.close, self.marks.token_bytes.table() if conditional else []]
        placed = self._wait(self._llm.collective_rpc("steer", args=(payload, listed, marks)))
        self._changes = wanted
        self._salt = hashlib.sha256(payload + json.dumps(listed).encode()).hexdigest() if wanted else None
        homeless = tensors.keys() - {name for names in placed for name in names}
        if homeless:
            raise InputError(
                f"in this model vLLM has no place to steer at {', '.join(sorted(homeless)[:3])}: use --engine hf"
            )

    def _try(self, wanted: Changes, prompt_ids: Sequence[int]) -> None:
        """Once per kind of steering, see `vllm_trial.prove`; ends unsteered."""
        kinds = {
            (site, where == EVERYWHERE, len(one.read) > 0)
            for (_, site), parts in wanted.items()
            for where, one in parts.items()
        }
        if not kinds <= self._tried:
            prove(wanted, list(prompt_ids), self.shape[1], self._steer, self._trial)
            self._tried |= kinds

    def _trial(self, ids: list[int]) -> tuple[list[int], list[Distribution]]:
        """Three greedy tokens and the log-probabilities of the likeliest at each."""
        extra = {"thinksteer": [number := next(self._numbers), len(ids)]}
        params = SamplingParams(temperature=0.0, max_tokens=3, min_tokens=3, logprobs=TRIAL_LOGPROBS, extra_args=extra)
        output = self._wait(self._sample(ids, params, f"trial {number}"))
        steps = [{token: one.logprob for token, one in step.items()} for step in output.logprobs]
        return list(output.token_ids), steps

    def _wait(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self._loop.run_until_complete(work)


async def _start(chosen: Mapping[str, Any]) -> AsyncLLM:
    # As its offline class starts it: room for more prompt tokens in a step than a server's.
    return AsyncLLM.from_engine_args(AsyncEngineArgs(**chosen), usage_context=UsageContext.LLM_CLASS)


def supports(ref: ModelRef) -> bool:
    """Whether vLLM has code of its own for the model's architecture."""
    config = model_files.config(ref) or {}
    return bool({*(config.get("architectures") or [])} & {*ModelRegistry.get_supported_archs()})


def _parts(sampling: Sampling, begun: int) -> list[Sampling]:
    """The sampling of what follows so many tokens of a response: two in a row where a bias ends in between."""
    if sampling.bias is None or sampling.bias.first_tokens is None:
        return [sampling]
    left = min(max(0, sampling.bias.first_tokens - begun), sampling.max_tokens)
    parts = replace(sampling, max_tokens=left), replace(sampling, max_tokens=sampling.max_tokens - left, bias=None)
    return [part for part in parts if part.max_tokens]


async def _gather(tasks: Collection[asyncio.Task[Any]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)
