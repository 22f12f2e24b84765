"""The card as the hub reads it: through the hub's own library, which checks it, without a network."""

from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from tests.synthetic import evaluation
from thinksteer import analysis, card, model_files, models, store
from thinksteer.models import ModelRef
from thinksteer.thinking import TEMPLATES

NAME = "ThinkEdit-tiny-reasoner"


def make_model(root: Path, strength: float = 1.0) -> ModelRef:
    folder = store.model_path(root, NAME)
    store.write_json(folder / "config.json", {})
    store.write_json(folder / "edit.json", {"intervention_weight": strength})
    header = card.metadata("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", root, "gsm8k", "thinkedit")
    store.write_text(folder / "README.md", f"---\n{header}\n---\n# Mine\n\nWords.\n\n## More\n\nOthers.\n")
    return models.resolve(NAME, root)


def evaluate(root: Path, ref: ModelRef, dataset: str, instruction: str = "", n_samples: int = 2, **also: Path) -> dict:
    """Stage 6's files, of planted records; the metrics."""
    path = store.evaluation_path(root, ref.key, dataset, instruction)
    settings = {"dataset": dataset, "split": "test", "data_seed": 2, "instruction": instruction}
    records = evaluation(len(dataset), 40, n_samples)
    with (
        store.run(path, settings, [*model_files.fingerprint(ref), *also.values()], overwrite=True),
        store.RecordLog(path) as log,
    ):
        for record in records:
            log.append(record)
    metrics = {"model": ref.key, "dataset": dataset} | analysis.metrics(records, 500)
    store.write_json(store.metrics_path(root, ref.key, dataset, instruction), metrics)
    return metrics


def load(root: Path) -> ModelCard:
    """The card, after its metadata has gone through the hub's library and back unchanged."""
    path = store.model_path(root, NAME) / "README.md"
    read = ModelCard.load(path)
    again = ModelCard(f"---\n{read.data.to_yaml()}\n---\n{read.text}")
    assert again.data.to_dict() == read.data.to_dict() and str(read) == path.read_text(encoding="utf-8")
    return read


def test_metadata_states_base_licence_data_and_task(tmp_path):
    read = load_header(card.metadata("owner/base", tmp_path, "MATH-500", "thinkedit"))
    assert (read.base_model, read.license, read.datasets) == ("owner/base", "unknown", ["HuggingFaceH4/MATH-500"])
    assert (read.library_name, read.pipeline_tag, read.tags) == (
        "transformers",
        "text-generation",
        ["thinkedit", "reasoning"],
    )
    assert load_header(card.metadata("owner/base", tmp_path, "arithmetic", "thinkedit")).datasets is None
    terms = {"license": "other", "license_name": "own", "license_link": "LICENSE"}
    (tmp_path / "README.md").write_text(f"---\n{ModelCardData(**terms).to_yaml()}\n---\n")
    read = load_header(card.metadata("owner/base", tmp_path, None, "thinkedit"))
    assert {key: read.get(key) for key in terms} == terms


def load_header(yaml: str) -> ModelCardData:
    return ModelCard(f"---\n{yaml}\n---\n").data


