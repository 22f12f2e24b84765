"""lm-eval's results on the embedded model, steered or edited, are those of a plain forward pass and of our engine."""

import math
import re
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.tasks import TaskManager
from lm_eval_tasks.questions import load
from transformers import PreTrainedModel

import edit_weights
from scripts import export_steered, run_lm_eval
from thinksteer import models, store
from thinksteer.engines.hf import HFEngine
from thinksteer.lm_harness import harness
from thinksteer.records import Edit, InputError, Request, Sampling
from thinksteer.thinking import prompt_ids

TASKS = Path(__file__).with_name("lm_eval_tasks")
BOXED, CHOICE = "thinksteer_arithmetic_boxed", "thinksteer_arithmetic_choice"
DOCUMENTS = list(load()["test"])
DIRECTION = torch.randn(6, 128, generator=torch.Generator().manual_seed(0))
WEIGHT = 0.3
CONTROL = "thinking_length_attn"
GREEDY = Sampling(max_tokens=200, temperature=0.0, top_p=1.0, top_k=0)


def run(script: Any, root: Path, *flags: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["script", *map(str, flags), "--artifacts", str(root)])
        script.main()


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("artifacts")
    store.write_safetensors(store.direction_path(root, "tiny-reasoner", CONTROL), {"direction": DIRECTION}, {})
    return root


@pytest.fixture(scope="module")
def manager() -> TaskManager:
    return TaskManager(include_path=TASKS, include_defaults=False)  # lm-eval's own are read for seconds


FLAGS = ["--tasks", BOXED, CHOICE, "--include_path", TASKS, "--apply_chat_template", "--log_samples"]
FLAGS += ["--control", CONTROL, "--direction_weight", "0", WEIGHT]


@pytest.fixture(scope="module")
def runs(root: Path) -> list[dict[str, Any]]:
    """What the script writes for weights 0 and WEIGHT."""
    run(run_lm_eval, root, *FLAGS)
    return store.read_json(store.lm_eval_path(root, "tiny-reasoner", f"{BOXED}+{CHOICE}.{CONTROL}"))


def scores(found: dict[str, Any]) -> torch.Tensor:
    """The log-likelihoods of the choices, `[documents, 4]`."""
    samples = sorted(found["samples"][CHOICE], key=lambda one: one["doc_id"])
    return torch.tensor([[float(answer[0][0]) for answer in one["resps"]] for one in samples])


def numbers(found: dict[str, Any]) -> list[str]:
    samples = sorted(found["samples"][BOXED], key=lambda one: one["doc_id"])
    return [one["filtered_resps"][0] for one in samples]


def own_scores(model: PreTrainedModel) -> torch.Tensor:
    ref = models.resolve("tiny-reasoner", Path("nowhere"))
    tokenizer, rows = models.load_tokenizer(ref), []
    for one in DOCUMENTS:
        prompt = prompt_ids(ref.template, tokenizer, ref.template.prompt(one["question"]) + one["said"])
        for choice in one["choices"]:
            ids = tokenizer(choice, add_special_tokens=False).input_ids
            with torch.no_grad():
                logits = model(torch.tensor([[*prompt, *ids]])).logits[0].log_softmax(-1)
            rows.append(sum(logits[len(prompt) - 1 + place, token] for place, token in enumerate(ids)))
    return torch.stack(rows).reshape(-1, 4)


def own_numbers(model: PreTrainedModel, edits: list[Edit]) -> list[str]:
    ref = models.resolve("tiny-reasoner", Path("nowhere"))
    tokenizer = models.load_tokenizer(ref)
    prompts = [ref.template.prompt(one["question"]) for one in DOCUMENTS]
    requests = [
        Request(str(number), 0, prompt, prompt_ids(ref.template, tokenizer, prompt), 0)
        for number, prompt in enumerate(prompts)
    ]
    answers = {one.id: one.text for one in HFEngine(model, tokenizer, ref.template).generate(requests, GREEDY, edits)}
    found = [re.search(r"boxed\{(\d+)\}", answers[one.id]) for one in requests]
    return [match[1] if match else "[invalid]" for match in found]


@pytest.fixture
def tiny() -> PreTrainedModel:
    return models.load_model(models.resolve("tiny-reasoner", Path("nowhere")), "cpu")


