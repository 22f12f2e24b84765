"""The frozen values that pass between functions. Nothing else lives here: no reading, no computing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

if TYPE_CHECKING:
    from torch import Tensor

Status = Literal["closed", "capped", "eos_open", "empty", "no_think"]
"""How the thinking ended: closed by its delimiter, cut by the token budget, ended by EOS while open; closed, but with
nothing in it; or never begun."""

Site = Literal["block_in", "attn_out", "mid", "mlp_out", "block_out"]
"""A place in a decoder layer. `block_in` is the residual stream that enters it, `mid` that after the attention's
addition, before the MLP."""

Operation = Literal["add", "amplify"]
"""What an edit does with a vector v: adds a multiple of it, or scales what the activation has along it."""

Finish = Literal["stop", "length"]
"""Why generation ended: an end-of-sequence token, or the token limit."""


class InputError(Exception):
    """What the user gave cannot be used. The message names the culprit (file, line, flag, shape) and the cure."""


@dataclass(frozen=True)
class Problem:
    """One question with its reference answer; `kind` says how an answer is compared (see `grading`), `level` how hard
    it is or what it is about, in the data set's own words (None: not told). An "open" question has no single answer:
    `answer` is empty and nothing is graded."""

    id: str
    question: str
    answer: str
    kind: Literal["math", "choice", "letter", "code", "open"] = "math"
    level: str | None = None


@dataclass(frozen=True)
class Request:
    """One sample to generate. `prompt_ids` is what the model reads, BOS included; all randomness comes from `seed`."""

    id: str
    sample: int
    prompt: str
    prompt_ids: tuple[int, ...]
    seed: int


@dataclass(frozen=True)
class LogitBias:
    """`value` is added to the logits of these tokens, of the first `first_tokens` of a response or of all (None)."""

    tokens: frozenset[int]
    value: float
    first_tokens: int | None = None


@dataclass(frozen=True)
class Sampling:
    """Sampling parameters. `temperature` 0 is greedy; `top_k` 0 and `top_p` 1 keep every token.

    `stop_ids` end a response as an end of text does. When `max_tokens` are spent before an answer (thinking still open,
    or closed and cut while answering) and `forced_answer` is not empty, its tokens are appended (closing the thinking
    if it is open) and up to `forced_tokens` more are generated.

    Those from `min_p` to `bad_words_ids` mean what they mean in transformers' GenerationConfig; the presence and the
    frequency penalty, which it lacks, what they mean in vLLM: they count the tokens of the response alone. `eos_ids`
    are the ends that `min_new_tokens` forbids; an engine sets them to its model's.
    """

    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    repetition_penalty: float = 1.0
    forced_answer: str = ""
    forced_tokens: int = 256
    bias: LogitBias | None = None
    stop_ids: frozenset[int] = frozenset()
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    no_repeat_ngram_size: int = 0
    min_new_tokens: int = 0
    suppress_tokens: tuple[int, ...] = ()
    begin_suppress_tokens: tuple[int, ...] = ()
    bad_words_ids: tuple[tuple[int, ...], ...] = ()
    eos_ids: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Response:
    """What an engine generated for one request.

    `token_ids` are exactly as generated, EOS included, followed by the forced-answer tokens and their continuation from
    index `forced_at` on (None: nothing was forced). `thinking_tokens` counts the thinking with both its delimiters,
    None unless `status` is "closed". `finish` is "length" also when an answer was forced. `steered_positions` counts
    the positions, of the prompt too, at which an edit really acted; the last token, which is never fed, has none.
    """

    id: str
    sample: int
    prompt: str
    prompt_ids: tuple[int, ...]
    text: str
    token_ids: tuple[int, ...]
    thinking_tokens: int | None
    status: Status
    finish: Finish
    forced_at: int | None
    seed: int
    steered_positions: int = 0


@dataclass(frozen=True)
class Graded:
    """The answer read out of a response (None: none found) and whether it equals the reference; None and False where
    the question is open."""

    prediction: str | None
    correct: bool


@dataclass(frozen=True)
class Record:
    """One line of every responses, steering and evaluations file; the field names are the JSON keys.

    `correct` is False where the question is open (`kind`); whatever counts right and wrong asks `verdict`.
    `prompt_ids` are the tokens that the model read, BOS included; records of earlier versions and imported ones have
    none.
    """

    id: str
    sample: int
    question: str
    reference: str
    kind: str
    prompt: str
    response: str
    token_ids: tuple[int, ...]
    thinking_tokens: int | None
    response_tokens: int
    status: Status
    finish_reason: Finish
    forced_at: int | None
    seed: int
    prediction: str | None
    correct: bool
    steered_positions: int = 0
    level: str | None = None
    prompt_ids: tuple[int, ...] = ()

    @classmethod
    def from_response(cls, response: Response, problem: Problem, reference: str, graded: Graded) -> Self:
        """The record of a response to a problem; `reference` is the problem's answer as records state it."""
        return cls(
            id=problem.id,
            sample=response.sample,
            question=problem.question,
            reference=reference,
            kind=problem.kind,
            prompt=response.prompt,
            response=response.text,
            token_ids=response.token_ids,
            thinking_tokens=response.thinking_tokens,
            response_tokens=len(response.token_ids),
            status=response.status,
            finish_reason=response.finish,
            forced_at=response.forced_at,
            seed=response.seed,
            prediction=graded.prediction,
            correct=graded.correct,
            steered_positions=response.steered_positions,
            level=problem.level,
            prompt_ids=response.prompt_ids,
        )

    @property
    def verdict(self) -> bool | None:
        """Whether the answer is right; None: the question is open, so nothing was graded."""
        return None if self.kind == "open" else self.correct

    @property
    def length(self) -> int | None:
        """Tokens of thinking for averages: of an unfinished chain those until it was cut; None if there is none."""
        if self.status == "closed":
            return self.thinking_tokens
        if self.status in ("empty", "no_think"):
            return None
        return self.response_tokens if self.forced_at is None else self.forced_at


