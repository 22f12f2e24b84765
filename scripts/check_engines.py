"""Do both engines steer alike here? Greedy tokens of vLLM against transformers', setting by setting.

    python -m scripts.check_engines
    python -m scripts.check_engines --control seal
    python -m scripts.check_engines --model deepseek-qwen-1.5b --dataset gsm8k --max_length 512 --tensor_parallel_size 2

Reads   directions/<model>/<control>.safetensors, a dataset
Writes  nothing; prints for each setting how many prompts' tokens differ, and of each where, and by how little
        transformers preferred its own token. Exit status 1 if more than 0.5 % of a setting's prompts differ, or
        (float32) one by a gap of 1e-4

The first table is steered by biases, compiled as vLLM does by default; the second by biases and by hooks, in eager
mode: there also at tokens with a line break, and inside the thinking only. Controls that act at some tokens only are in
the second, as their papers apply them.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from thinksteer import cli, models, store
from thinksteer.engines import Engine, Loading, engine_class
from thinksteer.engines.hf import HFEngine
from thinksteer.generation import requests
from thinksteer.methods import METHODS
from thinksteer.records import EVERYWHERE, Condition, Edit, Request, Response, Sampling
from thinksteer.stage import load_problems
from thinksteer.steering import Gate, applied, conditions
from thinksteer.thinking import Follower, Reader

WEIGHTS = (-1.6, -0.8, 0.4, 0.8, 1.6)
LAYER_WEIGHT = 4.0
OWN_WEIGHTS = (-1.0, 0.5, 1.0, 2.0)
ALLOWED_SHARE, ALLOWED_GAP = 0.005, 1e-4
Settings = dict[str, list[Edit]]


def parse_args() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_model(parser)
    cli.add_loading(parser)
    cli.add_parallel(parser)
    cli.add_data(parser)
    cli.add_controls(parser, default=["thinking_length_attn", "thinking_length_mlp"])
    parser.add_argument("--max_length", type=cli.positive_int, default=320, help="default: %(default)s")
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"), help="default: %(default)s")
    parser.set_defaults(n_questions=cli.UpTo(200), shard=None)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    ref = models.of_flags(args)
    problems, settings = load_problems(args, args.dataset), constant(args, ref.key)
    vllm, loading = engine_class("vllm"), Loading.of(args)
    plain = replace(loading, tensor_parallel_size=1, pipeline_parallel_size=1, data_parallel_size=1)
    hf = HFEngine.load(ref, plain)
    asked = requests(problems, ref.template, hf.tokenizer, "", 1, 0, set())
    sampling = Sampling(args.max_length, 0.0, 1.0, 0, forced_answer=ref.template.forced_answer)
    reader = Reader.of(ref.template, hf.tokenizer)
    own = conditional(settings, reader.tokens_with(["\n"])) | of_methods(args, ref.key, reader)
    answers = {name: answer(hf, asked, sampling, edits) for name, edits in (settings | own).items()}
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()  # vLLM counts what is free
    fine = True
    for steering, tried in (("constant", settings), ("any", settings | own)):
        with opened(vllm, ref, replace(loading, steering=steering)) as engine:
            print(f"\n{ref.key}, {len(asked)} prompts, {engine.device}, vLLM loaded for steering {steering}")
            for name, edits in tried.items():
                found = answer(engine, asked, sampling, edits)
                gaps = [
                    gap(hf, request, answers[name][request.id], found[request.id], edits)
                    for request in asked
                    if found[request.id].token_ids != answers[name][request.id].token_ids
                ]
                steered, plain = answers[name], answers["unsteered"]
                counts = [sum(one.steered_positions for one in some.values()) for some in (steered, found)]
                changed = sum(steered[id].token_ids != plain[id].token_ids for id in plain)
                tokens = sum(len(one.token_ids) for one in found.values())
                about = f"{tokens:6d} tokens, {counts[1]:6d} positions steered, {changed:3d} prompts changed"
                print(f"  {name:42} {about}, {len(gaps)} differ")
                for where, size in gaps:
                    print(f"{'':44} {where}: logit gap {size:.2g}")
                exact = hf.model.dtype != torch.float32 or all(size < ALLOWED_GAP for _, size in gaps)
                fine &= len(gaps) <= ALLOWED_SHARE * len(asked) and exact and (counts[0] == counts[1] or bool(gaps))
    print("\nThe engines agree." if fine else "\nThe engines do NOT agree.")
    sys.exit(not fine)


def constant(args: argparse.Namespace, model: str) -> Settings:
    """No steering; every control at every weight in all layers; the first control in one layer at a time."""
    settings: Settings = {"unsteered": []}
    for control in (one for one in args.control if METHODS[one].constant):
        vectors = store.read_direction(store.direction_path(args.artifacts, model, control))
        layers, edits = range(len(vectors)), partial(METHODS[control].edits, vectors, where=EVERYWHERE)
        settings |= {f"{control} {weight:+g}": edits(layers, weight) for weight in WEIGHTS}
        if len(settings) == 1 + len(WEIGHTS):
            settings |= {f"{control} layer {layer}": edits([layer], LAYER_WEIGHT) for layer in layers}
    return settings


def conditional(settings: Settings, breaks: frozenset[int]) -> Settings:
    """The strongest constant settings, held to line breaks, to the thinking, and to line breaks inside the thinking."""
    wheres = {"breaks": Condition(breaks), "thinking": Condition(None, True), "both": Condition(breaks, True)}
    return {
        f"{name} {label}": [replace(edit, where=where) for edit in edits]
        for name, edits in settings.items()
        for label, where in wheres.items()
        if name.endswith("1.6")
    }


def of_methods(args: argparse.Namespace, model: str, reader: Reader) -> Settings:
    """The controls that no bias can stand for, as their papers apply them, at several weights."""
    settings: Settings = {}
    for control in (one for one in args.control if not METHODS[one].constant):
        method, vectors = METHODS[control], store.read_direction(store.direction_path(args.artifacts, model, control))
        layer = method.layer(len(vectors))
        layers = range(len(vectors)) if layer is None else [layer]
        settings |= {
            f"{control} {weight:+g}": method.edits(method.spread(vectors), layers, weight, method.where(reader))
            for weight in OWN_WEIGHTS
        }
    return settings


def answer(engine: Engine, asked: Sequence[Request], sampling: Sampling, edits: Sequence[Edit]) -> dict[str, Response]:
    return {response.id: response for response in engine.generate(asked, sampling, edits)}


@contextmanager
def opened(kind: type[Engine], ref: models.ModelRef, loading: Loading) -> Iterator[Engine]:
    engine = kind.load(ref, loading)
    try:
        yield engine
    finally:
        engine.close()


def gap(hf: HFEngine, request: Request, ours: Response, theirs: Response, edits: Sequence[Edit]) -> tuple[str, float]:
    """Where two responses part, and by how much transformers preferred its token there (NaN: one stops earlier)."""
    pairs = list(zip(ours.token_ids, theirs.token_ids, strict=False))
    at = next((i for i, (one, other) in enumerate(pairs) if one != other), None)
    if at is None:
        return f"{request.id} ends early", float("nan")
    last = steered_logits(hf.model, hf, request, ours.token_ids[:at], edits)
    one, other = pairs[at]
    return f"{request.id} token {at}", (last[one] - last[other]).item()


@torch.inference_mode()
def steered_logits(
    model: PreTrainedModel, hf: HFEngine, request: Request, begun: Sequence[int], edits: Sequence[Edit]
) -> Tensor:
    """The logits `[V]` after a prompt and the beginning of its response, in one pass."""
    ids = [*request.prompt_ids, *begun]
    follower = Follower(len(request.prompt_ids), hf.marks)
    wheres = conditions(edits)
    held = Gate(wheres, follower).mask(ids, 0, len(ids))
    with applied(model, edits) as masks:
        for where, row in zip(wheres, held, strict=True):
            masks[where] = torch.tensor([row], device=model.device)
        return model(torch.tensor([ids], device=model.device), logits_to_keep=1).logits[0, -1]


if __name__ == "__main__":
    cli.run(main)