@pytest.mark.parametrize("index, weight", [(0, 0.0), (1, WEIGHT)])
def test_likelihoods_and_answers_are_those_of_a_plain_forward_pass_and_of_our_engine(runs, tiny, index, weight):
    assert runs[index]["weight"] == weight
    assert numbers(runs[index]) == own_numbers(tiny, [Edit("attn_out", DIRECTION, tuple(range(6)), weight)])
    for layer, row in zip(tiny.base_model.layers, weight * DIRECTION, strict=True):
        layer.self_attn.register_forward_hook(lambda module, inputs, out, row=row: (out[0] + row, *out[1:]))
    wanted = own_scores(tiny)
    torch.testing.assert_close(scores(runs[index]), wanted, rtol=0, atol=1e-3)

    right = (wanted.argmax(-1) == 0).double()
    boxed = [number == one["choices"][0] for number, one in zip(numbers(runs[index]), DOCUMENTS, strict=True)]
    table = runs[index]["results"]
    assert table[CHOICE]["acc,none"] == pytest.approx(right.mean().item())
    assert table[CHOICE]["acc_stderr,none"] == pytest.approx(right.std().item() / math.sqrt(len(right)))
    assert table[BOXED]["exact_match,boxed"] == pytest.approx(sum(boxed) / len(boxed))


def test_steering_changes_what_is_found(runs):
    assert (scores(runs[1]) - scores(runs[0])).abs().max() > 1
    assert numbers(runs[1]) != numbers(runs[0])


def test_versions_examples_and_counts_are_kept_and_the_table_is_shown_again(runs, root, capsys):
    for one in runs:
        assert one["versions"] == {BOXED: 1.0, CHOICE: 1.0} and one["n-shot"] == {BOXED: 0, CHOICE: 0}
        assert one["n-samples"][CHOICE] == {"original": 16, "effective": 16}
    run(run_lm_eval, root, *FLAGS)  # there is nothing left to do
    shown = re.findall(rf"weight ([\d.]+)\n(?:.*\n)*?\|{CHOICE} *\| *1\|.*?([\d.]+)\|±  \|", capsys.readouterr().out)
    accuracies = [(one["weight"], one["results"][CHOICE]["acc,none"]) for one in runs]
    assert [tuple(map(float, pair)) for pair in shown] == accuracies
    manifest = store.read_json(
        store.manifest_path(store.lm_eval_path(root, "tiny-reasoner", f"{BOXED}+{CHOICE}.{CONTROL}"))
    )
    assert [Path(name).name for name in manifest["inputs"]][:2] == [f"{CONTROL}.safetensors", "config.json"]
    assert "arithmetic_choice.yaml" in {Path(name).name for name in manifest["inputs"]}


ARGS = Namespace(
    tasks=[CHOICE],
    limit=None,
    num_fewshot=None,
    apply_chat_template=True,
    log_samples=True,
    batch_size=8,
    device="cpu",
    dtype="auto",
    trust_remote_code=False,
    mean_recurrence=None,
    layer=None,
    gen_kwargs={},
    think_end_token=None,
    chat_template_args={},
)


def found_of(manager: TaskManager, name: str, root: Path) -> dict[str, Any]:
    ref = models.resolve(name, root)
    asked = harness(models.load_model(ref, "cpu"), models.load_tokenizer(ref), 8)
    return run_lm_eval.results(asked, manager, ARGS)


def test_steering_baked_into_the_weights_gives_what_it_gives_at_run_time(runs, manager, root):
    run(export_steered, root, "--control", CONTROL, "--direction_weight", WEIGHT, "--name", "baked")
    found = found_of(manager, "baked", root)
    torch.testing.assert_close(scores(found), scores(runs[1]), rtol=0, atol=1e-3)
    assert found["results"][CHOICE]["acc,none"] == runs[1]["results"][CHOICE]["acc,none"]


def test_an_edited_model_is_found_by_its_name(runs, manager, root):
    heads = [{"layer": layer, "head": layer, "score": 1.0} for layer in range(6)]
    scored = {"scores": [[0.0] * 8 for _ in range(6)], "heads": heads}
    store.write_json(store.heads_path(root, "tiny-reasoner", CONTROL), scored)
    run(edit_weights, root)
    found = scores(found_of(manager, "ThinkEdit-tiny-reasoner", root))
    edited = models.load_model(models.resolve("ThinkEdit-tiny-reasoner", root), "cpu")
    torch.testing.assert_close(found, own_scores(edited), rtol=0, atol=1e-3)
    assert (found - scores(runs[0])).abs().max() > 0.01


def test_a_stopped_run_goes_on_with_the_next_weight(manager, tmp_path):
    ref, path = models.resolve("tiny-reasoner", tmp_path), tmp_path / "found.json"
    args = Namespace(**vars(ARGS) | {"limit": 2, "log_samples": False})
    edits = {weight: [Edit("attn_out", DIRECTION, (2,), weight)] for weight in (0.0, 5.0)}
    run_lm_eval.measure(args, ref, manager, edits, path)
    whole = store.read_json(path)
    assert [one["weight"] for one in whole] == [0.0, 5.0] and "samples" not in whole[0]
    assert whole[0]["n-samples"][CHOICE] == {"original": 16, "effective": 2}
    store.write_json(path, [{"weight": 0.0, "kept": True}])
    run_lm_eval.measure(args, ref, manager, edits, path)
    assert store.read_json(path) == [{"weight": 0.0, "kept": True}, whole[1]]


