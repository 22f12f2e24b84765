"""Upstream ThinkEdit's published files, from its folder or zip, into the artifact layout. Nothing in them is executed.

What upstream keeps is less than a `Record` holds, so an imported record says:
- `token_ids` is empty, as upstream kept text only, unless a tokenizer is given; then they, `status` and the lengths are
  those of the text (`texts.with_token_ids`), and what follows about them does not hold.
- `response_tokens` is the number of tokens that upstream counted, those of the thinking; 0 where it counted none.
- `status` follows from the text: "closed" where the thinking is, "capped" where it is open, although upstream does not
  say whether the budget or an EOS ended it. A text without delimiters is "no_think" if upstream's length is -1, else
  "capped" from the budget of the stage on. The answer that upstream forces begins at the length of a capped chain.
- A length is the file's. Open chains of responses/ have none there: they count as long as the budget or, if that is
  more, as the longest closed chain of the file, since the budget of a run is nowhere in its files.
- `question`, `prompt`, `reference` are "" and `prediction` is None where the file lacks them; `correct` is upstream's
  verdict, and False for responses/, which it never graded. `seed` is 0: its sampling was not seeded.

File names and layouts: github.com/Trustworthy-ML-Lab/ThinkEdit at 0820517.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from thinksteer import texts
from thinksteer.fields import Field, Misfit
from thinksteer.lengths import LengthRule, rule_text
from thinksteer.records import InputError, Record, Status
from thinksteer.store import (
    RecordLog,
    direction_path,
    evaluation_path,
    load_torch,
    responses_path,
    run,
    steering_path,
    write_safetensors,
)
from thinksteer.thinking import TEMPLATES, Template
from thinksteer.zips import members

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_DRIVE = "https://drive.google.com/uc?id="
ARCHIVES = {  # by version of the paper
    "v1": f"{_DRIVE}1WGJOV_Uh1UulU-sNwA7Gy82NddvljDlP",
    "v2": f"{_DRIVE}135ttUxdNc4gQkmbZlpr3ecbhA3_392PE",  # as its README links it at 0820517
}

RESPONSE_BUDGET, GSM8K_BUDGET, MATH_BUDGET, EVALUATION_BUDGET = 4096, 8192, 16384, 16384  # tokens
STEERED = {"gsm8k": ("gsm8k", GSM8K_BUDGET), "math_level5": ("math_level5_140", MATH_BUDGET)}  # name here, budget
UNSELECTED = ("gsm8k", "MATH-500", "mmlu_elementary_math")  # used from the first row on, so the row number is known
READ_SITES = {"attn": "mid", "mlp": "block_out"}


@dataclass(frozen=True)
class Import:
    """One import: where to, how the texts are read, and from which file each artifact came so far."""

    root: Path
    template: Template
    tokenizer: PreTrainedTokenizerBase | None
    settings: dict[str, str | bool]
    overwrite: bool
    origins: dict[Path, str] = field(default_factory=dict)

    def claim(self, path: Path, name: str) -> None:
        if path in self.origins:
            raise InputError(f"{self.origins[path]} and {name} would both become {path}: leave one of them out")
        self.origins[path] = name


def import_upstream(
    source: Path,
    root: Path,
    template: Template = TEMPLATES["deepseek"],
    tokenizer: PreTrainedTokenizerBase | None = None,
    settings: Mapping[str, str | bool] | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Import every file known by its name below `source`, a folder or a zip, into the artifacts root; give the paths.

    `template` is that of the prompts that the texts answer; `tokenizer`, that of the model which `settings` name, makes
    their token ids (None: they get none). What an earlier import of the same file wrote is left as it is.

    InputError: nothing known is there, a file is not laid out as upstream writes it or contradicts itself, a member of
    the zip leads out of it, two files would become one artifact, or an artifact of another origin is in the way.
    """
    to = Import(root, template, tokenizer, dict(settings or {}), overwrite)
    for name, opened in members(source):
        for pattern, convert in CONVERTERS:
            if match := re.search(rf"(?:^|/){pattern}$", name):
                with opened() as stream:
                    data = stream.read()
                convert(match, name, data, to)
    if not to.origins:
        wanted = "responses/, directions/, *_thinking_length_steering_results/, ThinkEdit_model_evaluation_results/"
        raise InputError(f"{source} holds no file that upstream publishes: give the folder or zip with {wanted}")
    return list(to.origins)


