"""Contrastive data: pairs of prompts that ask for opposite things, continued alike (repeng's, for models that think).

A set of pairs is `frames` with a gap, {}, and `fillings`: two texts each, the first of which the vector leads to. They
are the user's words alone. What surrounds them, the marks of turns and of thinking, comes from the model's own
`Template`; where a text holds a mark of thinking, such as the empty `<think></think>` that Qwen3's chat template puts
into what it renders, it is refused: the model would take its thinking for done.

Both prompts of a pair go on with the same tokens, the beginning of a suffix, so that all that can differ at the last of
them is what was asked. Suffixes of reasoning stand inside the thinking and ordinary sentences outside, unless the
prompt itself ends with the opening delimiter (vgel/repeng#69 opens the thinking before reasoning suffixes alone, too).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from thinksteer import arithmetic
from thinksteer.activations import GPU_BATCH_TOKENS, pack
from thinksteer.cpu import fitting_batch
from thinksteer.files import read_json
from thinksteer.layout import layout_of, output_head
from thinksteer.records import InputError, Passage, Record, Span
from thinksteer.thinking import Reader, Template

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_SETS = json.loads(Path(__file__).with_name("contrast_sets.json").read_text(encoding="utf-8"))
EFFORT = "effort"
PAIRS = (*_SETS["pairs"], EFFORT)
OWN = "own"
SUFFIXES = (*_SETS["suffixes"], OWN)
GAP = "{}"

EFFORT_FRAMES = 100
OWN_TOKENS = 32  # of the thinking of each own response
HELD_OUT = 5  # every so manyth suffix is kept from the vector, and every so manyth pair of prompts if there are as many

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Suffix:
    """What follows a prompt; its beginnings of `shortest` tokens and more are used."""

    ids: Ids
    shortest: int


@dataclass(frozen=True)
class Pair:
    """Two prompts as the model reads them, BOS included, and the tokens that follow both."""

    positive: Ids
    negative: Ids
    suffix: Ids


def texts(name: str) -> list[tuple[str, str]]:
    """The pairs of questions of one of `PAIRS`, the one that the vector leads to first."""
    return _fill(_effort() if name == EFFORT else _SETS["pairs"][name])


def read_texts(path: Path) -> list[tuple[str, str]]:
    """Those of a user's JSON file, {"frames": [...], "fillings": [[positive, negative], ...]}; without frames, fillings
    are whole questions. InputError naming what is wrong with it."""
    found = read_json(path)
    if not isinstance(found, dict) or not found.get("fillings") or found.keys() - {"frames", "fillings"}:
        raise InputError(f'{path}: give {{"fillings": [[positive, negative], ...]}} and, optionally, "frames"')
    found = {"frames": [GAP]} | found
    for key, what, fits in (
        ("frames", f"a text with {GAP} in it", lambda one: isinstance(one, str) and GAP in one),
        ("fillings", "two different texts, [positive, negative]", _two_texts),
    ):
        if not isinstance(found[key], list) or not found[key]:
            raise InputError(f"{path}: {key!r} is no list with something in it")
        for number, one in enumerate(found[key], start=1):
            if not fits(one):
                raise InputError(f"{path}: number {number} of {key!r} is not {what}: {json.dumps(one)[:80]}")
    return _fill(found)


def prompts(pairs: Iterable[tuple[str, str]], template: Template, reader: Reader) -> list[tuple[Ids, Ids]]:
    """The ids of both prompts of each pair. InputError: a question has a mark of thinking, or the prompt closes it."""
    if template.open and template.prompt("?").rstrip().endswith(template.close):
        raise InputError(
            f"the prompt ends with {template.close}, so that the model takes its thinking for done: give other "
            "--chat_template_kwargs"
        )
    return [
        (
            reader.encode(template.prompt(plain(first, template))),
            reader.encode(template.prompt(plain(second, template))),
        )
        for first, second in pairs
    ]


def written_suffixes(name: str, template: Template, tokenise: Callable[[str], Sequence[int]]) -> list[Suffix]:
    """Our own suffixes of that name; the first token or more follows what opens the thinking, if that is opened here.

    `tokenise` gives a text's tokens without special ones around them.
    """
    opened = name == "reasoning" and template.open and not template.opened_in(template.prompt("?"))
    opening = tuple(tokenise(f"{template.open}\n")) if opened else ()
    found = [opening + tuple(tokenise(plain(text, template))) for text in _SETS["suffixes"][name]]
    return [Suffix(ids, len(opening) + 1) for ids in found]


def own_suffixes(records: Sequence[Record], reader: Reader) -> list[Suffix]:
    """Beginnings of a model's own thinking, `OWN_TOKENS` at most, as it opened it; of its response where it never did.

    One response to each question. Nothing reaches beyond the thinking: an empty one gives no suffix.
    """
    first: dict[str, Record] = {}
    for record in sorted(records, key=lambda record: (record.id, record.sample)):
        first.setdefault(record.id, record)
    found = []
    for record in first.values():
        ids, inside = reader.inside(record)
        prompt = len(ids) - len(record.token_ids)
        if record.status == "no_think":
            inside = range(prompt, len(ids) - 1)  # without the end of text
        inside = range(max(inside.start, prompt), inside.stop)[:OWN_TOKENS]
        if reader.decode(ids[inside.start : inside.stop]).strip():
            found.append(Suffix(ids[prompt : inside.stop], inside.start - prompt + 1))
    if not found:
        raise InputError(
            f"none of {len(records)} responses has thinking to take beginnings from: give other --suffixes"
        )
    return found


def plain(text: str, template: Template) -> str:
    """The text as it is. InputError if it holds a mark of the template's thinking."""
    for mark in (template.open, template.close):
        if mark and mark in text:
            raise InputError(
                f"{text[:60]!r} holds {mark}: leave out thinking blocks, the template opens the thinking itself"
            )
    return text