def test_evaluations_are_a_model_index_and_a_table_and_the_words_stay(tmp_path):
    ref = make_model(tmp_path)
    before = load(tmp_path).data
    card.refresh(tmp_path, ref)
    assert load(tmp_path).data.eval_results is None and "## Evaluation" not in load(tmp_path).text
    metrics = {name: evaluate(tmp_path, ref, name) for name in ("MATH-level1", "MATH-level5", "arithmetic")}
    card.refresh(tmp_path, ref)
    read = load(tmp_path)
    kept = ("base_model", "license", "datasets", "pipeline_tag", "library_name", "tags")
    assert [read.data.get(key) for key in kept] == [before.get(key) for key in kept]
    assert read.data.model_name == NAME
    assert len(read.data.to_dict()["model-index"][0]["results"]) == 3  # the two levels are not taken for one
    found = {(one.dataset_name, one.metric_type): one for one in read.data.eval_results}
    assert len(found) == 6
    for dataset, one in metrics.items():
        name = f"{dataset}, data_seed 2" if dataset == "arithmetic" else dataset
        accuracy, length = found[name, "accuracy"], found[name, "mean_length"]
        assert accuracy.dataset_type == ("arithmetic" if dataset == "arithmetic" else "EleutherAI/hendrycks_math")
        assert (accuracy.metric_value, length.metric_value) == (one["accuracy"], one["mean_length"])
        assert accuracy.metric_args["interval_95"] == one["accuracy_interval"] and accuracy.dataset_split == "test"
        low, high = one["accuracy_interval"]
        assert accuracy.metric_name == f"accuracy, 95 % interval [{low:.4g}, {high:.4g}], 40 questions x 2 samples"
        assert (
            f"| {name} | test | 40 | 2 | {100 * one['accuracy']:.1f} [{100 * low:.1f}, {100 * high:.1f}] |" in read.text
        )
    assert "# Mine\n\nWords.\n\n## More\n\nOthers.\n\n## Evaluation\n" in read.text

    path = store.model_path(tmp_path, NAME) / "README.md"
    text = path.read_text(encoding="utf-8")
    path.write_text(text + "\n## Mine too\n\nLast words.\n", encoding="utf-8")
    card.refresh(tmp_path, ref)
    read = load(tmp_path)
    assert read.text.count("## Evaluation") == 1 and "\n## Mine too\n\nLast words.\n" in read.text
    assert len(read.data.eval_results) == 6


def test_evaluations_of_another_model_of_this_name_are_not_its_own(tmp_path):
    ref = make_model(tmp_path)
    evaluate(tmp_path, ref, "gsm8k")
    card.refresh(tmp_path, ref)
    assert load(tmp_path).data.eval_results
    ref = make_model(tmp_path, strength=2.0)  # made anew
    evaluate(tmp_path, ref, "MATH-500")
    card.refresh(tmp_path, ref)
    assert {one.dataset_name for one in load(tmp_path).data.eval_results} == {"MATH-500"}
    published = ModelRef(NAME, f"cesun/{NAME}", TEMPLATES["deepseek"])
    before = (store.model_path(tmp_path, NAME) / "README.md").read_text(encoding="utf-8")
    evaluate(tmp_path, ref, "gsm8k")
    card.refresh(tmp_path, published)
    assert (store.model_path(tmp_path, NAME) / "README.md").read_text(encoding="utf-8") == before


def test_an_instruction_and_a_local_file_are_said(tmp_path):
    ref = make_model(tmp_path)
    (tmp_path / "own.jsonl").write_text("")
    evaluate(tmp_path, ref, "gsm8k", instruction="Be | brief.", n_samples=1)
    evaluate(tmp_path, ref, "mine", file=tmp_path / "own.jsonl")
    card.refresh(tmp_path, ref)
    names = {one.dataset_name for one in load(tmp_path).data.eval_results}
    assert names == {"gsm8k, with 'Be | brief.'", "mine, file e3b0c44298fc"}  # the sha256 of no bytes


def test_a_model_without_a_card_gets_none(tmp_path):
    ref = make_model(tmp_path)
    (store.model_path(tmp_path, NAME) / "README.md").unlink()
    evaluate(tmp_path, ref, "gsm8k")
    card.refresh(tmp_path, ref)
    assert not (store.model_path(tmp_path, NAME) / "README.md").exists()


def test_a_single_question_has_no_interval(tmp_path):
    ref = make_model(tmp_path)
    metrics = evaluate(tmp_path, ref, "gsm8k")
    one = {"accuracy_interval": [None, None], "mean_length": None, "mean_length_interval": None}
    store.write_json(store.metrics_path(tmp_path, NAME, "gsm8k", ""), metrics | one)
    card.refresh(tmp_path, ref)
    [result] = load(tmp_path).data.eval_results
    assert "[?, ?]" in result.metric_name
