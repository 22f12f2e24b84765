"""The worked example of CONTRIBUTING.md is a method, as it stands there."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch

import extract_directions
import generate_responses
import steer_eval
from thinksteer import models, store
from thinksteer.methods import METHODS
from thinksteer.thinking import Reader

TEXT = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
NAME, MODEL = "figures_words", "tiny-reasoner"


def call(patch, root, stage, *flags):
    patch.setattr(sys, "argv", [stage.__name__, "--artifacts", str(root), *flags])
    stage.main()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Artifacts that the page's commands leave, with few questions."""
    root = tmp_path_factory.mktemp("artifacts")
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    path = root / f"{NAME}.py"
    path.write_text(code, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(NAME, path)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, NAME, module)  # where dataclasses look for the module of their fields
        spec.loader.exec_module(module)
        (method,) = module.METHODS
        patch.setitem(METHODS, method.name, method)
        few = ("--n_questions", "6", "--max_length", "150")
        call(patch, root, generate_responses, *few)
        call(patch, root, extract_directions, "--control", NAME, "--figures", "13579")
        call(patch, root, steer_eval, "--control", NAME, *few)
    return root


def test_the_toy_direction_is_the_plain_difference_of_means(root):
    ref = models.resolve(MODEL, root)
    model, tokenizer = models.load_model(ref, "cpu", "float32"), models.load_tokenizer(ref)
    reader, states = Reader.of(ref.template, tokenizer), {True: [], False: []}
    for record in store.read_records(store.responses_path(root, MODEL, "arithmetic")):
        ids, inside = reader.inside(record)
        with torch.inference_mode():
            hidden = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[1]
        for at in inside:
            states[tokenizer.decode(ids[at]).strip() in set("13579")].append(hidden[0, at].double())
    plain = torch.stack(states[True]).mean(dim=0) - torch.stack(states[False]).mean(dim=0)
    path = store.direction_path(root, MODEL, NAME)
    torch.testing.assert_close(store.read_direction(path)[0].double(), plain, rtol=1e-4, atol=1e-5)
    assert "13579" in store.read_json(store.manifest_path(path))["settings"]["rule"]


def test_it_steers_at_its_own_weights(root):
    summary = store.read_json(store.steering_summary_path(root, MODEL, "arithmetic", NAME))
    assert [point["weight"] for point in summary["points"]] == [-0.1, 0.0, 0.1]