def _responses(match: re.Match[str], name: str, data: bytes, to: Import) -> None:
    """Stage 1: a list of {question, response, thinking, thinking_length}, GSM8K train from the first row on."""

    def records(file: Field) -> Iterator[Record]:
        items = file.items()
        # Upstream tokenised the thinking again, which put a BOS in front of its two delimiters.
        lengths = [_length(item["thinking_length"], least=3) for item in items]
        budget = max([RESPONSE_BUDGET, *(length - 1 for length in lengths if length)])
        for row, (item, length) in enumerate(zip(items, lengths, strict=True)):
            question, text = item["question"].text(), item["response"].text()
            told = texts.status(to.template, text)
            if not texts.opens(to.template) and (told in ("closed", "empty")) != (length is not None):
                whole = "a whole" if told == "closed" else "no whole"
                item["thinking_length"].fail(f"what goes with a response that has {whole} {_thinking(to.template)}")
            counted = length - 1 if length else budget if told == "capped" else None
            yield replace(
                _counted(told or "no_think", counted),
                id=f"gsm8k-train-{row}",
                question=question,
                prompt=texts.prompt_of(to.template, question, text),
                response=text,
            )

    _write_records(responses_path(to.root, match["model"], "gsm8k"), name, data, records, to)


def _steered(match: re.Match[str], name: str, data: bytes, to: Import) -> None:
    """Stage 3: {responses, think_lengths, correctness, ...}, one sample per question, in the order of the test rows."""
    dataset, budget = STEERED[match["dataset"]]
    layer = match.groupdict().get("layer")
    place = (to.root, match["model"], dataset, match["control"], _weight(match["weight"], name))

    def records(file: Field) -> Iterator[Record]:
        lengths = [_length(one) for one in file["think_lengths"].items()]
        answers, verdicts = file["responses"].items(), file["correctness"].items()
        # Upstream skips the response and the verdict, but not the length, of a sample without thinking.
        kept = [row for row, length in enumerate(lengths) if length is not None]
        if len(answers) == len(lengths):
            kept = list(range(len(lengths)))
        _same_size(file, {"think_lengths": len(kept), "responses": len(answers), "correctness": len(verdicts)})
        of_row = dict(zip(kept, zip(answers, verdicts, strict=True), strict=True))
        for row, length in enumerate(lengths):
            text, correct = (of_row[row][0].text(), of_row[row][1].flag()) if row in of_row else ("", False)
            yield replace(_forced(to.template, text, length, budget), id=_id(dataset, row), correct=correct)

    _write_records(steering_path(*place, None if layer is None else int(layer)), name, data, records, to)


def _evaluation(match: re.Match[str], name: str, data: bytes, to: Import) -> None:
    """Stage 6: {answers, sample_results: [{think_lengths, response_texts, correctness, predicted}], ...}."""
    dataset = match["dataset"]
    names = ("think_lengths", "response_texts", "correctness", "predicted")

    def records(file: Field) -> Iterator[Record]:
        answers = [answer.answer() for answer in file["answers"].items()]
        for sample, results in enumerate(file["sample_results"].items()):
            columns = {name: results[name].items() for name in names}
            _same_size(results, {"answers": len(answers)} | {name: len(column) for name, column in columns.items()})
            rows = zip(answers, *columns.values(), strict=True)
            for row, (answer, length, text, correct, predicted) in enumerate(rows):
                yield replace(
                    _forced(to.template, text.text(), _length(length), EVALUATION_BUDGET),
                    id=_id(dataset, row),
                    sample=sample,
                    reference=answer,
                    kind="choice" if dataset == "mmlu_elementary_math" else "math",
                    prediction=None if predicted.value is None else predicted.answer(),
                    correct=correct.flag(),
                )

    path = evaluation_path(to.root, match["model"], dataset, match["instruction"])
    _write_records(path, name, data, records, to)


