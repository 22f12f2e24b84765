"""ThinkEdit (arXiv 2503.22048): the direction from short to long thinking, and which responses are which."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from thinksteer.flags import positive_int, share
from thinksteer.lengths import Chain, Rule, choose_rule
from thinksteer.methods.method import Method, more_responses
from thinksteer.records import Passage, Reading, Record, Span
from thinksteer.thinking import Reader

WEIGHTS = tuple(round(0.01 * step, 2) for step in range(-8, 9))


def passages(records: Sequence[Record], rule: Rule, reader: Reader) -> list[Passage]:
    """The long and the short chains of thought, delimiters included. What was cut or never closed is left out."""
    closed = [record for record in records if record.status == "closed"]
    chains = [_chain(record, reader) for record in closed]
    return [
        Passage(record.id, chain.ids, (Span(label, chain.start, chain.end),), record.sample)
        for record, chain, label in zip(closed, chains, rule.labels(chains), strict=True)
        if label
    ]


def cure(records: Sequence[Record], rule: Rule, reader: Reader, enough: int) -> str:
    """Which thresholds or share would give so many long and short chains."""
    chains = [_chain(record, reader) for record in records if record.status == "closed"]
    if not chains:
        return more_responses(records, rule, reader, enough)
    return f"among {len(chains)} closed chains {rule.cure(chains, enough)}"


def _chain(record: Record, reader: Reader) -> Chain:
    ids, found = reader.read(record)
    assert found.start is not None and found.end is not None  # it is closed
    return Chain(ids, len(ids) - len(record.token_ids), found.start, found.end)


def rule(args: Namespace, own_quantile: float | None) -> Rule:
    """Which chains are long and which short: by the flags, else the model's own share, else the paper's thresholds."""
    return choose_rule(own_quantile, args.long_above, args.short_below, args.quantile, args.match)


def add_flags(parser: ArgumentParser) -> None:
    flags = parser.add_argument_group(
        "thinking_length: which chains are long and short (default: 1000 / 100, or the model's own)"
    )
    flags.add_argument("--long_above", type=positive_int, help="thinking tokens, exclusive")
    flags.add_argument("--short_below", type=positive_int, help="thinking tokens, exclusive")
    flags.add_argument("--quantile", type=share, help="instead: this share of the longest and of the shortest")
    flags.add_argument("--match", choices=["prompt_tokens"], help="with --quantile: among questions of like length")


# Read at the positions [start - 1, end - 1): from the token that predicts the opening delimiter, the prompt's last, to
# the one that predicts the last of the closing one (upstream's extract_thinking_length_direction_gsm8k_attn.py).
METHODS = tuple(
    Method(
        name=f"thinking_length_{part}",
        passages=passages,
        rule=rule,
        add_flags=add_flags,
        cure=cure,
        reading=Reading(read, shift=-1),
        terms={("long",): 1, ("short",): -1},
        sites=(added,),
        weights=WEIGHTS,
    )
    for part, read, added in (("attn", "mid", "attn_out"), ("mlp", "block_out", "mlp_out"))
)
