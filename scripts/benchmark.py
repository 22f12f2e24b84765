"""How fast is it here? Tokens per second of the same prompts, every way of generating in one run.

    python -m scripts.benchmark
    python -m scripts.benchmark --model deepseek-qwen-1.5b --dataset gsm8k --max_length 1024

Reads   models/<name>/ or the hub, a dataset
Writes  benchmark.json and benchmark.png in --output; prints the tables

Greedy by default, so that all ways generate the same tokens: what steers is far too small to change them, at full cost.
No answers are forced. The responses are then probed: every 8 tokens the thinking is closed and 50 answers are weighed.
Every way runs once unmeasured, then --repeats times in turn with the other ways of its engine,
each time from an empty prefix cache. One engine is open at a time; without --engine both are measured. The first start
of vLLM includes its import. On a CPU, transformers takes OMP_NUM_THREADS cores: more than are idle make it far slower.
"""

import argparse
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from matplotlib.figure import Figure

from thinksteer import cli, models, store
from thinksteer.confidence import Tree, chain, tails
from thinksteer.engines import Engine, Loading, Steering
from thinksteer.engines.hf import HFEngine
from thinksteer.figures import COLOURS
from thinksteer.generation import requests
from thinksteer.models import ModelRef
from thinksteer.records import Condition, Edit, InputError, Problem, Request, Sampling
from thinksteer.stage import Generator, data_files, load_problems
from thinksteer.tables import Column, Table, as_json, markdown
from thinksteer.thinking import FORCED_QUESTION

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
EVERY, SUFFIX, ANSWERS = 8, FORCED_QUESTION + "\\boxed{", [str(number) for number in range(10, 60)]  # of probing
ALONE_SECONDS = 8.0  # about how long a repeat of one response at a time may take

Answers = Iterable[tuple[tuple[str, int], Sequence[int]]]
"""(id, sample) and tokens of each response."""


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


@dataclass
class Probing:
    """What was measured of probing the chains that an engine generates: seconds of each repeat.

    `tokens`: generated; `read`: those of the prompts and chains and, at every fork, of the tail and of each distinct
    beginning of the answers, each once, which is the least that probing can read; `cached`: the share of what was asked
    that came from a prefix cache (None: there is none).
    """

    engine: str
    chains: int
    tokens: int
    forks: int
    read: int
    generate: list[float] = field(default_factory=list)
    probe: list[float] = field(default_factory=list)
    cached: float | None = None


