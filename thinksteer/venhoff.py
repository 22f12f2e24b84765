"""What Venhoff et al. (2025) publish, read as values: mean vectors, layer effects, responses and steered responses.

Shapes are those of cvenhoff/steering-thinking-llms at 93259bc. Nothing in a file is executed, and what kind a file is
is told by its content. Upstream kept text only, decoded without special tokens, so an imported record says:
- `token_ids` are the text's by the model's tokenizer, not as generated. `id` is made of the question, so that files
  pair whatever their order (upstream shuffles them); of the row, where the text does not have the prompt.
- A response whose thinking never closed, or of 1000 tokens, upstream's limit, counts as cut by it ("length"); all
  others get back the EOS that they must have ended with.
- `kind` is "open": upstream's tasks have no reference answers. `seed` is 0: it decoded greedily.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thinksteer.annotation import Annotation, annotate
from thinksteer.methods.behaviours import OVERALL
from thinksteer.records import InputError, Record
from thinksteer.store import load_torch
from thinksteer.thinking import Reader, Template, read

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

MAX_TOKENS = 1000
WEIGHTS = {"negative": -1.0, "original": 0.0, "positive": 1.0}
"""Upstream's settings of steering and what they add to the model, times the vector."""


@dataclass(frozen=True, eq=False)
class MeanVectors:
    """Mean block outputs `[num_layers, hidden_size]`, float32, of each label and OVERALL, and of how many examples."""

    means: Mapping[str, Tensor]
    counts: Mapping[str, int]

    def direction(self, label: str, unscaled: bool = False) -> Tensor:
        """The label's mean minus the overall one, in each layer as long as the overall mean unless `unscaled`."""
        from thinksteer.directions import rescaled

        difference = self.means[label] - self.means[OVERALL]
        return difference if unscaled else rescaled(difference, self.means[OVERALL])


@dataclass(frozen=True)
class LayerEffects:
    """By label, an effect per layer for each example; `left_out`: examples without one for every layer, or not finite.

    What they are of is in `attribution.Effects.upstream`: no divergence.
    """

    effects: Mapping[str, Sequence[tuple[float, ...]]]
    left_out: Mapping[str, int]


@dataclass(frozen=True)
class Answer:
    """A response as upstream keeps it: the whole decoded text, the prompt's too, and its annotation ("": none)."""

    text: str
    annotated: str


@dataclass(frozen=True)
class Responses:
    """The responses of one file with the questions asked."""

    questions: tuple[str, ...]
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Steered:
    """By label and weight, the responses to the same questions."""

    answers: Mapping[str, Mapping[float, tuple[Answer, ...]]]