@dataclass(frozen=True)
class Span:
    """Positions [start, end) of a token sequence, and the group they belong to."""

    label: str
    start: int
    end: int


@dataclass(frozen=True)
class Passage:
    """A token sequence (prompt and response as the model saw them) with labelled spans of it.

    `id` and `sample` are those of the record that it comes from.
    """

    id: str
    ids: tuple[int, ...]
    spans: tuple[Span, ...]
    sample: int = 0


@dataclass(frozen=True)
class Reading:
    """Where a span [start, end) is read: at `site`, the positions [start + shift, end + shift), the first `limit` of
    them (None: all). With shift -1 these are the positions that predict the span's tokens. `whole` is the label of one
    more example that each passage makes: from its first span's start to its last one's end, as it stands."""

    site: Site
    shift: int = 0
    limit: int | None = None
    whole: str | None = None


@dataclass(frozen=True)
class Condition:
    """The positions at which an edit acts: those whose input token is one of `tokens` (None: any token) and completes
    an occurrence of `text` (None: any token); if `in_thinking`, that lie inside the thinking: after its opening
    delimiter, before its closing one is complete; and if `responding`, that predict the response: from the prompt's
    last token on."""

    tokens: frozenset[int] | None = None
    in_thinking: bool = False
    responding: bool = False
    text: str | None = None


EVERYWHERE = Condition()


@dataclass(frozen=True, eq=False)
class Edit:
    """A run-time intervention at `site` of each layer l in `layers`, `where` it says, with v = vectors[l].

    "add": h becomes h + coef * v. "amplify": h becomes h + coef * <h, u> u, with u = v / |v|: with -1 nothing along v
    is left (ablation), with 1 it is doubled (LiReFs, arXiv 2503.23084, section 4). Where v is zero there is nothing to
    amplify. `vectors`: `[num_layers, hidden_size]`.
    """

    site: Site
    vectors: Tensor
    layers: tuple[int, ...]
    coef: float
    where: Condition = EVERYWHERE
    operation: Operation = "add"

    @property
    def constant(self) -> bool:
        """Whether it adds the same vector at every position to what a projection gives, as a bias of that would."""
        return self.operation == "add" and self.where == EVERYWHERE and self.site != "block_in"


@dataclass(frozen=True)
class Head:
    """An attention head and its score (larger: it writes more of the short-reasoning direction)."""

    layer: int
    head: int
    score: float
