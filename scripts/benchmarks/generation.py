"""Tokens per second, every way of generating.

Where --temperature is 0 all ways generate the same tokens: what steers is far too small to change them, at full cost.
"""

import argparse
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch

from scripts.benchmarks.measuring import THREADS, Measured, bars, engines, opened, timed
from thinksteer import model_files, models, store
from thinksteer.engines import Engine, Loading, Steering
from thinksteer.engines.hf import HFEngine
from thinksteer.generation import requests
from thinksteer.models import ModelRef
from thinksteer.records import Condition, Edit, InputError, Problem, Request, Sampling
from thinksteer.stage import Generator, load_problems
from thinksteer.tables import Column, Table

BATCHED, ALONE = "transformers, batched", "transformers, one by one"
ENGINE, EVALUATION, RAW = "vllm", "vllm: evaluation, with grading and files", "vLLM's own LLM.generate"
FREE, ATTN, MLP = "vllm for biases: unsteered", "vllm for biases: attn_out", "vllm for biases: mlp_out"
EAGER, BREAKS = "vllm for conditions: unsteered", "vllm for conditions: block_out at line breaks"
RATIOS = (  # way, of which other, and what it should be at least
    (EVALUATION, RAW, 0.95),
    (ENGINE, RAW, None),
    (ATTN, FREE, 0.97),
    (MLP, FREE, 0.97),
    (BREAKS, EAGER, 0.90),
    (ENGINE, BATCHED, None),
    (BATCHED, ALONE, None),
)
WEIGHT = 1e-6
ALONE_SECONDS = 8.0  # about how long a repeat of one response at a time may take

Answers = Iterable[tuple[tuple[str, int], Sequence[int]]]
"""(id, sample) and tokens of each response."""
Forget = Callable[[], bool]


@dataclass
class Speed:
    """What was measured of one way. `start`: if it is its engine's first, the seconds until that was ready."""

    way: str
    start: float | None = None
    rates: list[float] = field(default_factory=list)  # tokens per second, of each repeat
    answers: dict[tuple[str, int], Sequence[int]] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        return sum(map(len, self.answers.values()))

    def differing(self, other: "Speed") -> int:
        """How many of the responses that both made differ."""
        return sum(self.answers[key] != other.answers[key] for key in self.answers.keys() & other.answers.keys())


def measure(args: argparse.Namespace, ref: ModelRef) -> Measured:
    problems, speeds = load_problems(args, args.dataset), []
    tokenizer = models.load_tokenizer(ref, args.trust_remote_code)
    asked = requests(problems, ref.template, tokenizer, args.instruction, args.n_samples, args.seed, set())
    if "hf" in engines(args):
        found, device = transformers_ways(args, ref, asked)
        speeds += found
    if "vllm" in engines(args):
        found, device = vllm_ways(args, ref, problems, asked)
        speeds += found
    tables = [speed_table(speeds, f"{ref.key}, {args.dataset}, {device}"), ratio_table(speeds)]
    rows = [(speed.way, speed.rates, speed.way in (BATCHED, ALONE)) for speed in speeds]
    figure = bars(rows, max, "tokens per second", tables[0].title)
    return Measured(tables, figure, {speed.way: speed.rates for speed in speeds}, device)


def transformers_ways(args: argparse.Namespace, ref: ModelRef, asked: Sequence[Request]) -> tuple[list[Speed], str]:
    """Batched; and one by one, as many questions as take some seconds."""
    with opened(args, ref, "hf") as (generator, engine, start):
        sampling = generator.sampling
        alone = HFEngine(engine.model, engine.tokenizer, engine.template, max_batch=1)
        begin = perf_counter()
        answers(alone, asked[:1], sampling)
        few = asked[:: args.n_samples][: max(1, int(ALONE_SECONDS / (perf_counter() - begin)))]
        ways = {
            BATCHED: partial(answers, engine, asked, sampling),
            ALONE: partial(answers, alone, few, sampling),
        }
        found = speeds(ways, args.repeats, start)
        alone.close()  # the model is theirs together
        return found, engine.device


