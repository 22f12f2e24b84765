"""The states of a method's labelled spans on the disk, made once and read by whatever asks about them."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thinksteer import cli, model_files, models, store
from thinksteer.lengths import rule_text
from thinksteer.methods.method import Method
from thinksteer.models import ModelRef
from thinksteer.separability import choose
from thinksteer.stage import load_model, load_passages

if TYPE_CHECKING:
    from torch import Tensor

NUMBERING = {
    "block_in": "entry k enters block k, the last one leaves the last block, before the final norm",
    "block_out": "entry 0 enters block 0, entry k leaves block k - 1, the last one before the final norm",
    "mid": "entry k is that of block k between its attention and its MLP",
}


@dataclass(frozen=True, eq=False)
class States:
    """What a method reads of N spans: `read` `[N, num_layers, hidden_size]`, and of each its label and question."""

    read: Tensor
    labels: list[str]
    questions: list[str]


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that say which spans are read."""
    parser.add_argument("--dataset", default="arithmetic", help="whose responses to read (default: %(default)s)")
    cli.add_rules(parser)
    parser.add_argument("--min_examples", type=cli.positive_int, default=10, help="of each (default: %(default)s)")
    parser.add_argument(
        "--n_examples", type=cli.positive_int, default=500, help="of each at most (default: %(default)s)"
    )
    parser.add_argument("--seed", type=cli.natural_int, default=0, help="of all choices (default: %(default)s)")
    cli.add_batch_tokens(parser)


def settings(args: argparse.Namespace, ref: ModelRef, method: Method) -> dict[str, Any]:
    """What the states depend on, for the run manifest."""
    about = models.identity(ref, args.mean_recurrence) | {"dataset": args.dataset, "dtype": args.dtype}
    about |= {"control": method.name, "rule": rule_text(method.rule(args, ref.quantile))}
    return about | {name: getattr(args, name) for name in ("min_examples", "n_examples", "seed")}


def make_states(args: argparse.Namespace, ref: ModelRef, method: Method) -> Path:
    """The file of a method's states, written unless it is there.

    Tensors `last` and `mean`, both `[N, entries, hidden_size]`: each span's state at the last token where the method
    reads it, and the mean over the tokens where it does; where that is one token, over all up to it: of the last token
    of a prompt, over the prompt. The metadata tell ids, samples and labels (JSON lists), which of the two the method
    `reads`, and how the entries are numbered.
    """
    path = store.states_path(args.artifacts, ref.key, args.dataset, method.name)
    responses = store.responses_path(args.artifacts, ref.key, args.dataset)
    about, inputs = settings(args, ref, method), [responses, *model_files.fingerprint(ref)]
    with store.run(path, about, inputs, args.overwrite) as run:
        if run.finished:
            return path
        from thinksteer.activations import read_at, span_states

        passages = read_at(load_passages(args, ref, [method], method.rule(args, ref.quantile)), method.reading)
        passages = choose(passages, list(method.terms), args.n_examples, args.seed)
        spans = [(passage, span) for passage in passages for span in passage.spans]
        single = all(span.end - span.start == 1 for _, span in spans)
        if single:
            passages = [replace(one, spans=tuple(replace(span, start=0) for span in one.spans)) for one in passages]
        model = load_model(args, ref, run)
        site = method.reading.site
        last, mean = span_states(model, passages, site, args.batch_tokens)
        lists = {"ids": [passage.id for passage, _ in spans], "samples": [passage.sample for passage, _ in spans]}
        lists |= {"labels": [span.label for _, span in spans]}
        texts = {name: json.dumps(values) for name, values in lists.items()}
        texts |= {"reads": "last" if single else "mean", "entries": NUMBERING[site]}
        store.write_safetensors(path, {"last": last, "mean": mean}, {k: str(v) for k, v in about.items()} | texts)
    return path


def read_states(path: Path, method: Method) -> States:
    from thinksteer.activations import entries_of

    tensors, about = store.read_safetensors(path)
    read = entries_of(tensors[about["reads"]], method.reading.site)
    return States(read, json.loads(about["labels"]), json.loads(about["ids"]))
