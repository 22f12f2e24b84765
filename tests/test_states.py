"""States on the disk: what is in the file, against the model's own hidden states, and that one pass serves all."""

import json
import sys
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from synthetic import record
from transformers import AutoModelForCausalLM

import extract_directions
from scripts import hidden_states, separate_classes
from thinksteer import models, store
from thinksteer.methods import METHODS
from thinksteer.records import InputError
from thinksteer.states import read_states
from thinksteer.thinking import Reader

LIREFS = METHODS["reasoning_memory"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Responses by hand to questions of both kinds, two samples of each; those to every other question are long."""
    root, ref = tmp_path_factory.mktemp("artifacts"), models.resolve("tiny-reasoner", models.TINY_REASONER)
    tokenizer = models.load_tokenizer(ref)
    close = tokenizer.convert_tokens_to_ids("</think>")
    path = store.responses_path(root, "tiny-reasoner", "arithmetic")
    with store.run(path, {}, [], overwrite=False), store.RecordLog(path) as log:
        for index in range(24):
            asked = f"Max has {10 + index} shells. Monday: Max buys {2 + index % 7}. How many shells now?"
            if index % 2:
                asked = f"What number is on the {('red', 'blue', 'green')[index % 3]} door{' again' * (index // 6)}?"
            text = (
                f"<think>\n3+4=7.\n\nWait, let me check. 7-4=3.\n\n{'7+2=9.' * (index % 2)}\n</think>\n\n\\boxed{{9}}"
            )
            ids = (*tokenizer(text, add_special_tokens=False).input_ids, tokenizer.eos_token_id)
            for sample in (0, 1):
                one = replace(record(f"q{index:02}", sample, ids.index(close) + 1, response=text), token_ids=ids)
                one = replace(one, prompt=ref.template.prompt(asked), response_tokens=len(ids))
                log.append(replace(one, level="memory" if index % 2 else "reasoning"))
    return root


@pytest.fixture
def run(monkeypatch, capsys, root):
    """Run a script on these responses, give what it prints."""

    def called(script, *flags):
        monkeypatch.setattr(sys, "argv", [script.__name__, "--artifacts", str(root), *map(str, flags)])
        script.main()
        return capsys.readouterr().out

    return called


def prompt_states(root, prompts):
    """HF's hidden states of each prompt, `[L + 1, T, D]`, without the final norm."""
    ref = models.resolve("tiny-reasoner", root)
    model = AutoModelForCausalLM.from_pretrained(models.TINY_REASONER, dtype=torch.float32)
    model.model.norm = torch.nn.Identity()
    reader = Reader.of(ref.template, models.load_tokenizer(ref))
    with torch.no_grad():
        ids = [torch.tensor([reader.encode(prompt)]) for prompt in prompts]
        return [torch.cat(model(one, output_hidden_states=True).hidden_states) for one in ids]


def test_the_file_holds_the_models_hidden_states_of_every_prompt(root, run):
    out = run(hidden_states)
    path = store.states_path(root, "tiny-reasoner", "arithmetic", "reasoning_memory")
    assert f"{path}: last [24, 7, 128] float32, mean [24, 7, 128] float32" in out
    with safe_open(path, "pt") as file:
        about = file.metadata()
    ids, labels = json.loads(about["ids"]), json.loads(about["labels"])
    assert ids == [f"q{index:02}" for index in range(24)] and labels == ["reasoning", "memory"] * 12
    records = {one.id: one for one in store.read_records(store.responses_path(root, "tiny-reasoner", "arithmetic"))}
    truth = prompt_states(root, [records[id].prompt for id in ids])
    tensors = load_file(path)
    torch.testing.assert_close(tensors["last"], torch.stack([one[:, -1] for one in truth]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(tensors["mean"], torch.stack([one.mean(dim=1) for one in truth]), rtol=1e-4, atol=1e-4)
    states = read_states(path, LIREFS)
    assert torch.equal(states.read, tensors["last"][:, :6]) and (states.questions, states.labels) == (ids, labels)


@pytest.mark.parametrize("flags", [("--states", "mean"), ()], ids=["mean", "last"])
def test_what_a_method_reads_is_what_its_direction_is_made_of(root, run, flags):
    for script in (hidden_states, extract_directions):
        run(script, "--control", "reasoning_memory", "--overwrite", *flags)
    states = read_states(store.states_path(root, "tiny-reasoner", "arithmetic", "reasoning_memory"), LIREFS).read
    truth = states[0::2].double().mean(dim=0) - states[1::2].double().mean(dim=0)
    found = store.read_direction(store.direction_path(root, "tiny-reasoner", "reasoning_memory"))
    torch.testing.assert_close(found.double(), truth, rtol=0, atol=1e-5)
    assert bool(found[0].any()) == bool(flags)  # what ends every prompt is one token, what is in them is not


def test_readings_of_many_tokens_and_inside_the_blocks_are_kept_too(root, run):
    flags = ("--quantile", 0.4, "--min_examples", 5)
    controls = {"seal": ("last", 7), "thinking_length_attn": ("mean", 6), "thinking_length_mlp": ("mean", 7)}
    run(hidden_states, "--control", *controls, *flags)
    for control, (reads, entries) in controls.items():
        path = store.states_path(root, "tiny-reasoner", "arithmetic", control)
        with safe_open(path, "pt") as file:
            assert file.metadata()["reads"] == reads and file.get_tensor("mean").shape[1:] == (entries, 128)
        assert read_states(path, METHODS[control]).read.shape[1:] == (6, 128)


def test_classes_are_told_apart_in_the_states_that_are_there(root, run):
    control = ("--control", "reasoning_memory")
    run(hidden_states, *control, "--overwrite")
    path = store.states_path(root, "tiny-reasoner", "arithmetic", "reasoning_memory")
    made = path.stat().st_mtime_ns
    out = run(separate_classes, *control)
    assert path.stat().st_mtime_ns == made and "layer 0: balanced 50.0%" in out
    about = store.read_json(store.separability_path(root, "tiny-reasoner", "arithmetic", "reasoning_memory"))
    first, *rest = about["layers"]
    assert (first["direction_auc"]["value"], first["sides_auc"]["value"]) == (0.5, 0.5)
    assert first["cosine"] is None and first["silhouette"] is None and "cosine –, silhouette –" in out
    assert min(one["direction_auc"]["value"] for one in rest) > 0.9 and min(one["cosine"] for one in rest) > 0.2
    with pytest.raises(InputError, match="was made otherwise"):
        run(separate_classes, *control, "--n_examples", 6)


def test_what_the_probe_found_is_a_direction_as_long_as_the_methods_own(root, run):
    for script in (separate_classes, extract_directions):
        run(script, "--control", "reasoning_memory", "--overwrite")
    names = ("reasoning_memory", "reasoning_memory.probe")
    own, probe = (store.read_direction(store.direction_path(root, "tiny-reasoner", name)) for name in names)
    assert not probe[0].any() and probe.dtype == torch.float32
    torch.testing.assert_close(probe.norm(dim=-1), own.float().norm(dim=-1))
    about = store.read_json(store.separability_path(root, "tiny-reasoner", "arithmetic", "reasoning_memory"))
    truth = torch.cosine_similarity(own.float(), probe, dim=-1)[1:]
    torch.testing.assert_close(torch.tensor([one["cosine"] for one in about["layers"][1:]]), truth)


def test_labels_that_none_or_few_have_are_left_out_of_the_probes(run):
    """As in the direction, which pools the labels of a side."""
    out = run(separate_classes, "--control", "uncertainty-estimation.onset", "--min_examples", 5)
    assert "48 uncertainty-estimation, 72 deduction; balanced accuracy by guessing 50.0%" in out
    assert "fewer than 5 questions have them: initializing, adding-knowledge, example-testing, backtracking" in out
