"""How models are prompted, how they mark their thinking, and THE definition of thinking length and status.

Delimiters are text. They are looked for in the text of the tokens, and their positions are those of the tokens that
hold them: a delimiter may be a special token, several tokens, or share its last token with the newline after it.
Half-open positions count tokens in `prompt_ids + token_ids`.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Literal, Self

from thinksteer.records import Finish, InputError, Record, Status

if TYPE_CHECKING:
    from argparse import Namespace

    from transformers import PreTrainedTokenizerBase

FORCED_QUESTION = "\n\nYeah, I think that's right.\n\n**Final Answer**\n"
"""What upstream ThinkEdit appends after closing the thinking of a response that spent its budget."""
NAME_THE_MARKS = (
    "name the model's delimiters by --think_open and --think_close, or, of a model that reasons without any, generate "
    "and read with --thinking response"
)
"""What to do about a model none of whose responses thinks."""
CHAT = "chat"  # the template that is the tokenizer's own
PASS_FLAGS = "pass the --template, --thinking, --think_open and --think_close that the responses were generated with"


@dataclass(frozen=True)
class Template:
    """How a model is prompted, and how it marks its thinking.

    The prompt is `before + question + instruction + after`, or what `render` makes of question and instruction; an
    instruction with "{question}" in it stands around the question. `bos`: the prompt begins with the tokenizer's BOS
    token (None: with that of a tokenizer that has one). Without marks (`open` is empty) the thinking is the response up
    to its answer, see `read`. `settings` say what `render` depends on, for the run manifest.
    """

    name: str
    before: str = ""
    after: str = ""
    open: str = "<think>"
    close: str = "</think>"
    bos: bool | None = False
    render: Callable[[str], str] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def prompt(self, question: str, instruction: str = "") -> str:
        asked = instruction if "{question}" in instruction else "{question}" + instruction
        asked = asked.replace("{question}", question)
        return self.render(asked) if self.render else f"{self.before}{asked}{self.after}"

    def opened_in(self, prompt: str) -> bool:
        """Whether a prompt ends with the opening delimiter, white space aside, so that the model never generates it."""
        return bool(self.open) and prompt.rstrip().endswith(self.open)

    @property
    def closing(self) -> str:
        """The text that ends open thinking."""
        return f"\n{self.close}" if self.open else ""

    @property
    def forced_answer(self) -> str:
        """The text that ends unfinished thinking and asks for the answer (upstream ThinkEdit's, with our delimiter)."""
        return self.closing + FORCED_QUESTION

    def after_thinking(self, text: str, status: Status) -> str:
        """The part of a response that follows its thinking; all of it where it has none, or no marks of it."""
        if not self.open or status == "no_think" or (status == "empty" and self.close not in text):
            return text
        return text.partition(self.close)[2]

    def described(self) -> str:
        """One line for a person: how prompts are made and where thinking is looked for."""
        how = "the tokenizer's chat template" if self.render else f"the template {self.name}"
        more = "".join(f", {name} {value!r}" for name, value in self.settings.items() if value)
        where = (
            f"thinking between {self.open} and {self.close}"
            if self.open
            else "the response up to its answer is the thinking"
        )
        return f"prompts from {how}{more}; {where}"


_USER, _ASSISTANT = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
_S1_SYSTEM = "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"

TEMPLATES = {
    template.name: template
    for template in (
        # DeepSeek-R1 distillations, ThinkEdit models, the toy model: upstream's prompt, full-width bars (U+FF5C).
        Template("deepseek", "<｜User｜>", "<｜Assistant｜>", bos=True),
        # The same as the distillations' newer chat template has it, which opens the thinking.
        Template("deepseek-think", "<｜User｜>", "<｜Assistant｜><think>\n", bos=True),
        Template("qwen3", _USER, _ASSISTANT),
        # QwQ's own chat template ends the prompt with the opening delimiter.
        Template("qwq", _USER, _ASSISTANT + "<think>\n"),
        # The prompt of the s1 README; the model opens its thinking and its answer as if they were ChatML turns.
        Template("s1", _S1_SYSTEM + _USER, _ASSISTANT, "<|im_start|>think", "<|im_start|>answer"),
        # Base models (Llama-3-8B, Huginn): the question alone.
        Template("plain", bos=None),
    )
}


@dataclass(frozen=True)
class Prompting:
    """What the flags say of a model's prompt and of its thinking's marks; None: as its template has it."""

    template: str | None = None
    system: str | None = None
    chat_template_kwargs: Mapping[str, Any] | None = None
    thinking: Literal["marks", "response"] = "marks"
    think_open: str | None = None
    think_close: str | None = None

    def __post_init__(self) -> None:
        if self.template not in (None, CHAT, *TEMPLATES):
            raise InputError(f'unknown template "{self.template}": known are {", ".join((CHAT, *TEMPLATES))}')
        if self.thinking == "response" and (self.think_open or self.think_close):
            raise InputError("--thinking response has no marks: leave out --think_open and --think_close")
        if "" in (self.think_open, self.think_close):
            raise InputError(
                "--think_open and --think_close take text, not nothing; without marks: --thinking response"
            )

    @classmethod
    def of(cls, flags: Namespace) -> Self:
        return cls(**{one.name: getattr(flags, one.name, one.default) for one in fields(cls)})

    def apply(self, default: str, tokenizer: Callable[[], PreTrainedTokenizerBase]) -> Template:
        """The template to use: the one that is asked for, else `default`. `tokenizer` loads the model's, for `chat`."""
        name = self.template or default
        if name == CHAT:
            said = {"system": self.system, "chat_template_kwargs": dict(self.chat_template_kwargs or {})}
            template = Template(CHAT, render=partial(_render, tokenizer, **said), settings=said)
        elif self.system or self.chat_template_kwargs:
            raise InputError(f"--system and --chat_template_kwargs go with --template chat, not with {name}")
        else:
            template = TEMPLATES[name]
        marks = {"open": self.think_open or template.open, "close": self.think_close or template.close}
        if self.thinking == "response":
            # Nothing closes the thinking but the text that forces an answer.
            marks = {"open": "", "close": FORCED_QUESTION}
        return replace(template, **marks)


def _render(
    tokenizer: Callable[[], PreTrainedTokenizerBase],
    asked: str,
    system: str | None,
    chat_template_kwargs: Mapping[str, Any],
) -> str:
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": asked})
    loaded = tokenizer()
    if not loaded.chat_template:
        known = ", ".join(TEMPLATES)
        raise InputError(
            f"{loaded.name_or_path} has no chat template: give --template, one of {known} (plain: base models)"
        )
    try:
        return loaded.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **chat_template_kwargs)
    except Exception as error:  # it is a program, in the library's sandbox, and may end in anything
        what = " ".join(str(error).split())
        raise InputError(
            f"the chat template of {loaded.name_or_path} fails ({what}): give another --template"
        ) from None


