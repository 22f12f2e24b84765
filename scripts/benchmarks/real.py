"""What a model of one's own costs: generating so many responses at a time in each dtype, and reading it."""

import argparse
import contextlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from time import perf_counter
from typing import Any

import torch

from scripts.benchmarks import generation, passes
from scripts.benchmarks.generation import Answers, Forget
from scripts.benchmarks.measuring import Measured, Panel, engines, growth, opened, timed
from thinksteer import models
from thinksteer.activations import GPU_BATCH_TOKENS, class_means
from thinksteer.cpu import fitting_batch
from thinksteer.engines import Engine
from thinksteer.generation import requests
from thinksteer.layout import Layout
from thinksteer.localize import head_scores
from thinksteer.models import ModelRef
from thinksteer.records import Passage, Request, Sampling, Span
from thinksteer.stage import load_problems
from thinksteer.tables import Column, Table

CONCURRENT = (1, 8, 32, 64)
TOKENS = 64  # of a response
DTYPES = ("float32", "bfloat16")
LENGTHS = (180, 420)  # tokens of a passage, the shortest and the longest
BARE, MEANS, HEADS = "bare forward pass", "directions of two sites", "head scores"


def measure_concurrency(args: argparse.Namespace, ref: ModelRef) -> Measured:
    """Tokens per second with so many responses at a time, greedy, in either engine and in vLLM's own class."""
    tokenizer = models.load_tokenizer(ref, args.trust_remote_code)
    problems = load_problems(args, args.dataset)[: max(CONCURRENT)]
    asked = requests(problems, ref.template, tokenizer, args.instruction, 1, args.seed, set())
    sampling, rates, device = Sampling(TOKENS, 0.0, 1.0, 0), {}, None
    for dtype in DTYPES:
        own = argparse.Namespace(**vars(args) | {"dtype": dtype})
        for name in engines(args):
            with opened(own, ref, name) as (_, engine, _):
                device, ends = engine.device, engine.eos_ids
                forget = engine.forget if name == "vllm" else lambda: True
                rates[name, dtype] = dict(measured(partial(answers, engine, sampling), asked, forget))
        if "vllm" in engines(args):
            with generation.raw(own, ref) as llm:
                generate, forget = partial(plain, llm, sampling, ends), llm.reset_prefix_cache
                rates[generation.RAW, dtype] = dict(measured(generate, asked, forget))
    columns = (Column("way", "text"), Column("dtype", "text"), *(Column(str(n), "count") for n in CONCURRENT))
    rows = tuple((way, dtype, *of.values()) for (way, dtype), of in rates.items())
    prompt = sum(len(one.prompt_ids) for one in asked) / len(asked)
    note = (
        f"Responses at a time in the header; {TOKENS} tokens each behind prompts of {prompt:.0f}, whose reading counts."
    )
    title = f"Tokens per second of {ref.key}"
    curves = {f"{way}, {dtype}": {float(n): rate for n, rate in of.items()} for (way, dtype), of in rates.items()}
    figure = growth([Panel("responses at a time", "tokens per second", curves)], title)
    repeats = {name: list(curve.values()) for name, curve in curves.items()}
    return Measured([Table("concurrency", title, columns, rows, note)], figure, repeats, device)


def measured(
    generate: Callable[[Sequence[Request]], Answers], asked: Sequence[Request], forget: Forget
) -> Iterator[tuple[int, float]]:
    """Tokens per second by the number of responses at a time, with an empty prefix cache."""
    generate(asked[-2:])  # unmeasured: kernels are chosen, graphs compiled
    for count in CONCURRENT:
        forget()
        some = asked[:count]
        begin = perf_counter()
        tokens = sum(len(tokens) for _, tokens in generate(some))
        yield count, tokens / (perf_counter() - begin)


def answers(engine: Engine, sampling: Sampling, asked: Sequence[Request]) -> Answers:
    return generation.answers(engine, asked, sampling)


def plain(llm: Any, sampling: Sampling, ends: Iterable[int], asked: Sequence[Request]) -> Answers:
    return generation.generate(llm, asked, sampling, ends)


def measure_reading(args: argparse.Namespace, ref: ModelRef) -> Measured:
    """Seconds of the passes of stages 2 and 4 over this model, against a bare forward pass over the same tokens in the
    same batches."""
    rows, repeats = [], {}
    for dtype in DTYPES:
        model = models.load_model(ref, args.device, dtype, args.trust_remote_code)
        passages, batch = made(model.config.vocab_size, args.pass_tokens), fitting_batch(model, GPU_BATCH_TOKENS)
        direction = torch.randn(Layout(model).shape, generator=torch.Generator().manual_seed(0))
        ways = {
            BARE: lambda model=model, passages=passages, batch=batch: passes.forward(model, passages, batch),
            MEANS: lambda model=model, passages=passages: class_means(model, passages, ("mid", "block_out"), None),
            HEADS: lambda m=model, passages=passages, d=direction: head_scores(m, passages, d, None, "long"),
        }
        with contextlib.redirect_stderr(io.StringIO()):  # progress bars
            found = {way: [seconds for seconds, _ in all_of] for way, all_of in timed(ways, args.repeats).items()}
        tokens = sum(len(one.ids) for one in passages)
        for way, seconds in found.items():
            rows.append((way, dtype, batch, tokens / min(seconds), 100 * min(seconds) / min(found[BARE])))
            repeats[f"{way}, {dtype}"] = seconds
        device = models.runs_on(model)[0]
        del model, ways
    columns = (
        *(Column(name, "text") for name in ("pass", "dtype")),
        Column("tokens in a batch", "count"),
        Column("tokens per second", "count"),
        Column("% of the bare pass", "count"),
    )
    title = f"Reading {ref.key}, best of {args.repeats}"
    curves = {way: {float(n): s for n, s in enumerate(seconds)} for way, seconds in repeats.items()}
    figure = growth([Panel("repeat", "seconds", curves)], title)
    return Measured([Table("reading", title, columns, tuple(rows), "")], figure, repeats, device)


def made(vocabulary: int, tokens: int) -> list[Passage]:
    """Passages of different lengths with about so many tokens in all, the last seven eighths of each a span."""
    generator, found = torch.Generator().manual_seed(0), []
    while sum(len(one.ids) for one in found) < tokens:
        length = int(torch.randint(*LENGTHS, (), generator=generator))
        ids = tuple(torch.randint(vocabulary, (length,), generator=generator).tolist())
        found.append(Passage(str(len(found)), ids, (Span("long", length // 8, length),)))
    return found
