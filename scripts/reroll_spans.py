"""Would the model write it again? Labelled spans drawn anew, several times each, from where they begin.

    python -m scripts.reroll_spans --control seal
    python -m scripts.reroll_spans --control seal --model deepseek-qwen-1.5b --dataset MATH-500 --n_spans 500

Reads   responses/<model>/<dataset>.jsonl
Writes  responses/<model>/<dataset>.<control>.rerolls.jsonl: a record per span and draw (id: "<id>/<sample>/<start>",
        reference: the span's label, prediction: the draw's); beside it a figure of the rates. Prints the rates
        by label. `extract_directions.py --min_reroll_rate 0.8` then uses only spans that come out the same so often

That a keyword's spans mostly do not is what arXiv 2604.02113 found (93 % of 541 boundaries below 0.8, of 10 draws at
temperature 0.7 and top_p 0.95).
"""

import argparse
import random
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from thinksteer import cli, model_files, models, store
from thinksteer.class_figures import reroll_figure
from thinksteer.generation import record_seed
from thinksteer.lengths import rule_text
from thinksteer.methods import METHODS, family
from thinksteer.records import Passage, Record, Request, Response, Span
from thinksteer.stage import Generator, load_passages

SURE = 0.8  # arXiv 2604.02113


def parse_args() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_model(parser)
    cli.add_loading(parser)
    cli.add_engine(parser)
    parser.add_argument("--dataset", default="arithmetic", help="whose responses to read (default: %(default)s)")
    parser.add_argument("--control", required=True, choices=[name for name, one in METHODS.items() if one.classify])
    cli.add_rules(parser)
    parser.add_argument("--n_spans", type=cli.positive_int, default=500, help="of each label (default: %(default)s)")
    cli.add_sampling(parser)
    cli.add_artifacts(parser)
    parser.set_defaults(min_examples=1, n_samples=10, max_length=1024, temperature=0.7, top_p=0.95)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    ref = models.of_flags(args)
    method = METHODS[args.control]
    rule, responses = method.rule(args, ref.quantile), store.responses_path(args.artifacts, ref.key, args.dataset)
    output = store.rerolls_path(args.artifacts, ref.key, args.dataset, family(method))
    flags = ("dataset", "n_spans", "n_samples", "max_length", "temperature", "top_p", "top_k", "seed", "dtype")
    settings = {"model": ref.key, "source": ref.source, "rule": rule_text(rule)}
    settings |= {flag: getattr(args, flag) for flag in flags}
    inputs = [responses, *model_files.fingerprint(ref)]
    with Generator(args, ref) as generator, store.run(output, settings, inputs, args.overwrite) as run:
        if not run.finished:
            spans = chosen(load_passages(args, ref, [method], rule), args.n_spans, args.seed)
            reader, engine = generator.reader, generator.engine
            ends = [text for text in (method.where(reader).text, ref.template.close) if text]
            sampling = replace(generator.sampling, forced_answer="", stop_ids=reader.tokens_with(ends))
            run.runs_on(engine.device, engine.dtype)
            with store.RecordLog(output) as log:
                asked = requests(spans, args.n_samples, args.seed, log.done)
                for response in engine.generate(asked, sampling):
                    # Where no single token ends a span, more was drawn than the span.
                    drawn = re.split("|".join(map(re.escape, ends)), response.text)[0]
                    label = method.classify(drawn, rule)
                    log.append(reroll(response, spans[response.id][1].label, label))
    summarise(output)


def chosen(passages: Sequence[Passage], count: int, seed: int) -> dict[str, tuple[Passage, Span]]:
    """At most so many spans of each label, at random, under the names of their records."""
    of: defaultdict[str, list[tuple[str, tuple[Passage, Span]]]] = defaultdict(list)
    for passage in passages:
        for span in passage.spans:
            of[span.label].append((f"{passage.id}/{passage.sample}/{span.start}", (passage, span)))
    rng = random.Random(seed)
    return dict(one for label in sorted(of) for one in rng.sample(of[label], min(count, len(of[label]))))


def requests(
    spans: Mapping[str, tuple[Passage, Span]], n_samples: int, seed: int, done: Collection[tuple[str, int]]
) -> list[Request]:
    """What came before each span, to be continued so many times, but for what is done."""
    return [
        Request(name, sample, "", passage.ids[: span.start], record_seed(seed, name, sample))
        for name, (passage, span) in spans.items()
        for sample in range(n_samples)
        if (name, sample) not in done
    ]


def reroll(response: Response, written: str, drawn: str) -> Record:
    """The record of a span drawn anew; `written` and `drawn` are the labels."""
    return Record(
        id=response.id,
        sample=response.sample,
        question="",
        reference=written,
        kind="label",
        prompt="",
        response=response.text,
        token_ids=response.token_ids,
        thinking_tokens=response.thinking_tokens,
        response_tokens=len(response.token_ids),
        status=response.status,
        finish_reason=response.finish,
        forced_at=None,
        seed=response.seed,
        prediction=drawn,
        correct=drawn == written,
    )


def summarise(output: Path) -> None:
    """Print by label how often spans come out the same, and draw it."""
    label = {record.id: record.reference for record in store.iterate_records(output)}
    rates: defaultdict[str, list[float]] = defaultdict(list)
    for span, rate in store.reroll_rates(output).items():
        rates[label["/".join(map(str, span))]].append(rate)
    with store.atomic(store.figure_path(output)) as partial:
        reroll_figure(rates, partial)
    for name, found in sorted(rates.items()):
        sure = sum(rate >= SURE for rate in found)
        print(
            f"{name}: {len(found)} spans come out the same in {fmean(found):.1%} of draws; "
            f"{sure} ({sure / len(found):.1%}) in at least {SURE:.0%}"
        )
    print(output)


if __name__ == "__main__":
    cli.run(main)