def draw(
    prompts: Sequence[tuple[Ids, Ids]], suffixes: Sequence[Sequence[Suffix]], count: int | None, seed: int
) -> list[Pair]:
    """`count` pairs, or all (None): each kind of suffixes gives as many, any beginning of any suffix equally likely and
    none twice (all that there are, if these are fewer); pairs of prompts take turns."""
    rng, chosen = Random(seed), []
    for kind in suffixes:
        beginnings = [one.ids[:stop] for one in kind for stop in range(one.shortest, len(one.ids) + 1)]
        beginnings = list(dict.fromkeys(beginnings))
        wanted = len(beginnings) if count is None else max(1, count // len(suffixes))
        chosen += rng.sample(beginnings, min(wanted, len(beginnings)))
    rng.shuffle(chosen)
    turns = rng.sample(prompts, len(prompts))
    return [Pair(*turns[index % len(turns)], suffix) for index, suffix in enumerate(chosen)]


def split(
    prompts: Sequence[tuple[Ids, Ids]], suffixes: Sequence[Sequence[Suffix]]
) -> tuple[tuple[list, list], tuple[list, list]]:
    """(prompts, suffixes) to make a vector of, and those held out: no suffix is in both, and of `HELD_OUT` pairs of
    prompts and more no prompt."""
    few = len(prompts) < HELD_OUT
    asked = [one for index, one in enumerate(prompts) if few or (index + 1) % HELD_OUT]
    other = list(prompts) if few else list(prompts[HELD_OUT - 1 :: HELD_OUT])
    kept = [[one for index, one in enumerate(kind) if (index + 1) % HELD_OUT] for kind in suffixes]
    return (asked, kept), (other, [list(kind[HELD_OUT - 1 :: HELD_OUT]) for kind in suffixes])


def passages(pairs: Sequence[Pair]) -> list[Passage]:
    """Both sides of each pair, "positive" first, each with a span of its last token."""
    found = []
    for index, pair in enumerate(pairs):
        for label, prompt in (("positive", pair.positive), ("negative", pair.negative)):
            ids = prompt + pair.suffix
            found.append(Passage(f"pair {index}", ids, (Span(label, len(ids) - 1, len(ids)),)))
    return found


def suffix_log_probs(model: PreTrainedModel, pairs: Sequence[Pair], max_batch_tokens: int | None) -> Tensor:
    """The natural-log probability of each pair's suffix, mean over its tokens and over both prompts: `[N]`, float64.

    Upstream (wassname's fork of repeng) takes the mean over the prompt's tokens as well.
    """
    numbered = [replace(one, id=str(index)) for index, one in enumerate(passages(pairs))]
    found, seen = torch.empty(len(numbered), dtype=torch.float64), []
    head, device = output_head(model), model.get_input_embeddings().weight.device
    with ExitStack() as hooks, torch.inference_mode(), tqdm(total=len(numbered), unit="passage") as progress:
        hooks.callback(layout_of(model).final.watch(seen.append).remove)
        for batch in pack(numbered, max_batch_tokens or fitting_batch(model, GPU_BATCH_TOKENS)):
            ids = pad_sequence([torch.tensor(one.ids) for one in batch], batch_first=True).to(device)
            model.base_model(input_ids=ids, use_cache=False)
            for row, hidden in enumerate(seen.pop()):
                end, index = len(batch[row].ids), int(batch[row].id)
                start = end - len(pairs[index // 2].suffix)
                log_probs = head(hidden[start - 1 : end - 1]).double().log_softmax(dim=-1)  # [suffix, V]
                found[index] = log_probs.gather(1, ids[row, start:end, None]).mean()
            progress.update(len(batch))
    return found.view(-1, 2).mean(dim=1)


def _effort() -> dict[str, list[Any]]:
    """Arithmetic about things that the embedded model works out or skips, never one of its test questions."""
    items = sorted(arithmetic.EFFORT, key=arithmetic.EFFORT.__getitem__)
    fillings = list(zip(items[:-4:-1], items[:3], strict=True))
    rng, frames = Random(EFFORT), []
    while len(frames) < EFFORT_FRAMES:
        frame = replace(arithmetic.sample_chain(rng), item=GAP).question
        if not any(arithmetic.is_test(frame.replace(GAP, item)) for pair in fillings for item in pair):
            frames.append(frame)
    return {"frames": frames, "fillings": fillings}


def _fill(found: dict[str, list[Any]]) -> list[tuple[str, str]]:
    return [
        (frame.replace(GAP, positive), frame.replace(GAP, negative))
        for frame in found["frames"]
        for positive, negative in found["fillings"]
    ]


def _two_texts(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(isinstance(one, str) and one.strip() for one in value)
        and value[0] != value[1]
    )