class TokenBytes(dict[int, bytes]):
    """The UTF-8 text of each token, by id: those of consecutive tokens, joined, are the decoded text, special tokens
    included. An id that the tokenizer does not have stands for no text.

    Bytes, as a token may hold a part of a character.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__()
        self._tokenizer, self._size = tokenizer, len(tokenizer)  # which is slow to tell
        self._added = {id: str(token).encode() for id, token in tokenizer.added_tokens_decoder.items()}

    def __missing__(self, token: int) -> bytes:
        found = self[token] = self._bytes(int(token))
        return found

    def table(self) -> list[bytes]:
        """That of every token of the vocabulary."""
        return [self[token] for token in range(self._size)]

    def _bytes(self, token: int) -> bytes:
        if token in self._added:
            return self._added[token]
        if not 0 <= token < self._size:
            return b""
        written = self._tokenizer.convert_ids_to_tokens(token)
        if written is None:
            return b""
        if self._byte_level:
            return bytes(_BYTE_OF[letter] for letter in written)
        if match := re.fullmatch(r"<0x([0-9A-F]{2})>", written):  # a byte that SentencePiece has no piece for
            return bytes([int(match[1], 16)])
        # Alone, or at a text's beginning, a token may lose its leading space.
        anchor, text = self._anchor
        return self._decode([*anchor, token])[len(text) :].encode()

    @cached_property
    def _byte_level(self) -> bool:
        core = getattr(self._tokenizer, "backend_tokenizer", None)
        return core is not None and core.decoder is not None and b'"ByteLevel"' in core.decoder.__getstate__()

    @cached_property
    def _anchor(self) -> tuple[list[int], str]:
        ids = self._tokenizer("a", add_special_tokens=False).input_ids
        return ids, self._decode(ids)

    def _decode(self, ids: Sequence[int]) -> str:
        return decode(self._tokenizer, ids)


def _byte_level_letters() -> dict[str, int]:
    """How byte-level tokenizers write bytes: printable ones as themselves, the others as letters from U+0100 on."""
    own = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in own]
    return {chr(byte): byte for byte in own} | {chr(256 + place): byte for place, byte in enumerate(others)}


_BYTE_OF = _byte_level_letters()


def decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """The text of tokens as they are: delimiters may be special tokens, and no spaces are tidied away."""
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


@dataclass(frozen=True, eq=False)
class Marks:
    """The delimiters of thinking, as UTF-8, and the text of each token (`TokenBytes`). No opening one: see `read`."""

    open: bytes
    close: bytes
    token_bytes: Mapping[int, bytes]

    @classmethod
    def of(cls, template: Template, tokenizer: PreTrainedTokenizerBase) -> Self:
        return cls(template.open.encode(), template.close.encode(), TokenBytes(tokenizer))


@dataclass(frozen=True)
class Thinking:
    """Where the thinking is. `start`: the first token that holds the opening delimiter (None: it never began),
    `opened`: the first one after it; `closed`: the first token that holds the closing delimiter, `end`: the first one
    after it (both None: it was not closed). Tokens that a delimiter shares with other text belong to the delimiter."""

    status: Status
    start: int | None = None
    opened: int | None = None
    closed: int | None = None
    end: int | None = None

    @property
    def tokens(self) -> int | None:
        """The length of thinking: its tokens with both delimiters; None unless it is closed and not empty."""
        return self.end - self.start if self.status == "closed" else None


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


class Follower:
    """Where the thinking is in a sequence that is still growing, at each position from the tokens up to it.

    As `read` has it, but causal: the tokens of a closing delimiter are inside until it is complete, and one that was
    appended to force an answer closes as well.
    """

    def __init__(self, prompt_length: int, marks: Marks) -> None:
        self.prompt_length, self.marks = prompt_length, marks
        self.start = self.opened = self.closed = self.end = None
        self._seen: int | None = None
        self._text = b""  # the end of the response's text, in which a delimiter may have begun
        self._places: tuple[int, ...] = ()  # the position of the token that each byte of it belongs to

    def inside(self, ids: Sequence[int], length: int) -> range:
        """The positions inside the thinking, of the first `length` of `ids`. Calls with the same, growing, sequence."""
        if self._seen is None:
            self._read_prompt(ids[: self.prompt_length])
            self._seen = self.prompt_length
        for place in range(self._seen, length):
            if self.end is not None:
                break
            self._feed(place, self.marks.token_bytes[int(ids[place])])
        self._seen = max(self._seen, length)
        if self.opened is None or (self.end is not None and self.end <= self.prompt_length):
            return range(0)
        return range(self.opened, length if self.end is None else self.end - 1)

    def _read_prompt(self, ids: Sequence[int]) -> None:
        marks = self.marks
        if not marks.open:
            self.start = self.opened = self.prompt_length
            return
        parts = [marks.token_bytes[int(token)] for token in ids]
        text, edges = b"".join(parts).rstrip(), list(accumulate(map(len, parts)))
        closed = text.endswith(marks.close)
        opening = text.rfind(marks.open) if closed or text.endswith(marks.open) else -1
        if opening < 0:
            return
        self.start = bisect_right(edges, opening)
        self.opened = bisect_right(edges, opening + len(marks.open) - 1) + 1
        if closed:
            self.closed = bisect_right(edges, len(text) - len(marks.close))
            self.end = bisect_right(edges, len(text) - 1) + 1

    def _feed(self, place: int, piece: bytes) -> None:
        self._text += piece
        self._places += (place,) * len(piece)
        while self.end is None:
            mark = self.marks.open if self.opened is None else self.marks.close
            at = self._text.find(mark)
            if at < 0:
                self._skip(max(0, len(self._text) - len(mark) + 1))
                return
            if self.opened is None:
                self.start, self.opened = self._places[at], place + 1
            else:
                self.closed, self.end = self._places[at], place + 1
            self._skip(at + len(mark))

    def _skip(self, count: int) -> None:
        self._text, self._places = self._text[count:], self._places[count:]


class Finder:
    """The positions of a growing sequence at which an occurrence of a text is complete; occurrences do not overlap."""

    def __init__(self, text: str, token_bytes: Mapping[int, bytes]) -> None:
        self.text, self.token_bytes = text.encode(), token_bytes
        self.places: set[int] = set()
        self._begun, self._seen = b"", 0

    def __copy__(self) -> Finder:
        other = Finder.__new__(Finder)
        other.__dict__ |= self.__dict__ | {"places": self.places.copy()}
        return other

    def upto(self, ids: Sequence[int], length: int) -> set[int]:
        """Those among the first `length` of `ids`. Calls with the same, growing, sequence."""
        for place in range(self._seen, length):
            *found, rest = (self._begun + self.token_bytes[int(ids[place])]).split(self.text)
            if found:
                self.places.add(place)
            self._begun = rest[max(0, len(rest) - len(self.text) + 1) :]
        self._seen = max(self._seen, length)
        return self.places


def read(
    prompt_ids: Sequence[int], token_ids: Sequence[int], marks: Marks, max_tokens: int, finish: Finish
) -> Thinking:
    """Where the thinking is in a response, how long it is, and how it ended.

    - It begins with the opening delimiter at the prompt's very end, white space aside, if there is one, else with the
      first that was generated (one quoted in the question does not count). Later ones are part of the text.
    - It ends at the first whole closing delimiter after that. One before the opening closes nothing.
    - Only the first `max_tokens` generated tokens count: what a forced answer appended later closes nothing.
    - `closed`: begun and ended. `empty`: so, with nothing but white space between, or already ended in the prompt.
      `no_think`: never begun, whatever else was generated (upstream's steering scripts count a closing delimiter
      without an opening one from the response's start; its probing scripts, as here, do not).
      Begun and not ended: `capped` if the token limit cut it, `eos_open` if the model stopped by itself.

    Without an opening delimiter in `marks`, for models that reason without any, the thinking is the response up to the
    last sentence that states an answer (a box, "#### 7", "answer is"), or to its end: then it is `capped` if the token
    limit cut it, and `empty` if nothing comes before the answer.
    """
    drawn = token_ids[:max_tokens]
    if not marks.open:
        return _up_to_the_answer(len(prompt_ids), drawn, marks, finish)
    ids, follower = [*prompt_ids, *drawn], Follower(len(prompt_ids), marks)
    follower.inside(ids, len(ids))
    if follower.start is None:
        return Thinking("no_think")
    if follower.end is None:
        return Thinking("eos_open" if finish == "stop" else "capped", follower.start, follower.opened)
    text = b"".join(marks.token_bytes[token] for token in ids[follower.start : follower.end])
    between = text[text.find(marks.open) + len(marks.open) : text.rfind(marks.close)]
    status = "empty" if not between.strip() or follower.end <= len(prompt_ids) else "closed"
    return Thinking(status, follower.start, follower.opened, follower.closed, follower.end)


def _up_to_the_answer(prompt_length: int, drawn: Sequence[int], marks: Marks, finish: Finish) -> Thinking:
    ended = finish == "stop" and len(drawn) > 0
    parts = [marks.token_bytes[token] for token in drawn[: len(drawn) - ended]]  # the EOS is no text
    text = b"".join(parts)
    answer = answer_begin(text)
    if answer is None and finish != "stop":
        return Thinking("capped", prompt_length, prompt_length)
    end = prompt_length + (len(parts) if answer is None else bisect_right(list(accumulate(map(len, parts))), answer))
    status = "closed" if text[:answer].strip() and end > prompt_length else "empty"
    return Thinking(status, prompt_length, prompt_length, end, end)


# A heading such as "#### Step 2" is no answer in GSM8K's form.
_ANSWER = re.compile(
    rb"\\boxed|\\fbox|^[ \t]*####[ \t]*[-$]*[\d.,/ ]*\d[^\w\n]*$"
    rb"|\banswer(?:\s+to\s[^.\n]{1,80})?\s+is\b|\banswer[*_]*\s*:",
    re.MULTILINE | re.IGNORECASE,
)
# A formula on lines of its own belongs to the sentence before it.
_SENTENCE_END = re.compile(rb"(?<=[.!?])\s+|(?<![:\n])(?<!\\\[)(?<!\$\$)\n+")


def answer_begin(text: bytes) -> int | None:
    """Where the last sentence begins that states an answer: in a box, behind "####" on a line of its own, or after the
    words "answer is" or "answer:". None: there is none."""
    stated = [*_ANSWER.finditer(text)]
    if not stated:
        return None
    ends = [*_SENTENCE_END.finditer(text, 0, stated[-1].start())]
    return ends[-1].end() if ends else 0


@dataclass(frozen=True)
class Reader:
    """How a model's prompts and responses are read as tokens.

    `encode` gives a prompt's ids as the model reads them, BOS included; `decode` the text of tokens; `vocabulary` the
    text of each token by itself, by id.
    """

    encode: Callable[[str], tuple[int, ...]]
    decode: Callable[[Sequence[int]], str]
    vocabulary: Callable[[], Sequence[str]]
    marks: Marks

    @classmethod
    def of(cls, template: Template, tokenizer: PreTrainedTokenizerBase) -> Reader:
        return cls(
            partial(prompt_ids, template, tokenizer),
            partial(decode, tokenizer),
            lambda: tokenizer.batch_decode([[token] for token in range(len(tokenizer))]),
            Marks.of(template, tokenizer),
        )

    def prompt(self, record: Record) -> tuple[int, ...]:
        """The ids that the model read as the record's prompt. Records of earlier versions, and imported ones, do not
        have them: there the text is tokenised."""
        return record.prompt_ids or self.encode(record.prompt)

    def read(self, record: Record) -> tuple[tuple[int, ...], Thinking]:
        """The ids of a record's prompt and response, and where its thinking is in them.

        InputError: the record has no tokens, or reads otherwise than it was recorded.
        """
        name = f"{record.id} sample {record.sample}"
        if not record.token_ids:
            raise InputError(
                f"{name} has text but no token ids (imported?): import it with --model, or generate responses here"
            )
        prompt, generated = self.prompt(record), len(record.token_ids)
        drawn = generated if record.forced_at is None else record.forced_at
        found = read(prompt, record.token_ids, self.marks, drawn, record.finish_reason)
        if found.status != record.status or found.tokens != record.thinking_tokens:
            raise InputError(
                f"{name} was recorded as {_length(record.status, record.thinking_tokens)}, but reads as "
                f"{_length(found.status, found.tokens)}: {PASS_FLAGS}, or the model that they are of"
            )
        return prompt + record.token_ids, found

    def inside(self, record: Record) -> tuple[tuple[int, ...], range]:
        """The ids of prompt and response, and the positions between the thinking's delimiters; of a chain that was
        never closed, those up to where it was cut or ended."""
        ids, found = self.read(record)
        if found.opened is None:
            return ids, range(0)
        last = len(ids) if record.forced_at is None else len(ids) - len(record.token_ids) + record.forced_at
        return ids, range(found.opened, last if found.closed is None else found.closed)

    def completing(self, ids: Sequence[int], text: str) -> set[int]:
        """The positions at which an occurrence of a text is complete, see `Finder`."""
        return Finder(text, self.marks.token_bytes).upto(ids, len(ids))

    def tokens_with(self, parts: Sequence[str]) -> frozenset[int]:
        """Every token of the vocabulary whose text contains one of these, whatever the case."""
        wanted = [part.lower() for part in parts]
        return frozenset(
            token for token, text in enumerate(self.vocabulary()) if any(part in text.lower() for part in wanted)
        )


def _length(status: Status, tokens: int | None) -> str:
    return status if tokens is None else f"{status} with {tokens} thinking tokens"