def _direction(match: re.Match[str], name: str, data: bytes, to: Import) -> None:
    """Stage 2: a bfloat16 tensor [num_layers, 1, hidden_size], mean of long minus mean of short, written float32.

    Upstream's mlp direction has in its last row the difference after the final norm, not that of the block output.
    """
    from torch import Tensor, isfinite

    control = f"thinking_length_{match['site']}"
    path = direction_path(to.root, match["model"], control)
    tensor = load_torch(data, name)
    if not isinstance(tensor, Tensor) or tensor.ndim != 3 or tensor.shape[1] != 1 or not tensor.numel():
        found = list(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
        raise InputError(f"{name} holds {found}, not a tensor [num_layers, 1, hidden_size]")
    if not tensor.is_floating_point() or not isfinite(tensor).all():
        found = "values that are not finite" if tensor.is_floating_point() else f"{tensor.dtype}, not floating point"
        raise InputError(f"{name} holds {found}: fetch it again")
    metadata = {
        "method": control,
        "read_site": READ_SITES[match["site"]],
        "model": match["model"],
        "dataset": "gsm8k",
        "rule": rule_text(LengthRule()),
        "origin": f"ThinkEdit {name}",
        "origin_sha256": hashlib.sha256(data).hexdigest(),
    }
    to.claim(path, name)
    with run(path, _settings(name, data), [], to.overwrite) as state:
        if not state.finished:
            write_safetensors(path, {"direction": tensor.squeeze(1).float()}, metadata)


CONVERTERS: tuple[tuple[str, Callable[[re.Match[str], str, bytes, Import], None]], ...] = (
    (r"responses/(?P<model>[^/]+)_gsm8k\.json", _responses),
    (r"directions/(?P<model>[^/]+)_thinking_length_direction_gsm8k_(?P<site>attn|mlp)\.pt", _direction),
    (
        r"(?P<dataset>gsm8k|math_level5)_all_layer_thinking_length_steering_results/"
        r"(?P<control>thinking_length_(?:attn|mlp))/(?P<model>[^/]+)/(?P<weight>[^/_]+)\.json",
        _steered,
    ),
    (
        r"(?P<dataset>gsm8k)_layerwise_thinking_length_steering_results/"
        r"(?P<control>thinking_length_(?:attn|mlp))/(?P<model>[^/]+)/(?P<layer>\d+)_(?P<weight>[^/_]+)\.json",
        _steered,
    ),
    (
        r"ThinkEdit_model_evaluation_results/(?P<dataset>[^/]+)/(?P<model>[^/]+)/"
        r"instruction_(?P<instruction>[^/]*)/results_samples\d+\.json",
        _evaluation,
    ),
)


def _id(dataset: str, row: int) -> str:
    """The id that `data` gives the same test question; a name of its own where upstream selected rows by level."""
    return f"{dataset}-{'test' if dataset in UNSELECTED else 'upstream'}-{row}"


def _length(one: Field, least: int = 1) -> int | None:
    """A number of tokens; None for upstream's -1, which says that there was no thinking, or no whole one."""
    return None if type(one.value) in (int, float) and one.value == -1 else one.count(least)


def _same_size(of: Field, sizes: dict[str, int]) -> None:
    if len(set(sizes.values())) > 1:
        said = ", ".join(f"{size} {name}" for name, size in sizes.items())
        raise Misfit(f"{of.path or 'it'} has {said}: their numbers must agree")


def _thinking(template: Template) -> str:
    return f"{template.open}...{template.close}"


def _forced(template: Template, text: str, length: int | None, budget: int) -> Record:
    """The record of a text in which upstream forces an answer where its budget was spent."""
    drawn, forced, _ = text.partition(template.forced_answer)
    told = None if length is None else texts.status(template, drawn)
    if told is None:
        told = "no_think" if length is None else "capped" if forced or length >= budget else "closed"
    record = _counted(told, length)
    return replace(
        record,
        prompt=texts.prompt_of(template, "", text) if texts.opens(template) else "",
        response=text,
        forced_at=length if told == "capped" else None,
    )


def _counted(told: Status, length: int | None) -> Record:
    """A blank record with what follows from the tokens of thinking (None: there was none); see the top of this file."""
    return Record(
        id="",
        sample=0,
        question="",
        reference="",
        kind="math",
        prompt="",
        response="",
        token_ids=(),
        thinking_tokens=length if told == "closed" else None,
        response_tokens=length or 0,
        status=told,
        finish_reason="length" if told == "capped" else "stop",
        forced_at=None,
        seed=0,
        prediction=None,
        correct=False,
    )


def _write_records(
    path: Path, name: str, data: bytes, records: Callable[[Field], Iterator[Record]], to: Import
) -> None:
    try:
        converted = list(records(Field(json.loads(data))))
        if not converted:
            raise Misfit("it holds no response")
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name} is not laid out as upstream writes it: {error}: correct or remove it") from None
    texts.check_opened(name, [record.response for record in converted], to.template)
    if to.tokenizer is not None:
        converted = [texts.with_token_ids(record, to.template, to.tokenizer) for record in converted]
    to.claim(path, name)
    with run(path, _settings(name, data) | to.settings, [], to.overwrite) as state:
        if state.finished:
            return
        with RecordLog(path) as log:
            for record in converted:
                if (record.id, record.sample) not in log.done:
                    log.append(record)


def _settings(name: str, data: bytes) -> dict[str, str]:
    return {"imported_from": f"ThinkEdit {name}", "sha256": hashlib.sha256(data).hexdigest()}


def _weight(text: str, name: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not math.isfinite(weight):
        raise InputError(f"{name}: {text!r} is no weight")
    return weight
