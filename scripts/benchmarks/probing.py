"""What it costs to probe chains, against generating them."""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from scripts.benchmarks.measuring import Measured, bars, engines, opened, timed
from thinksteer import store
from thinksteer.confidence import Tree, chain, tails
from thinksteer.generation import requests
from thinksteer.models import ModelRef
from thinksteer.stage import load_problems
from thinksteer.tables import Column, Table
from thinksteer.thinking import FORCED_QUESTION

EVERY, SUFFIX, ANSWERS = 8, FORCED_QUESTION + "\\boxed{", [str(number) for number in range(10, 60)]


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
    generate: list[float]
    probe: list[float]
    cached: float | None = None


def measure(args: argparse.Namespace, ref: ModelRef) -> Measured:
    found, device = [], None
    for name in engines(args):
        one, device = probing(args, ref, name)
        found.append(one)
    table, repeats, rows = probing_table(found), {}, []
    for one in found:
        for colour, (what, seconds) in enumerate((("generate", one.generate), ("probe", one.probe))):
            repeats[f"{one.engine}: {what}"] = seconds
            rows.append((f"{one.engine}: {what}", seconds, colour))
    title = f"Generating chains, and probing them every {EVERY} tokens: {ref.key}, {args.dataset}, {device}"
    return Measured([table], bars(rows, min, "seconds", title), repeats, device)


def probing(args: argparse.Namespace, ref: ModelRef, name: str) -> tuple[Probing, str]:
    """Generates, and probes what was generated, in turn, each from an empty prefix cache; and what that ran on."""
    problems = load_problems(args, args.dataset)
    with opened(args, ref, name) as (generator, engine, _), tempfile.TemporaryDirectory() as scratch:
        output, tokenizer = store.evaluation_path(Path(scratch), ref.key, args.dataset, ""), engine.tokenizer
        generator.write(output, args.dataset, problems)
        ends = tails(ref.template, tokenizer, SUFFIX)
        chains = [chain(record, generator.reader, EVERY, *ends) for record in store.iterate_records(output)]
        asked = requests(problems, ref.template, tokenizer, args.instruction, args.n_samples, args.seed, set())
        weighed = [tuple(tokenizer(answer, add_special_tokens=False).input_ids) for answer in ANSWERS]
        ways = {
            "generate": lambda: list(engine.generate(asked, generator.sampling)),
            "probe": lambda: list(engine.probe(chains, weighed)),
        }
        measured = timed(ways, args.repeats, getattr(engine, "forget", lambda: True))
        generate, probe = ([seconds for seconds, _ in measured[way]] for way in ways)
        forks = [fork for one in chains for fork in one.forks]
        read = sum(len(one.prompt_ids) + one.forks[-1].at for one in chains)
        read += sum(len(fork.tail) + len(Tree(weighed).branches) - 1 for fork in forks)
        tokens, cached = sum(len(one.token_ids) for one in chains), engine.cache_use.share if name == "vllm" else None
        return Probing(name, len(chains), tokens, len(forks), read, generate, probe, cached), engine.device


def probing_table(probed: list[Probing]) -> Table:
    counts = ("chains", "tokens generated", "forks", "tokens to read")
    shares = ("best against generating, %", "median, %", "from the cache, %")
    columns = (Column("engine", "text"), *(Column(title, "count") for title in counts))
    columns += tuple(Column(title, "share") for title in shares)
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
