"""Responses that others kept as text: where their thinking begins, and the token ids that a tokenizer makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from thinksteer.records import InputError, Record, Status
from thinksteer.thinking import Reader, Template, read

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def opens(template: Template) -> bool:
    """Whether prompts end with the opening delimiter, so that responses begin inside the thinking."""
    return template.opened_in(template.prompt("?"))


def opened(template: Template) -> Template:
    """The template with the opening delimiter at the end of its prompt, as chat templates put it there."""
    if opens(template):
        return template
    opening = f"{template.open}\n"
    if template.render:
        return replace(template, render=lambda asked: template.prompt(asked) + opening)
    return replace(template, after=template.after + opening)


def prompt_of(template: Template, question: str, response: str) -> str:
    """The prompt that a response was the answer to: one that repeats the delimiter of the prompt has it only once."""
    prompt = template.prompt(question)
    if opens(template) and response.lstrip().startswith(template.open):
        prompt = prompt.rstrip().removesuffix(template.open)
    return prompt


def status(template: Template, response: str) -> Status | None:
    """How the thinking of a response ended, as `thinking.read` has it; None: it holds neither delimiter, and its prompt
    opens nothing."""
    in_prompt = opens(template) and not response.lstrip().startswith(template.open)
    begin = 0 if in_prompt else response.find(template.open)
    if begin < 0:
        return "no_think" if template.close in response else None
    begin += 0 if in_prompt else len(template.open)
    end = response.find(template.close, begin)
    return "capped" if end < 0 else "closed" if response[begin:end].strip() else "empty"


def check_opened(name: str, responses: Sequence[str], template: Template) -> None:
    """InputError if more responses of a file close a thinking that they do not open than open one."""
    told = [status(template, response) for response in responses]
    closing, opening = told.count("no_think"), len(told) - told.count("no_think") - told.count(None)
    if closing > opening:
        raise InputError(
            f"{name}: {closing} of {len(told)} responses hold {template.close} without {template.open} before it, so "
            "their prompt opened the thinking: give --opened_in_prompt"
        )


def with_token_ids(record: Record, template: Template, tokenizer: PreTrainedTokenizerBase) -> Record:
    """The record with the token ids of its text, and with the status and the lengths that follow from them.

    A response that ended by itself gets the EOS that it must have ended with; an answer that was forced begins where
    its text does. InputError: the tokens do not give the text back, so they are another model's.
    """
    response, forced, answer = record.response, "", ""
    if record.finish_reason == "length":
        response, forced, answer = response.partition(template.forced_answer)
    drawn, rest = (tokenizer(text, add_special_tokens=False).input_ids for text in (response, forced + answer))
    reader = Reader.of(template, tokenizer)
    if reader.decode(drawn + rest) != record.response:
        raise InputError(
            f"{record.id} sample {record.sample}: the tokenizer does not give its text back: give the --model that "
            "wrote it"
        )
    if record.finish_reason == "stop" and drawn and tokenizer.eos_token_id is not None:
        drawn.append(tokenizer.eos_token_id)
    prompt = reader.encode(record.prompt)
    found = read(prompt, drawn, reader.marks, len(drawn), record.finish_reason)
    return replace(
        record,
        prompt_ids=prompt,
        token_ids=(*drawn, *rest),
        thinking_tokens=found.tokens,
        response_tokens=len(drawn) + len(rest),
        status=found.status,
        forced_at=len(drawn) if forced else None,
    )
