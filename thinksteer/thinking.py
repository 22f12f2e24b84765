"""Prompt templates with their thinking delimiters, and THE definition of thinking length and status.

Half-open positions count tokens in `prompt_ids + token_ids`. A delimiter may be several tokens long (s1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from thinksteer.records import Finish, InputError, Record, Status

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FORCED_QUESTION = "\n\nYeah, I think that's right.\n\n**Final Answer**\n"
"""What upstream ThinkEdit appends after closing the thinking of a response that spent its budget."""


@dataclass(frozen=True)
class Template:
    """How a model family is asked, and how it marks its thinking.

    The prompt is `before + question + instruction + after`; an instruction with "{question}" in it stands around it.
    `opened_in_prompt`: the opening delimiter is the end of the prompt, so the model never generates it. `bos`: the
    prompt begins with the tokenizer's BOS token (None: with that of a tokenizer that has one).
    """

    name: str
    before: str
    after: str
    open: str
    close: str
    opened_in_prompt: bool
    bos: bool | None = False

    def prompt(self, question: str, instruction: str = "") -> str:
        asked = instruction if "{question}" in instruction else "{question}" + instruction
        return f"{self.before}{asked.replace('{question}', question)}{self.after}"

    @property
    def forced_answer(self) -> str:
        """The text that ends unfinished thinking and asks for the answer (upstream ThinkEdit's, with our delimiter)."""
        return f"\n{self.close}{FORCED_QUESTION}"


_USER, _ASSISTANT = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
_S1_SYSTEM = "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"

TEMPLATES = {
    template.name: template
    for template in (
        # DeepSeek-R1 distillations, ThinkEdit models, the embedded model: upstream's prompt, full-width bars (U+FF5C).
        Template("deepseek", "<｜User｜>", "<｜Assistant｜>", "<think>", "</think>", opened_in_prompt=False, bos=True),
        Template("qwen3", _USER, _ASSISTANT, "<think>", "</think>", opened_in_prompt=False),
        # QwQ's own chat template ends the prompt with the opening delimiter.
        Template("qwq", _USER, _ASSISTANT + "<think>\n", "<think>", "</think>", opened_in_prompt=True),
        # The prompt of the s1 README; the model opens its thinking and its answer as if they were ChatML turns.
        Template(
            "s1",
            _S1_SYSTEM + _USER,
            _ASSISTANT,
            "<|im_start|>think",
            "<|im_start|>answer",
            opened_in_prompt=False,
        ),
        # Base models (Llama-3-8B, Huginn): the question alone. As it has no marks, no tokenizer tells it.
        Template("plain", "", "", "<think>", "</think>", opened_in_prompt=False, bos=None),
    )
}


@dataclass(frozen=True)
class Thinking:
    """What `read` found. `start`: the first token of the opening delimiter, None where the thinking never began;
    `end`: one past the last token of the closing one, None unless closed; `tokens` = end - start, None likewise."""

    status: Status
    tokens: int | None
    start: int | None
    end: int | None


def delimiters(template: Template, tokenizer: PreTrainedTokenizerBase) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The token ids of the opening and of the closing delimiter."""
    opening = tokenizer(template.open, add_special_tokens=False).input_ids
    closing = tokenizer(template.close, add_special_tokens=False).input_ids
    return tuple(opening), tuple(closing)


def prompt_ids(template: Template, tokenizer: PreTrainedTokenizerBase, prompt: str) -> tuple[int, ...]:
    """The ids a model reads for a prompt, with exactly one BOS where the template wants one.

    Which tokenizers add it by themselves changes with versions of transformers (5 loads the DeepSeek distillations of
    Qwen without), and upstream re-tokenised text that still contained it, so that it was fed twice.
    """
    ids = tuple(tokenizer(prompt, add_special_tokens=False).input_ids)
    bos = tokenizer.bos_token_id
    if bos is None and template.bos:
        raise InputError(f"the prompt of template {template.name} begins with BOS, but the tokenizer has no such token")
    return ids if bos is None or template.bos is False or ids[:1] == (bos,) else (bos, *ids)


def read(
    prompt_ids: Sequence[int],
    token_ids: Sequence[int],
    open_ids: Sequence[int],
    close_ids: Sequence[int],
    opened_in_prompt: bool,
    max_tokens: int,
    finish: Finish,
) -> Thinking:
    """Where the thinking is in a response, how long it is, and how it ended.

    - It begins at the prompt's last opening delimiter if `opened_in_prompt`, else at the first one that was generated
      (a delimiter quoted in the question does not count). Later openings are part of the text they stand in.
    - It ends at the first whole closing delimiter after that. One before the opening closes nothing.
    - Only the first `max_tokens` generated tokens count: what a forced answer appended later closes nothing.
    - `closed`: begun and ended. `no_think`: never begun, whatever else was generated (upstream's steering scripts count
      a closing delimiter without an opening one from the response's start; its probing scripts, as here, do not).
      Begun and not ended: `capped` if the token limit cut it, `eos_open` if the model stopped by itself.
    """
    offset = len(prompt_ids)
    ids = [*prompt_ids, *token_ids[:max_tokens]]
    start = _rfind(ids[:offset], open_ids) if opened_in_prompt else _find(ids, open_ids, offset)
    if start is None:
        return Thinking("no_think", None, None, None)
    close = _find(ids, close_ids, max(offset, start + len(open_ids)))
    if close is None:
        return Thinking("eos_open" if finish == "stop" else "capped", None, start, None)
    end = close + len(close_ids)
    return Thinking("closed", end - start, start, end)


@dataclass(frozen=True)
class Reader:
    """How a model's prompts and responses are read as tokens.

    `encode` gives a prompt's ids as the model reads them, BOS included; `decode` the text of tokens; `vocabulary` the
    text of each token by itself, by id.
    """

    encode: Callable[[str], tuple[int, ...]]
    decode: Callable[[Sequence[int]], str]
    vocabulary: Callable[[], Sequence[str]]
    open_ids: tuple[int, ...]
    close_ids: tuple[int, ...]
    opened_in_prompt: bool

    @classmethod
    def of(cls, template: Template, tokenizer: PreTrainedTokenizerBase) -> Reader:
        return cls(
            partial(prompt_ids, template, tokenizer),
            partial(tokenizer.decode, skip_special_tokens=False, clean_up_tokenization_spaces=False),
            lambda: tokenizer.batch_decode([[token] for token in range(len(tokenizer))]),
            *delimiters(template, tokenizer),
            template.opened_in_prompt,
        )

    def read(self, record: Record) -> tuple[tuple[int, ...], Thinking]:
        """The ids of a record's prompt and response, and where its thinking is in them.

        InputError: the record has no tokens, or reads otherwise than it was recorded.
        """
        name = f"{record.id} sample {record.sample}"
        if not record.token_ids:
            raise InputError(f"{name} has text but no token ids (imported?): directions need responses generated here")
        prompt, generated = self.encode(record.prompt), len(record.token_ids)
        drawn = generated if record.forced_at is None else record.forced_at
        marks = self.open_ids, self.close_ids, self.opened_in_prompt
        found = read(prompt, record.token_ids, *marks, drawn, record.finish_reason)
        if found.status != record.status or found.tokens != record.thinking_tokens:
            raise InputError(
                f"{name} was recorded as {record.status} with {record.thinking_tokens} thinking tokens, but reads as "
                f"{found.status} with {found.tokens}: the responses come from another model or template"
            )
        return prompt + record.token_ids, found

    def inside(self, record: Record) -> tuple[tuple[int, ...], range]:
        """The ids of prompt and response, and the positions between the thinking's delimiters; of a chain that was
        never closed, those up to where it was cut or ended."""
        ids, found = self.read(record)
        if found.start is None:
            return ids, range(0)
        last = len(ids) if record.forced_at is None else len(ids) - len(record.token_ids) + record.forced_at
        end = last if found.end is None else found.end - len(self.close_ids)
        return ids, range(found.start + len(self.open_ids), end)

    def tokens_with(self, parts: Sequence[str]) -> frozenset[int]:
        """Every token of the vocabulary whose text contains one of these, whatever the case."""
        wanted = [part.lower() for part in parts]
        return frozenset(
            token for token, text in enumerate(self.vocabulary()) if any(part in text.lower() for part in wanted)
        )


class Follower:
    """Where the thinking is in a sequence that is still growing, at each position from the tokens up to it.

    As `read` has it, but causal: the tokens of a closing delimiter are inside until it is complete, and one that was
    appended to force an answer closes as well.
    """

    def __init__(
        self, prompt_length: int, open_ids: Sequence[int], close_ids: Sequence[int], opened_in_prompt: bool
    ) -> None:
        self.prompt_length, self.opened_in_prompt = prompt_length, opened_in_prompt
        self.open_ids, self.close_ids = list(open_ids), list(close_ids)
        self._start: int | None = None
        self._end: int | None = None
        self._seen = 0

    def inside(self, ids: Sequence[int], length: int) -> range:
        """The positions inside the thinking, of the first `length` of `ids`. Calls with the same, growing, sequence."""
        if self._seen == 0 and self.opened_in_prompt:
            opening = _rfind(ids[: self.prompt_length], self.open_ids)
            self._start = None if opening is None else opening + len(self.open_ids)
        for place in range(max(self._seen, self.prompt_length), length):
            if self._start is None:
                if self._ends(ids, place, self.open_ids, self.prompt_length):
                    self._start = place + 1
            elif self._end is None and self._ends(ids, place, self.close_ids, max(self.prompt_length, self._start)):
                self._end = place
        self._seen = max(self._seen, length)
        return range(0) if self._start is None else range(self._start, length if self._end is None else self._end)

    @staticmethod
    def _ends(ids: Sequence[int], place: int, part: list[int], begin: int) -> bool:
        """Whether `part`, lying in `ids` from `begin` on, ends at `place`."""
        first = place + 1 - len(part)
        return ids[place] == part[-1] and first >= begin and list(ids[first : place + 1]) == part


def _find(ids: Sequence[int], part: Sequence[int], begin: int) -> int | None:
    """The first place from `begin` on where `part` stands in `ids` as a whole."""
    part = list(part)
    return next((i for i in range(begin, len(ids) - len(part) + 1) if ids[i : i + len(part)] == part), None)


def _rfind(ids: Sequence[int], part: Sequence[int]) -> int | None:
    ids, part = list(ids), list(part)
    return next((i for i in range(len(ids) - len(part), -1, -1) if ids[i : i + len(part)] == part), None)
