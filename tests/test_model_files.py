import json

import pytest
import torch
from safetensors.torch import save_file

from thinksteer import model_files
from thinksteer.model_files import fingerprint, generation_config, head_grid, stated_shape
from thinksteer.models import ModelRef, resolve
from thinksteer.records import InputError
from thinksteer.thinking import TEMPLATES


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text(
        json.dumps({"num_hidden_layers": 3, "num_attention_heads": 2, "hidden_size": 8})
    )
    save_file({"w": torch.zeros(4)}, folder / "model.safetensors")
    return ModelRef("mine", str(folder), TEMPLATES["deepseek"])


def test_a_model_of_depth_steps_states_no_number_of_layers():
    assert stated_shape({"num_hidden_layers": 6, "hidden_size": 128}, "m") == (6, 128)
    with pytest.raises(InputError, match="m states no num_hidden_layers: it is not built of layers that run once"):
        stated_shape({"mean_recurrence": 32, "n_embd": 5280}, "m")


def test_a_config_states_how_many_heads_there_are(model, tmp_path):
    assert head_grid(tmp_path / "mine") == (3, 2)
    (tmp_path / "mine" / "config.json").write_text('{"num_hidden_layers": 3}')
    with pytest.raises(InputError, match=r"config.json states no num_attention_heads"):
        head_grid(tmp_path / "mine")


def test_a_model_without_generation_settings_states_none(model, tmp_path):
    assert generation_config(model) == {}
    assert generation_config(resolve("tiny-reasoner", tmp_path))["temperature"] > 0
    (tmp_path / "mine" / "generation_config.json").write_text("[0.6]")
    with pytest.raises(InputError, match=r"generation_config.json is no JSON object: download it again"):
        generation_config(model)


def test_small_weights_tell_models_apart_by_their_hash_and_large_ones_by_their_config(model, monkeypatch):
    assert [file.name for file in fingerprint(model)] == ["config.json", "model.safetensors"]
    monkeypatch.setattr(model_files, "HASHED_BYTES", 8)
    assert [file.name for file in fingerprint(model)] == ["config.json"]
    assert fingerprint(ModelRef("q", "Qwen/Qwen3-8B", TEMPLATES["qwen3"])) == []