def load(path: Path) -> MeanVectors | LayerEffects | Responses | Steered:
    """What a file holds. InputError if it is none of the four, or holds code."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}): give one of upstream's .pt or .json files"
        ) from None
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = load_torch(data, str(path))
    try:
        return _read(value)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} is not laid out as upstream writes mean_vectors_*.pt, layer_effects_*.pt, responses_*.json or "
            f"steering_evaluation_results_*.json: {error}"
        ) from None


def _read(value: Any) -> MeanVectors | LayerEffects | Responses | Steered:
    if isinstance(value, list) and value:
        questions = tuple(_question(item["original_message"]) for item in value)
        return Responses(questions, tuple(_answer(item, "full_response", "annotated_thinking") for item in value))
    if not isinstance(value, dict) or not value:
        raise ValueError(f"it holds {type(value).__name__ if not value else 'a ' + type(value).__name__}")
    if all(isinstance(one, dict) for one in value.values()):
        return _mean_vectors(value)
    examples = [example for one in value.values() for example in one]
    return _steered(value) if examples and isinstance(examples[0], dict) else _layer_effects(value)


def _mean_vectors(value: dict[str, Any]) -> MeanVectors:
    from torch import Tensor

    means = {label: one["mean"] for label, one in value.items()}
    shape = means[OVERALL].shape  # KeyError: 'overall'
    for label, mean in means.items():
        if not isinstance(mean, Tensor) or mean.ndim != 2 or mean.shape != shape or not mean.isfinite().all():
            found = list(mean.shape) if isinstance(mean, Tensor) else type(mean).__name__
            raise ValueError(f"the mean of {label!r} is {found}, not finite [layers, hidden size] as {list(shape)}")
    counts = {label: int(one["count"]) for label, one in value.items()}
    return MeanVectors({label: mean.detach().float() for label, mean in means.items()}, counts)


def _layer_effects(value: dict[str, Any]) -> LayerEffects:
    rows = {label: [_floats(example) for example in examples] for label, examples in value.items()}
    lengths = Counter(len(row) for own in rows.values() for row in own if row)
    if not lengths:
        raise ValueError("it has no example with an effect for each layer")
    layers = lengths.most_common(1)[0][0]
    kept = {label: tuple(row for row in own if len(row) == layers) for label, own in rows.items()}
    return LayerEffects(kept, {label: len(own) - len(kept[label]) for label, own in rows.items()})


def _floats(example: Any) -> tuple[float, ...]:
    """Empty for what has no finite effect in every layer."""
    if example is None:
        return ()
    row = [float("nan") if effect is None else float(effect) for effect in example]
    return tuple(row) if all(map(isfinite, row)) else ()


def _steered(value: dict[str, Any]) -> Steered:
    return Steered(
        {
            label: {
                weight: tuple(_answer(example[name], "response", "annotated_response") for example in examples)
                for name, weight in WEIGHTS.items()
            }
            for label, examples in value.items()
        }
    )


def _answer(item: dict[str, Any], text: str, annotated: str) -> Answer:
    """An annotator that gave up left None."""
    if not isinstance(item[text], str) or not isinstance(item[annotated], str | None):
        raise TypeError(f"{text!r} or {annotated!r} is no text")
    return Answer(item[text], item[annotated] or "")


def _question(message: Any) -> str:
    """The words of a message: text, {"role", "content"}, or a list that ends in one."""
    message = message[-1] if isinstance(message, list) else message
    content = message["content"] if isinstance(message, dict) else message
    if not isinstance(content, str):
        raise TypeError("'original_message' has no text")
    return content


def records_of(
    answers: Sequence[Answer],
    questions: Sequence[str] | None,
    dataset: str,
    template: Template,
    tokenizer: PreTrainedTokenizerBase,
) -> list[tuple[Record, Annotation]]:
    """Records of upstream's texts with their annotations; see the top of this file. `questions` None: as in the texts.

    InputError: the tokenizer cannot write the text, so it is another model's.
    """
    reader, made, seen = Reader.of(template, tokenizer), [], Counter()
    for row, answer in enumerate(answers):
        asked, response = split(answer.text, template)
        question = questions[row] if questions else asked
        digest = hashlib.sha256(question.encode("utf-8", "backslashreplace")).hexdigest()[:12]
        id = f"{dataset}-upstream-{digest if question else row}"
        prompt, token_ids = template.prompt(question), tokenizer(response, add_special_tokens=False).input_ids
        marks = reader.open_ids, reader.close_ids, reader.opened_in_prompt
        found = read(reader.encode(prompt), token_ids, *marks, len(token_ids), "length")
        ended = found.status in ("closed", "no_think") and len(token_ids) < MAX_TOKENS
        token_ids += [tokenizer.eos_token_id] * ended
        record = Record(
            id=id,
            sample=seen[id],
            question=question,
            reference="",
            kind="open",
            prompt=prompt,
            response=response,
            token_ids=tuple(token_ids),
            thinking_tokens=found.tokens,
            response_tokens=len(token_ids),
            status=found.status,
            finish_reason="stop" if ended else "length",
            forced_at=None,
            seed=0,
            prediction=None,
            correct=False,
        )
        seen[id] += 1
        made.append((record, annotate(record, reader, answer.annotated)))
    return made


def split(text: str, template: Template) -> tuple[str, str]:
    """The question and the response of a decoded conversation.

    Where the mark between them was a special token, and so was skipped, the response begins with the thinking; without
    thinking all is response.
    """
    asked, mark, response = text.partition(template.after)
    if not mark:
        begin = text.find(template.open)
        asked, response = (text[:begin], text[begin:]) if begin >= 0 else ("", text)
    return asked.rpartition(template.before)[2].strip(), response
