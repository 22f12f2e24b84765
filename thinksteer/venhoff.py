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
import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thinksteer.annotation import Annotation, annotate
from thinksteer.fields import Field, Misfit
from thinksteer.methods.behaviours import OVERALL
from thinksteer.records import InputError, Record
from thinksteer.store import load_torch
from thinksteer.texts import opens
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
        return _read(Field(value))
    except Misfit as error:
        raise InputError(
            f"{path} is not laid out as upstream writes mean_vectors_*.pt, layer_effects_*.pt, responses_*.json or "
            f"steering_evaluation_results_*.json: {error}"
        ) from None


def _read(file: Field) -> MeanVectors | LayerEffects | Responses | Steered:
    if isinstance(file.value, list) and file.value:
        items = file.items()
        questions = tuple(_question(item["original_message"]) for item in items)
        return Responses(questions, tuple(_answer(item, "full_response", "annotated_thinking") for item in items))
    if not isinstance(file.value, dict) or not file.value:
        file.fail("a list of responses or an object of labels")
    labels = {Field(label, f"the label {label!r:.60}").text(): file[label] for label in file.value}
    if all(isinstance(one.value, dict) for one in labels.values()):
        return _mean_vectors(file, labels)
    examples = {label: one.items() for label, one in labels.items()}
    if not any(isinstance(one.value, dict) for own in examples.values() for one in own):
        return _layer_effects(examples)
    if empty := [one for label, one in labels.items() if not examples[label]]:
        empty[0].fail("a list of responses")
    return _steered(examples)


def _mean_vectors(file: Field, labels: dict[str, Field]) -> MeanVectors:
    means = {label: _mean(one["mean"]) for label, one in labels.items()}
    shape = list(_mean(file[OVERALL]["mean"]).shape)
    for label, mean in means.items():
        if list(mean.shape) != shape:
            raise Misfit(f"{label}.mean is {list(mean.shape)}, {OVERALL}.mean is {shape} [layers, hidden size]")
    return MeanVectors(means, {label: one["count"].count() for label, one in labels.items()})


def _mean(held: Field) -> Tensor:
    from torch import Tensor

    mean = held.value
    if not isinstance(mean, Tensor) or mean.ndim != 2 or not mean.numel() or not mean.is_floating_point():
        held.fail("a floating-point tensor [layers, hidden size]")
    if not mean.isfinite().all():
        raise Misfit(f"{held.path} has values that are not finite")
    return mean.detach().float()


def _layer_effects(examples: dict[str, list[Field]]) -> LayerEffects:
    rows = {label: [_floats(example) for example in own] for label, own in examples.items()}
    lengths = Counter(len(row) for own in rows.values() for row in own if row)
    if not lengths:
        raise Misfit("it has no example with an effect for each layer")
    layers = lengths.most_common(1)[0][0]
    kept = {label: tuple(row for row in own if len(row) == layers) for label, own in rows.items()}
    return LayerEffects(kept, {label: len(own) - len(kept[label]) for label, own in rows.items()})


def _floats(example: Field) -> tuple[float, ...]:
    """Empty for what has no finite effect in every layer."""
    from torch import Tensor

    held = example.value
    if held is None:
        return ()
    row = _plain(held) if isinstance(held, Tensor) else [_plain(one) for one in held] if type(held) is list else held
    if not isinstance(row, list) or not all(one is None or type(one) in (int, float) for one in row):
        example.fail("a list of numbers, one for each layer")
    effects = [math.nan if one is None else one for one in row]
    return tuple(float(one) for one in effects) if all(abs(one) <= sys.float_info.max for one in effects) else ()


def _plain(held: Any) -> Any:
    from torch import Tensor

    return held.tolist() if isinstance(held, Tensor) else held


def _steered(examples: dict[str, list[Field]]) -> Steered:
    return Steered(
        {
            label: {
                weight: tuple(_answer(example[name], "response", "annotated_response") for example in own)
                for name, weight in WEIGHTS.items()
            }
            for label, own in examples.items()
        }
    )


def _answer(item: Field, text: str, annotated: str) -> Answer:
    """An annotator that gave up left None."""
    whole, labelled = item[text].text(), item[annotated]
    return Answer(whole, "" if labelled.value is None else labelled.text())


def _question(message: Field) -> str:
    """The words of a message: text, {"role", "content"}, or a list that ends in one."""
    if isinstance(message.value, list) and message.value:
        message = message.items()[-1]
    return (message["content"] if isinstance(message.value, dict) else message).text()


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
        asked, response = split(answer.text, template, questions[row] if questions else None)
        question = questions[row] if questions else asked
        digest = hashlib.sha256(question.encode("utf-8", "backslashreplace")).hexdigest()[:12]
        id = f"{dataset}-upstream-{digest if question else row}"
        prompt, token_ids = template.prompt(question), tokenizer(response, add_special_tokens=False).input_ids
        prompt_ids = reader.encode(prompt)
        found = read(prompt_ids, token_ids, reader.marks, len(token_ids), "length")
        ended = found.status in ("closed", "empty", "no_think") and len(token_ids) < MAX_TOKENS
        ended = ended and tokenizer.eos_token_id is not None
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
            prompt_ids=prompt_ids,
        )
        seen[id] += 1
        made.append((record, annotate(record, reader, answer.annotated)))
    return made


def split(text: str, template: Template, question: str | None = None) -> tuple[str, str]:
    """The question and the response of a decoded conversation, which begins with the prompt of `question` if that is
    told and no special token was skipped.

    Where the mark between them was a special token, and so was skipped, the response begins with the thinking, whose
    opening delimiter may be the prompt's; without thinking, or without such a mark (base models), all is response.
    """
    if question is not None and text.startswith(prompt := template.prompt(question)):
        return question, text.removeprefix(prompt)
    before, mark, response = text.partition(template.after) if template.after else (text, "", "")
    if not mark:
        begin = text.find(template.open)
        before, response = (text[:begin], text[begin:]) if begin >= 0 else ("", text)
        if begin >= 0 and opens(template):
            response = response.removeprefix(template.open).removeprefix("\n")
    return (before.rpartition(template.before)[2] if template.before else before).strip(), response