def parsed(*flags: object) -> Namespace:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["script", "--tasks", "piqa", *map(str, flags)])
        return run_lm_eval.parse_args()


def test_the_edits_are_those_of_the_flags():
    args = parsed("--control", CONTROL, "--site", "block_in", "--operation", "amplify", "--layer", 1, 4)
    method = run_lm_eval.chosen_method(args)
    [edit] = run_lm_eval.edits_for(args, method, DIRECTION, -1.0)
    assert (edit.site, edit.operation, edit.layers, edit.coef) == ("block_in", "amplify", (1, 4), -1.0)
    assert torch.equal(edit.vectors, DIRECTION)
    assert run_lm_eval.edits_for(args, method, DIRECTION, 0.0) == []
    assert run_lm_eval.default_name(args) == f"piqa.{CONTROL}.amplify.block_in.layer1.layer4"

    every = parsed("--control", CONTROL)
    [edit] = run_lm_eval.edits_for(every, run_lm_eval.chosen_method(every), DIRECTION, 1.0)
    assert edit.layers == tuple(range(6)) and edit.site == "attn_out"
    one = parsed("--control", "backtracking")
    [edit] = run_lm_eval.edits_for(one, run_lm_eval.chosen_method(one), DIRECTION, 1.0)
    assert edit.layers == (4,) and edit.site == "block_out"  # the paper's layer


@pytest.fixture
def own(tmp_path) -> Path:
    """A folder with a task that says nothing about lengths: its answers are what follows the thinking."""
    (tmp_path / "questions.py").write_text((TASKS / "questions.py").read_text())
    text = (TASKS / "arithmetic_boxed.yaml").read_text()
    text = text.replace("  max_gen_toks: 200\n", "").replace(BOXED, "unlimited")
    (tmp_path / "task.yaml").write_text(text)
    return tmp_path


def measured(folder: Path, *flags: object) -> dict[str, Any]:
    """What the script finds for the task `unlimited` of a folder."""
    flags = ("--tasks", "unlimited", "--limit", 2, "--log_samples", "--overwrite", *flags)
    args = parsed(*flags)
    ref = models.resolve("tiny-reasoner", folder)
    manager = TaskManager(include_path=folder, include_defaults=False)
    (folder / "found.json").unlink(missing_ok=True)
    run_lm_eval.measure(args, ref, manager, {0.0: []}, folder / "found.json")
    return store.read_json(folder / "found.json")[0]


def texts(found: dict[str, Any]) -> list[str]:
    return [one["resps"][0][0] for one in sorted(found["samples"]["unlimited"], key=lambda one: one["doc_id"])]


def test_answers_that_would_be_cut_at_lm_evals_default_are_told_of_before(own, capsys):
    measured(own)
    said = capsys.readouterr().out
    assert said.startswith("unlimited: every answer, thinking included, is cut at 256 tokens, lm-eval's default; --gen")
    assert said.index("256") < said.index("weight 0")
    for name in ("max_gen_toks", "max_new_tokens"):
        short = texts(measured(own, "--gen_kwargs", f"{name}=7"))
        assert "cut at 256" not in capsys.readouterr().out
        tokenizer = models.load_tokenizer(models.resolve("tiny-reasoner", own))
        assert all(len(tokenizer(text, add_special_tokens=False).input_ids) <= 7 for text in short)


def test_settings_of_generation_and_thinking_reach_the_model(own):
    plain, length = texts(measured(own)), ("--gen_kwargs", "max_gen_toks=250")
    whole = texts(measured(own, *length))
    assert whole == plain and all("</think>" in text for text in whole)
    answers = texts(measured(own, "--think_end_token", "</think>", *length))
    assert answers == [text.split("</think>")[-1].lstrip() for text in whole]
    drawn = [texts(measured(own, *length, "temperature=1.5")) for _ in range(2)]
    assert drawn[0] == drawn[1] != whole  # lm-eval's seeds
    assert measured(own, *length, "temperature=0")["results"] == measured(own, *length)["results"]