def parse_args() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_model(parser)
    cli.add_loading(parser)
    cli.add_engine(parser)
    cli.add_data(parser)
    cli.add_sampling(parser)
    parser.add_argument("--repeats", type=cli.positive_int, default=3, help="of every way (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="folder to write (default: reports/ in --artifacts)")
    cli.add_artifacts(parser)
    parser.set_defaults(n_questions=256, n_samples=2, max_length=320, temperature=0.0, shard=None)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.pipeline_parallel_size * args.data_parallel_size > 1:
        raise InputError("not every way takes pipelines or copies: use --tensor_parallel_size alone")
    ref = models.resolve(args.model, args.artifacts, args.template)
    path = (args.output or store.reports_path(args.artifacts)) / "benchmark.json"
    inputs = [*models.fingerprint(ref), *data_files(args)]
    with store.run(path, vars(args), inputs, overwrite=True) as run:
        speeds, run.device = generation(args, ref)
        probed = [probing(args, ref, name) for name in engines(args)]
        tables = [speed_table(speeds, f"{ref.key}, {args.dataset}, {run.device}"), ratio_table(speeds)]
        tables.append(probing_table(probed))
        print("\n" + "\n".join(markdown(table) for table in tables))
        rates = {speed.way: speed.rates for speed in speeds}
        store.write_json(path, {"tables": [as_json(table) for table in tables], "tokens_per_second": rates})
        with store.atomic(store.figure_path(path)) as file:
            draw(speeds, tables[0].title, file)
    print(f"{path}, {store.figure_path(path)}")


def generation(args: argparse.Namespace, ref: ModelRef) -> tuple[list[Speed], str]:
    """Every way of generating, and what it ran on."""
    problems = load_problems(args, args.dataset)
    tokenizer = models.load_tokenizer(ref, args.trust_remote_code)
    asked = requests(problems, ref.template, tokenizer, args.instruction, args.n_samples, args.seed, set())
    speeds = []
    if "hf" in engines(args):
        found, device = transformers_ways(args, ref, asked)
        speeds += found
    if "vllm" in engines(args):
        found, device = vllm_ways(args, ref, problems, asked)
        speeds += found
    elif args.engine is None:
        print("vLLM is not installed here: transformers alone is measured")
    return speeds, device


def engines(args: argparse.Namespace) -> list[str]:
    """Those to measure; transformers first, as vLLM changes how many threads this process has."""
    return [args.engine] if args.engine else ["hf", *(["vllm"] if find_spec("vllm") else [])]


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
        speeds = timed(ways, args.repeats, start)
        alone.close()  # the model is theirs together
        return speeds, engine.device


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
        speeds = timed(ways, args.repeats, start, engine.forget)
        device, eos_ids, (n_layers, size) = engine.device, engine.eos_ids, engine.shape

    begin = perf_counter()
    with raw(args, ref) as llm:
        start = perf_counter() - begin
        ways = {RAW: partial(generate, llm, asked, sampling, eos_ids)}
        speeds += timed(ways, args.repeats, start, llm.reset_prefix_cache)

    vectors = torch.randn(n_layers, size, generator=torch.Generator().manual_seed(0))
    breaks = frozenset(i for i in engine.tokenizer.get_vocab().values() if "\n" in engine.tokenizer.decode([i]))
    attn, mlp = (Edit(site, vectors, tuple(range(n_layers)), WEIGHT) for site in ("attn_out", "mlp_out"))
    at_breaks = Edit("block_out", vectors, (n_layers // 2,), WEIGHT, Condition(breaks, in_thinking=True))
    speeds += steered_ways(args, ref, asked, "constant", {FREE: [], ATTN: [attn], MLP: [mlp]})
    speeds += steered_ways(args, ref, asked, "any", {EAGER: [], BREAKS: [at_breaks]})
    return speeds, device


def steered_ways(
    args: argparse.Namespace,
    ref: ModelRef,
    asked: Sequence[Request],
    steering: Steering,
    settings: Mapping[str, Sequence[Edit]],
) -> list[Speed]:
    with opened(args, ref, "vllm", steering) as (generator, engine, start):
        ways = {way: partial(answers, engine, asked, generator.sampling, edits) for way, edits in settings.items()}
        return timed(ways, args.repeats, start, engine.forget)


@contextmanager
def opened(
    args: argparse.Namespace, ref: ModelRef, name: str, steering: Steering = "none"
) -> Iterator[tuple[Generator, Any, float]]:
    """What the stages generate with, without forced answers; its engine; and the seconds until that was ready."""
    with Generator(argparse.Namespace(**vars(args) | {"engine": name}), ref, steering) as generator:
        generator.sampling = replace(generator.sampling, forced_answer="")
        begin = perf_counter()
        engine = generator.engine
        yield generator, engine, perf_counter() - begin
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()  # vLLM counts what is free


@contextmanager
def raw(args: argparse.Namespace, ref: ModelRef) -> Iterator[Any]:
    """vLLM's own class for whole batches, started as our engine starts."""
    from vllm import LLM

    from thinksteer.engines import vllm

    loading = Loading.of(args)
    with tempfile.TemporaryDirectory() as scratch:
        llm = LLM(**vllm.settings(vllm.runnable(models.folder(ref), Path(scratch)), loading))
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


def probing(args: argparse.Namespace, ref: ModelRef, name: str) -> Probing:
    """Generates, and probes what was generated, in turn, each from an empty prefix cache; once unmeasured."""
    problems = load_problems(args, args.dataset)
    with opened(args, ref, name) as (generator, engine, _), tempfile.TemporaryDirectory() as scratch:
        output, tokenizer = store.evaluation_path(Path(scratch), ref.key, args.dataset, ""), engine.tokenizer
        generator.write(output, args.dataset, problems)
        ends = tails(ref.template, tokenizer, SUFFIX)
        chains = [chain(record, generator.reader, EVERY, *ends) for record in store.iterate_records(output)]
        asked = requests(problems, ref.template, tokenizer, args.instruction, args.n_samples, args.seed, set())
        weighed = [tuple(tokenizer(answer, add_special_tokens=False).input_ids) for answer in ANSWERS]
        forks = [fork for one in chains for fork in one.forks]
        read = sum(len(one.prompt_ids) + one.forks[-1].at for one in chains)
        read += sum(len(fork.tail) + len(Tree(weighed).branches) - 1 for fork in forks)
        found = Probing(name, len(chains), sum(len(one.token_ids) for one in chains), len(forks), read)
        forget = getattr(engine, "forget", lambda: True)
        for _ in range(1 + args.repeats):
            found.generate.append(seconds(forget, lambda: list(engine.generate(asked, generator.sampling))))
            found.probe.append(seconds(forget, lambda: list(engine.probe(chains, weighed))))
        found.generate, found.probe = found.generate[1:], found.probe[1:]
        found.cached = engine.cache_use.share if name == "vllm" else None
    return found


def seconds(forget: Callable[[], bool], work: Callable[[], Any]) -> float:
    if not forget():
        raise RuntimeError("the prefix cache is in use")
    begin = perf_counter()
    work()
    return perf_counter() - begin


def timed(
    ways: Mapping[str, Callable[[], Answers]],
    repeats: int,
    start: float | None = None,
    forget: Callable[[], bool] = lambda: True,
) -> list[Speed]:
    """Each way once unmeasured, then `repeats` times in turn; `forget` empties the prefix cache before each."""
    speeds = {way: Speed(way) for way in ways}
    for repeat in range(-1, repeats):
        for way, answer in ways.items():
            if not forget():
                raise RuntimeError("the prefix cache is in use")
            begin = perf_counter()
            found = answer()
            seconds = perf_counter() - begin
            speeds[way].answers = dict(found)  # evaluation reads its records here, when the clock has stopped
            if repeat >= 0:
                speeds[way].rates.append(speeds[way].tokens / seconds)
    first, *others = speeds.values()
    return [replace(first, start=start), *others]


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
    note = f"{len(os.sched_getaffinity(0))} cores, of which transformers uses {torch.get_num_threads()}."
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


def probing_table(probed: Sequence[Probing]) -> Table:
    counts = ("chains", "tokens generated", "forks", "tokens to read")
    columns = (Column("engine", "text"), *(Column(title, "count") for title in counts))
    columns += tuple(
        Column(title, "share") for title in ("best against generating, %", "median, %", "from the cache, %")
    )
    rows = [
        (
            *(one.engine, one.chains, one.tokens, one.forks, one.read),
            *(of(one.probe) / of(one.generate) for of in (min, median)),
            one.cached,
        )
        for one in probed
    ]
    title = f"Time to probe a chain every {EVERY} tokens, as a share of the time to generate it"
    return Table("probing", title, columns, tuple(rows), f"{len(ANSWERS)} answers at each fork, behind {SUFFIX!r}.")


def draw(speeds: Sequence[Speed], title: str, path: Path) -> None:
    """A bar for each way's best repeat, a dot for each repeat."""
    figure = Figure(figsize=(8, 0.4 * len(speeds) + 1), layout="constrained")
    panel = figure.subplots()
    colours = [COLOURS[1] if speed.way in (BATCHED, ALONE) else COLOURS[0] for speed in speeds]
    bars = panel.barh([speed.way for speed in speeds], [max(speed.rates) for speed in speeds], color=colours, alpha=0.5)
    panel.bar_label(bars, fmt="{:.0f}", padding=6)
    for at, speed in enumerate(speeds):
        panel.plot(speed.rates, [at] * len(speed.rates), linestyle="none", marker="o", markersize=3, color="black")
    panel.invert_yaxis()
    panel.margins(x=0.12)
    panel.spines[["top", "right"]].set_visible(False)
    panel.set(xlabel="tokens per second (bar: best repeat; dots: all)")
    figure.suptitle(title, x=0.01, ha="left", fontsize=9)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    cli.run(main)
