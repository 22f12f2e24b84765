"""Upstream ThinkEdit's published files, from its folder or zip, into the artifact layout. Nothing in them is executed.

What upstream keeps is less than a `Record` holds, so an imported record says:
- `token_ids` is empty: upstream kept text only. Where tokens are needed such a record cannot be used.
- `response_tokens` is the number of tokens that upstream counted, those of the thinking; 0 where it counted none.
- `status` is read off upstream's length: -1 is "no_think"; a length at the budget is "capped", although upstream gave
  the same length to chains that ended early without closing. The answer it forces there begins at the budget.
- `question`, `prompt`, `reference` are "" and `prediction` is None where the file lacks them; `correct` is upstream's
  verdict, and False for responses/, which it never graded. `seed` is 0: its sampling was not seeded.

File names and layouts: github.com/Trustworthy-ML-Lab/ThinkEdit at 0820517.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

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
from thinksteer.zips import members

_DRIVE = "https://drive.google.com/uc?id="
ARCHIVES = {  # by version of the paper
    "v1": f"{_DRIVE}1WGJOV_Uh1UulU-sNwA7Gy82NddvljDlP",
    "v2": f"{_DRIVE}135ttUxdNc4gQkmbZlpr3ecbhA3_392PE",  # as its README links it at 0820517
}

RESPONSE_BUDGET, GSM8K_BUDGET, MATH_BUDGET, EVALUATION_BUDGET = 4096, 8192, 16384, 16384  # tokens
STEERED = {"gsm8k": ("gsm8k", GSM8K_BUDGET), "math_level5": ("math_level5_140", MATH_BUDGET)}  # name here, budget
UNSELECTED = ("gsm8k", "MATH-500", "mmlu_elementary_math")  # used from the first row on, so the row number is known
READ_SITES = {"attn": "mid", "mlp": "block_out"}


def import_upstream(source: Path, root: Path) -> list[Path]:
    """Import every file known by its name below `source`, a folder or a zip, into the artifacts root; give the paths.

    What an earlier import of the same file wrote is left as it is. InputError: nothing known is there, a file is not
    laid out as upstream writes it, a member of the zip leads out of it, or an artifact of another origin is in the way.
    """
    written = []
    for name, opened in members(source):
        for pattern, convert in CONVERTERS:
            if match := re.search(rf"(?:^|/){pattern}$", name):
                with opened() as stream:
                    data = stream.read()
                written.append(convert(match, name, data, root))
    if not written:
        wanted = "responses/, directions/, *_thinking_length_steering_results/, ThinkEdit_model_evaluation_results/"
        raise InputError(f"{source} holds no file that upstream publishes: give the folder or zip with {wanted}")
    return written


def _responses(match: re.Match[str], name: str, data: bytes, root: Path) -> Path:
    """Stage 1: a list of {question, response, thinking, thinking_length}, GSM8K train from the first row on."""

    def records(items: Any) -> Iterator[Record]:
        for row, item in enumerate(items):
            length, text = item["thinking_length"], item["response"]
            opened = "<think>" in text and "</think>" not in text
            # Upstream tokenised the thinking anew, which put a BOS in front; without a whole thinking it is -1.
            length = length - 1 if length != -1 else RESPONSE_BUDGET if opened else None
            yield replace(
                _counted(length, RESPONSE_BUDGET, forces=False),
                id=f"gsm8k-train-{row}",
                question=item["question"],
                prompt=f"<｜User｜>{item['question']}<｜Assistant｜>",
                response=text,
            )

    return _write_records(responses_path(root, match["model"], "gsm8k"), name, data, records)


def _steered(match: re.Match[str], name: str, data: bytes, root: Path) -> Path:
    """Stage 3: {responses, think_lengths, correctness, ...}, one sample per question, in the order of the test rows."""
    dataset, budget = STEERED[match["dataset"]]
    layer = match.groupdict().get("layer")
    place = (root, match["model"], dataset, match["control"], _weight(match["weight"], name))

    def records(value: Any) -> Iterator[Record]:
        lengths = value["think_lengths"]
        # Upstream skips the response and the verdict, but not the length, of a sample without thinking.
        kept = [row for row, length in enumerate(lengths) if length != -1]
        if len(value["responses"]) == len(lengths):
            kept = list(range(len(lengths)))
        texts = dict(zip(kept, value["responses"], strict=True))
        verdicts = dict(zip(kept, value["correctness"], strict=True))
        for row, length in enumerate(lengths):
            yield replace(
                _counted(None if length == -1 else length, budget, forces=True),
                id=_id(dataset, row),
                response=texts.get(row, ""),
                correct=bool(verdicts.get(row, False)),
            )

    return _write_records(steering_path(*place, None if layer is None else int(layer)), name, data, records)


def _evaluation(match: re.Match[str], name: str, data: bytes, root: Path) -> Path:
    """Stage 6: {answers, sample_results: [{think_lengths, response_texts, correctness, predicted}], ...}."""
    dataset = match["dataset"]
    columns = ("think_lengths", "response_texts", "correctness", "predicted")

    def records(value: Any) -> Iterator[Record]:
        for sample, results in enumerate(value["sample_results"]):
            rows = zip(value["answers"], *(results[column] for column in columns), strict=True)
            for row, (answer, length, text, correct, predicted) in enumerate(rows):
                yield replace(
                    _counted(None if length == -1 else length, EVALUATION_BUDGET, forces=True),
                    id=_id(dataset, row),
                    sample=sample,
                    reference=str(answer),
                    kind="choice" if dataset == "mmlu_elementary_math" else "math",
                    response=text,
                    prediction=None if predicted is None else str(predicted),
                    correct=bool(correct),
                )

    path = evaluation_path(root, match["model"], dataset, match["instruction"])
    return _write_records(path, name, data, records)


def _direction(match: re.Match[str], name: str, data: bytes, root: Path) -> Path:
    """Stage 2: a bfloat16 tensor [num_layers, 1, hidden_size], mean of long minus mean of short, written float32.

    Upstream's mlp direction has in its last row the difference after the final norm, not that of the block output.
    """
    control = f"thinking_length_{match['site']}"
    path = direction_path(root, match["model"], control)
    from torch import Tensor

    tensor = load_torch(data, name)
    if not isinstance(tensor, Tensor) or tensor.ndim != 3 or tensor.shape[1] != 1:
        found = list(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
        raise InputError(f"{name} holds {found}, not a tensor [num_layers, 1, hidden_size]")
    metadata = {
        "method": control,
        "read_site": READ_SITES[match["site"]],
        "model": match["model"],
        "dataset": "gsm8k",
        "rule": rule_text(LengthRule()),
        "origin": f"ThinkEdit {name}",
        "origin_sha256": hashlib.sha256(data).hexdigest(),
    }
    with run(path, _settings(name, data), [], overwrite=False) as state:
        if not state.finished:
            write_safetensors(path, {"direction": tensor.squeeze(1).float()}, metadata)
    return path


CONVERTERS: tuple[tuple[str, Callable[[re.Match[str], str, bytes, Path], Path]], ...] = (
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


def _counted(length: int | None, budget: int, forces: bool) -> Record:
    """A blank record with what follows from the tokens of thinking (None: there was none); see the top of this file."""
    capped = length is not None and length >= budget
    status: Status = "no_think" if length is None else "capped" if capped else "closed"
    return Record(
        id="",
        sample=0,
        question="",
        reference="",
        kind="math",
        prompt="",
        response="",
        token_ids=(),
        thinking_tokens=length if status == "closed" else None,
        response_tokens=length or 0,
        status=status,
        finish_reason="length" if capped else "stop",
        forced_at=budget if capped and forces else None,
        seed=0,
        prediction=None,
        correct=False,
    )


def _write_records(path: Path, name: str, data: bytes, records: Callable[[Any], Iterator[Record]]) -> Path:
    try:
        converted = list(records(json.loads(data)))
        if not all(isinstance(record.response, str) for record in converted):
            raise TypeError("a response is no text")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{name} is not laid out as upstream writes it: {error!r}") from None
    with run(path, _settings(name, data), [], overwrite=False) as state:
        if state.finished:
            return path
        with RecordLog(path) as log:
            for record in converted:
                if (record.id, record.sample) not in log.done:
                    log.append(record)
    return path


def _settings(name: str, data: bytes) -> dict[str, str]:
    return {"imported_from": f"ThinkEdit {name}", "sha256": hashlib.sha256(data).hexdigest()}


def _weight(text: str, name: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{name}: {text!r} is no weight") from None
