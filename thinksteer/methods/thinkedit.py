"""ThinkEdit (arXiv 2503.22048): the direction from short to long thinking, and which responses are which."""

from collections import Counter
from collections.abc import Callable, Sequence

from thinksteer import thinking
from thinksteer.lengths import Chain, Rule
from thinksteer.records import InputError, Passage, Record, Span


def passages(
    records: Sequence[Record],
    rule: Rule,
    encode: Callable[[str], tuple[int, ...]],
    open_ids: tuple[int, ...],
    close_ids: tuple[int, ...],
    opened_in_prompt: bool,
    min_examples: int = 10,
) -> list[Passage]:
    """The long and the short chains of thought, each with one span: the positions that predict its thinking tokens.

    The span is [start - 1, end - 1) where the thinking, delimiters included, is [start, end): from the token that
    predicts the opening delimiter, the prompt's last, to the one that predicts the last token of the closing one (as in
    upstream's extract_thinking_length_direction_gsm8k_attn.py). Chains that were cut or never closed are left out.
    `encode` gives a prompt's ids as the model read them, beginning-of-sequence token included.
    """
    chains = [
        _chain(record, encode(record.prompt), open_ids, close_ids, opened_in_prompt)
        for record in records
        if record.status == "closed"
    ]
    labels = rule.labels(chains)
    counts = Counter(label for label in labels if label)
    if min(counts["long"], counts["short"]) < min_examples:
        raise InputError(
            f"{rule} finds {counts['long']} long and {counts['short']} short among {len(chains)} closed chains of "
            f"thought, at least {min_examples} of each are needed: {rule.cure(chains, min_examples)}"
        )
    return [
        Passage(chain.id, chain.ids, (Span(label, chain.start - 1, chain.end - 1),))
        for chain, label in zip(chains, labels, strict=True)
        if label
    ]


def _chain(
    record: Record,
    prompt_ids: tuple[int, ...],
    open_ids: tuple[int, ...],
    close_ids: tuple[int, ...],
    opened_in_prompt: bool,
) -> Chain:
    name = f"{record.id} sample {record.sample}"
    if not record.token_ids:
        raise InputError(f"{name} has text but no token ids (imported?): directions need responses generated here")
    found = thinking.read(
        prompt_ids,
        record.token_ids,
        open_ids,
        close_ids,
        opened_in_prompt,
        len(record.token_ids),
        record.finish_reason,
    )
    if found.status != "closed" or found.tokens != record.thinking_tokens:
        raise InputError(
            f"{name} was recorded with {record.thinking_tokens} thinking tokens, but reads as {found.status} with "
            f"{found.tokens}: the responses come from another model or template"
        )
    return Chain(name, prompt_ids + record.token_ids, len(prompt_ids), found.start, found.end)