def test_arguments_of_the_chat_template_are_those_that_it_uses(own, monkeypatch):
    asked = ("--apply_chat_template", "--gen_kwargs", "max_gen_toks=9")
    with pytest.raises(InputError, match=r"chat template of \S+ does not use enable_thinking"):
        measured(own, *asked, "--chat_template_args", "enable_thinking=false")

    def load(*args: object) -> Any:
        tokenizer = original(*args)
        tokenizer.chat_template += "{{ '<think>' if enable_thinking else '</think>' }}"
        return tokenizer

    original = models.load_tokenizer
    monkeypatch.setattr(models, "load_tokenizer", load)
    for value, mark in (("true", "<think>"), ("False", "</think>")):
        found = measured(own, *asked, "--chat_template_args", f"enable_thinking={value}")
        prompts = [one["arguments"][0][0] for one in found["samples"]["unlimited"]]
        assert all(prompt.endswith(f"<｜Assistant｜>{mark}") for prompt in prompts)


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--gen_kwargs", "max_gen_toks"], "'max_gen_toks' is not of the form KEY=VALUE"),
        (["--gen_kwargs", "max_gen_toks=0"], "whole number above 0"),
        (["--gen_kwargs", "max_gen_toks=1e3"], "whole number above 0"),
        (["--gen_kwargs", "max_gen_toks=5", "max_new_tokens=6"], "give one max_gen_toks"),
        (["--gen_kwargs", "top_p=0.5", "top_p=0.6"], "a key is given twice"),
        (["--gen_kwargs", "temperature=hot"], "temperature=hot is no number"),
        (["--chat_template_args", "enable_thinking=true"], "goes with --apply_chat_template"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(flags, message, capsys):
    with pytest.raises(SystemExit):
        parsed(*flags)
    assert message in capsys.readouterr().err


def test_settings_that_nothing_reads_and_lengths_beyond_the_model_are_refused(own):
    with pytest.raises(InputError, match="--gen_kwargs max_gen_tokens: neither lm-eval nor transformers"):
        measured(own, "--gen_kwargs", "max_gen_tokens=9")
    with pytest.raises(InputError, match="--gen_kwargs max_gen_toks=100000: a prompt and its answer have"):
        measured(own, "--gen_kwargs", "max_gen_toks=100000")


def test_settings_are_told_in_the_manifest_only_where_they_were_given(tmp_path):
    ref = models.resolve("tiny-reasoner", tmp_path)
    assert (
        not {"gen_kwargs", "think_end_token", "chat_template_args"} & run_lm_eval.settings(parsed(), ref, [0.0]).keys()
    )
    args = parsed("--gen_kwargs", "max_new_tokens=9", "temperature=0.5", "--think_end_token", "</think>")
    found = run_lm_eval.settings(args, ref, [0.0])
    assert found["gen_kwargs"] == {"do_sample": True, "temperature": 0.5, "max_gen_toks": 9}
    assert found["think_end_token"] == "</think>"


def test_what_acts_at_some_tokens_only_is_refused():
    for flags in (["--control", "seal"], ["--control", CONTROL, "--tokens", "response"]):
        with pytest.raises(InputError, match=f"--control {flags[1]} acts at some tokens only.*--tokens all"):
            run_lm_eval.chosen_method(parsed(*flags))
    assert not run_lm_eval.chosen_method(parsed("--control", "seal", "--tokens", "all")).conditional


@pytest.mark.parametrize("flags", [["--direction_weight", 1], ["--layer", 1], ["--site", "block_in"]])
def test_how_to_steer_without_what_to_steer_with_is_refused(flags, capsys):
    with pytest.raises(SystemExit):
        parsed(*flags)
    assert "go with --control" in capsys.readouterr().err


REFUSED = {
    "no_such": ("", "no_such: lm-eval has no such task; --include_path"),
    "elsewhere": ("dataset_path: nobody/nothing\n", r"elsewhere: lm-eval cannot load them \("),
    "executes": (
        "custom_dataset: !function questions.load\nunsafe_code: true\n",
        "executes runs what the model writes",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_task_that_cannot_be_run_is_refused_before_a_model_is_loaded(name, tmp_path):
    extra, message = REFUSED[name]
    (tmp_path / "questions.py").write_text((TASKS / "questions.py").read_text())
    lines = "test_split: test\noutput_type: generate_until\ndoc_to_text: question\ndoc_to_target: question\n"
    if extra:
        (tmp_path / "task.yaml").write_text(f"task: {name}\n{lines}{extra}")
    with pytest.raises(InputError, match=message):
        run_lm_eval.check_tasks(TaskManager(include_path=tmp_path, include_defaults=False), [name])


def test_without_lm_eval_the_command_that_installs_it_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(run_lm_eval, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=re.escape("pip install 'lm-eval[hf]==")):
        run(run_lm_eval, tmp_path, "--tasks", CHOICE)
    assert run_lm_eval.PACKAGE in (Path(run_lm_eval.__file__).parents[1] / "requirements-dev.txt").read_text()