def vllm_ways(
    args: argparse.Namespace, ref: ModelRef, problems: Sequence[Problem], asked: Sequence[Request]
) -> tuple[list[Speed], str]:
    """Through the engine and through evaluation; through vLLM alone; steered by biases; steered by hooks."""
    with opened(args, ref, "vllm") as (generator, engine, start), tempfile.TemporaryDirectory() as scratch:
        sampling = generator.sampling
        ways = {
            ENGINE: partial(answers, engine, asked, sampling),
            EVALUATION: lambda: evaluate(generator, Path(tempfile.mkdtemp(dir=scratch)), args.dataset, problems),
        }
        found = speeds(ways, args.repeats, start, engine.forget)
        device, eos_ids, (n_layers, size) = engine.device, engine.eos_ids, engine.shape

    begin = perf_counter()
    with raw(args, ref) as llm:
        start = perf_counter() - begin
        ways = {RAW: partial(generate, llm, asked, sampling, eos_ids)}
        found += speeds(ways, args.repeats, start, llm.reset_prefix_cache)

    vectors = torch.randn(n_layers, size, generator=torch.Generator().manual_seed(0))
    breaks = frozenset(i for i in engine.tokenizer.get_vocab().values() if "\n" in engine.tokenizer.decode([i]))
    attn, mlp = (Edit(site, vectors, tuple(range(n_layers)), WEIGHT) for site in ("attn_out", "mlp_out"))
    at_breaks = Edit("block_out", vectors, (n_layers // 2,), WEIGHT, Condition(breaks, in_thinking=True))
    found += steered_ways(args, ref, asked, "constant", {FREE: [], ATTN: [attn], MLP: [mlp]})
    found += steered_ways(args, ref, asked, "any", {EAGER: [], BREAKS: [at_breaks]})
    return found, device


def steered_ways(
    args: argparse.Namespace,
    ref: ModelRef,
    asked: Sequence[Request],
    steering: Steering,
    settings: Mapping[str, Sequence[Edit]],
) -> list[Speed]:
    with opened(args, ref, "vllm", steering) as (generator, engine, start):
        ways = {way: partial(answers, engine, asked, generator.sampling, edits) for way, edits in settings.items()}
        return speeds(ways, args.repeats, start, engine.forget)


@contextmanager
def raw(args: argparse.Namespace, ref: ModelRef) -> Iterator[Any]:
    """vLLM's own class for whole batches, started as our engine starts."""
    from vllm import LLM

    from thinksteer.engines import vllm

    loading = Loading.of(args)
    with tempfile.TemporaryDirectory() as scratch:
        folder = vllm.runnable(model_files.folder(ref), Path(scratch), loading.trust_remote_code)
        llm = LLM(**vllm.settings(folder, loading))
    try:
        yield llm
    finally:
        llm.llm_engine.engine_core.shutdown()


def answers(engine: Engine, asked: Sequence[Request], sampling: Sampling, edits: Sequence[Edit] = ()) -> Answers:
    responses = list(engine.generate(asked, sampling, edits))
    if edits and not any(response.steered_positions for response in responses):
        raise InputError("no response has a line break in its thinking, where it would be steered: raise --max_length")
    return (((response.id, response.sample), response.token_ids) for response in responses)


def evaluate(generator: Generator, folder: Path, dataset: str, problems: Sequence[Problem]) -> Answers:
    """As evaluate_models.py does it."""
    output = store.evaluation_path(folder, generator.ref.key, dataset, "")
    generator.write(output, dataset, problems)
    return (((record.id, record.sample), record.token_ids) for record in store.iterate_records(output))


def generate(llm: Any, asked: Sequence[Request], sampling: Sampling, eos_ids: Iterable[int]) -> Answers:
    """As plainly as vLLM can be used."""
    from vllm import SamplingParams

    params = [
        SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            repetition_penalty=sampling.repetition_penalty,
            max_tokens=sampling.max_tokens,
            seed=request.seed,
            stop_token_ids=sorted(eos_ids),
            detokenize=False,
        )
        for request in asked
    ]
    outputs = llm.generate([{"prompt_token_ids": list(request.prompt_ids)} for request in asked], params)
    pairs = zip(asked, outputs, strict=True)
    return (((request.id, request.sample), tuple(output.outputs[0].token_ids)) for request, output in pairs)


def speeds(
    ways: Mapping[str, Callable[[], Answers]], repeats: int, start: float, forget: Forget = lambda: True
) -> list[Speed]:
    """Of an engine that took `start` seconds until it was ready."""
    found = []
    for way, measured in timed(ways, repeats, forget).items():
        one = Speed(way, None if found else start)
        for seconds, given in measured:
            one.answers = dict(given)  # evaluation reads its records here, when the clock has stopped
            one.rates.append(one.tokens / seconds)
        found.append(one)
    return found


def speed_table(speeds: Sequence[Speed], about: str) -> Table:
    columns = (
        Column("way", "text"),
        Column("responses", "count"),
        Column("tokens", "count"),
        Column("responses unlike the first way's", "count"),
        Column("best tokens/s", "count"),
        Column("median tokens/s", "count"),
        Column("start of the engine, s", "count"),
    )
    rows = [
        (one.way, len(one.answers), one.tokens, one.differing(speeds[0]), max(one.rates), median(one.rates), one.start)
        for one in speeds
    ]
    note = f"{len(os.sched_getaffinity(0))} cores, of which transformers uses {THREADS}."
    if any(one.differing(speeds[0]) for one in speeds):
        note += " The ways do NOT generate the same tokens."
    return Table("speeds", f"Tokens per second: {about}", columns, tuple(rows), note)


def ratio_table(speeds: Sequence[Speed]) -> Table:
    columns = tuple(Column(title, "text") for title in ("way", "as against"))
    columns += tuple(Column(title, "share") for title in ("of best speeds, %", "of median speeds, %", "goal, %"))
    rates = {speed.way: speed.rates for speed in speeds}
    rows = [
        (way, other, max(rates[way]) / max(rates[other]), median(rates[way]) / median(rates[other]), goal)
        for way, other, goal in RATIOS
        if way in rates and other in rates
    ]
    return Table("ratios", "Ratios", columns, tuple(rows), "Repeats of one engine alternate; those of two do not.")
