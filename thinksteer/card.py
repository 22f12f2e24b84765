"""The card (README.md) of a model made here: metadata that the hub understands, and what its evaluations say."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from yaml import YAMLError

from thinksteer import model_files, store
from thinksteer.data import DATASETS
from thinksteer.intervals import Estimate
from thinksteer.models import ModelRef
from thinksteer.records import InputError
from thinksteer.tables import Column, Table, markdown

SECTION = "## Evaluation"
COLUMNS = (
    Column("dataset", "text"),
    Column("split", "text"),
    Column("questions", "count"),
    Column("samples of each", "count"),
    Column("accuracy, %", "share"),
    Column("thinking, tokens", "tokens"),
)
NOTE = (
    "Brackets: 95 % intervals over questions: Wilson's for accuracies, else a cluster bootstrap. "
    "At most {budgets} tokens per response."
)


def metadata(base_model: str, source: Path, dataset: str | None, tag: str) -> str:
    """The card's YAML: the licence is the one that the base model's card in `source` states, the data set (by our
    key) is named if it is on the hub."""
    card = source / "README.md"
    stated = _load(card).data if card.is_file() else ModelCardData()
    terms = {key: stated.get(key) for key in ("license", "license_name", "license_link") if stated.get(key)}
    return ModelCardData(
        base_model=base_model,
        **terms or {"license": "unknown"},
        datasets=[DATASETS[dataset].hub] if dataset in DATASETS else None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=[tag, "reasoning"],
    ).to_yaml()


def _load(path: Path) -> ModelCard:
    try:
        return ModelCard.load(path, ignore_metadata_errors=True)
    except (ValueError, YAMLError) as error:
        raise InputError(f"{path}: its metadata, between the lines ---, is not read ({error}): correct it") from None


def refresh(root: Path, ref: ModelRef) -> None:
    """Bring the evaluations of a model made under `root` onto its card; what else the card says is kept.

    Evaluations of an earlier model of this name, or of a published one, are not its own: each must have read the files
    that are there now.
    """
    folder = store.model_path(root, ref.key)
    path = folder / "README.md"
    if Path(ref.location).resolve() != folder.resolve() or not path.is_file():
        return
    found = list(_evaluations(root, ref))
    card = _load(path)
    card.data.model_name = ref.key if found else None
    card.data.eval_results = [result for name, split, about in found for result in _results(name, split, about)] or None
    card.text = re.sub(rf"\n{SECTION}\n.*?(?=\n## |\Z)", "", card.text, flags=re.DOTALL)
    if found:
        card.text = f"{card.text.rstrip()}\n\n{SECTION}\n\n{markdown(_table(found))}"
    store.write_text(path, str(card))


Evaluation = tuple[str, str, dict[str, Any]]
"""What was asked, the split, and metrics.json."""


def _evaluations(root: Path, ref: ModelRef) -> Iterator[Evaluation]:
    """Every finished evaluation of exactly this model."""
    own = {store.sha256(file) for file in model_files.fingerprint(ref)}
    for folder in sorted((root / "evaluations" / store.slug(ref.key)).glob("*")):
        for records in store.finished_records(folder):
            run = store.read_json(store.manifest_path(store.record_files(records)[0]))
            if own <= set(run["inputs"].values()):
                settings = run["settings"]
                metrics = store.metrics_path(root, ref.key, settings["dataset"], settings["instruction"])
                name = settings["dataset"]
                name += f", data_seed {settings['data_seed']}" if name == "arithmetic" else ""
                name += "".join(f", file {digest[:12]}" for digest in run["inputs"].values() if digest not in own)
                name += f", with {settings['instruction']!r}" if settings["instruction"] else ""
                if metrics.is_file():
                    yield name, settings["split"], store.read_json(metrics)


def _results(name: str, split: str, about: dict[str, Any]) -> Iterator[EvalResult]:
    key = about["dataset"]
    counts = f"{about['n_questions']} questions x {about['n_samples']} samples"
    for metric, title in (("accuracy", "accuracy"), ("mean_length", "mean thinking length, tokens")):
        if about[metric] is not None:
            interval = about[f"{metric}_interval"]
            low, high = ("?" if edge is None else f"{edge:.4g}" for edge in interval)
            yield EvalResult(
                task_type="text-generation",
                dataset_type=DATASETS[key].hub if key in DATASETS else key,
                dataset_name=name,
                dataset_config=name,  # the library takes results of one config for one evaluation
                dataset_split=split,
                metric_type=metric,
                metric_value=about[metric],
                metric_name=f"{title}, 95 % interval [{low}, {high}], {counts}",
                metric_args={key: about[key] for key in ("n_questions", "n_samples", "max_length")}
                | {"interval_95": interval},
            )


def _table(found: list[Evaluation]) -> Table:
    rows = []
    for name, split, about in found:
        n = about["n_questions"] * about["n_samples"]
        accuracy, length = (
            None if about[key] is None else Estimate(about[key], *about[f"{key}_interval"], n)
            for key in ("accuracy", "mean_length")
        )
        rows.append((name, split, about["n_questions"], about["n_samples"], accuracy, length))
    budgets = " or ".join(map(str, sorted({about["max_length"] for *_, about in found})))
    return Table("evaluation", "Accuracy and thinking length", COLUMNS, tuple(rows), NOTE.format(budgets=budgets))
