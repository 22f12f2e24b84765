"""Stage 4: the attention heads that write short reasoning into the residual stream (ThinkEdit, section 4.1).

    python find_short_heads.py
    python find_short_heads.py --model deepseek-qwen-1.5b --dataset gsm8k

Reads   responses/<model>/<dataset>.jsonl, directions/<model>/<control>.safetensors
Writes  heads/<model>/<control>.json: every head's score and the chosen ones in order; beside it a heatmap

Which chains are short is what the direction's file says, so heads and direction always rest on the same examples.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

from thinksteer import cli, model_files, models, store
from thinksteer.figures import head_heatmap
from thinksteer.lengths import Rule, read_rule
from thinksteer.methods import METHODS
from thinksteer.published import published_heads
from thinksteer.records import InputError
from thinksteer.stage import load_model, load_passages

HEAD_FRACTION = 0.04  # ThinkEdit, section 4.1: about 4 % of the heads


def parse_args() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_model(parser)
    cli.add_loading(parser)
    parser.add_argument("--dataset", default="arithmetic", help="whose responses to read (default: %(default)s)")
    parser.add_argument("--control", default="thinking_length_attn", choices=["thinking_length_attn"])
    count = parser.add_mutually_exclusive_group()
    count.add_argument(
        "--n_heads", type=cli.positive_int, help="heads to choose (default: upstream's count, else 4 %%)"
    )
    count.add_argument("--head_fraction", type=cli.share, help="the same as a share of all heads")
    parser.add_argument("--min_examples", type=cli.positive_int, default=10, help="short chains (default: %(default)s)")
    cli.add_batch_tokens(parser)
    cli.add_artifacts(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    ref = models.of_flags(args)
    responses = store.responses_path(args.artifacts, ref.key, args.dataset)
    source = store.direction_path(args.artifacts, ref.key, args.control)
    path = store.heads_path(args.artifacts, ref.key, args.control)
    upstream = published_heads(ref.key)
    n_heads = args.n_heads or (None if args.head_fraction else len(upstream) or None)
    share = args.head_fraction or HEAD_FRACTION
    settings = {"model": ref.key, "source": ref.source, "dataset": args.dataset, "control": args.control}
    settings |= {"n_heads": n_heads, "head_fraction": None if n_heads else share, "min_examples": args.min_examples}

    with store.run(path, settings, [responses, source, *model_files.fingerprint(ref)], args.overwrite) as run:
        if not run.finished:
            from thinksteer.activations import read_at
            from thinksteer.localize import head_scores, top_heads

            direction, about = store.read_direction(source), store.read_safetensors(source)[1]
            method, rule = METHODS[args.control], rule_of(source, about)
            passages = read_at(load_passages(args, ref, [method], rule), method.reading)
            model = load_model(args, ref, run)
            scores = head_scores(model, passages, direction, args.batch_tokens)
            heads = top_heads(scores, n_heads or max(1, round(share * scores.numel())))
            with store.atomic(store.figure_path(path)) as partial:
                head_heatmap(scores, heads, partial)
            found = {"model": ref.key, "control": args.control, "rule": about["rule"]}
            found |= {"n_examples": sum(span.label == "short" for passage in passages for span in passage.spans)}
            found |= {"direction_sha256": store.sha256(source), "scores": scores.tolist()}
            store.write_json(path, found | {"heads": [vars(head) for head in heads]})

    found = store.read_json(path, "scores", "heads")
    total = sum(map(len, found["scores"]))
    print(f"{path}: {len(found['heads'])} of {total} heads ({len(found['heads']) / total:.2%}), highest score first:")
    for head in found["heads"]:
        print(f"  layer {head['layer']:2d} head {head['head']:2d}  {head['score']:+.4f}")
    if upstream:
        from thinksteer.localize import overlap_at_k

        chosen = [(head["layer"], head["head"]) for head in found["heads"]]
        k = min(len(chosen), len(upstream))
        print(f"  overlap with upstream's first {k}: {overlap_at_k(chosen, upstream, k):.0%}")


def rule_of(source: Path, about: Mapping[str, str]) -> Rule:
    """Which chains are short, as the direction's file says."""
    if "rule" not in about:
        raise InputError(f"{source} does not say which chains are short (imported?): make it with stage 2")
    try:
        return read_rule(about["rule"])
    except InputError as error:
        raise InputError(f"{source}: {error}, so it is of another method: make it with stage 2") from None


if __name__ == "__main__":
    cli.run(main)
