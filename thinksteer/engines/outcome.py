"""What generated tokens amount to: the engines' common end of a response."""

from collections.abc import Collection, Sequence

from transformers import PreTrainedTokenizerBase

from thinksteer.records import InputError, Request, Response, Sampling
from thinksteer.thinking import Marks, Template, Thinking, decode, read


def eos_ids(stated: int | Sequence[int] | None, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The tokens that end a response: those that the model's generation config states, and the tokenizer's."""
    own = [stated] if isinstance(stated, int) else stated or []
    return frozenset([*own, *([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id])])


class Outcome:
    """Says, for one call of `generate`, which tokens force an answer and what response tokens make.

    `forced_room`: the most tokens that forcing an answer may add to a response.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template: Template,
        marks: Marks,
        eos_ids: Collection[int],
        sampling: Sampling,
    ) -> None:
        self.tokenizer, self.marks, self.eos_ids, self.sampling = tokenizer, marks, eos_ids, sampling
        forced = sampling.forced_answer
        if forced and template.close not in forced:
            raise InputError(f"the forced answer {forced!r} lacks {template.close!r}, which closes the thinking")
        # Closed thinking needs no second closing: there only what follows the delimiter is appended.
        after = forced.partition(template.close)[2] if template.open else forced
        texts = {"capped": forced, "closed": after, "empty": after}
        self._forced = {
            status: tokenizer(text, add_special_tokens=False).input_ids for status, text in texts.items() if text
        }
        longest = max(map(len, self._forced.values()), default=0)
        self.forced_room = longest + sampling.forced_tokens if self._forced else 0

    def forced_ids(self, request: Request, ids: Sequence[int]) -> list[int]:
        """What to append to the tokens of a response that spent its budget; nothing if no answer is forced."""
        return self._forced.get(self._thinking(request, ids, None).status, [])

    def response(self, request: Request, ids: Sequence[int], forced_at: int | None, steered_positions: int) -> Response:
        """The response of tokens `ids`, of which those from `forced_at` on were forced or followed that."""
        ended = ids[-1] in self.eos_ids
        thinking = self._thinking(request, ids, forced_at)
        return Response(
            id=request.id,
            sample=request.sample,
            prompt=request.prompt,
            prompt_ids=request.prompt_ids,
            text=decode(self.tokenizer, ids[:-1] if ended else ids),  # the EOS is no text
            token_ids=tuple(ids),
            thinking_tokens=thinking.tokens,
            status=thinking.status,
            finish="stop" if ended and forced_at is None else "length",
            forced_at=forced_at,
            seed=request.seed,
            steered_positions=steered_positions,
        )

    def _thinking(self, request: Request, ids: Sequence[int], forced_at: int | None) -> Thinking:
        return read(
            request.prompt_ids,
            ids,
            self.marks,
            self.sampling.max_tokens,
            "stop" if forced_at is None and ids[-1] in self.eos_ids else "length",
        )
