"""The training script on a few steps, and the tokenizer it makes."""

import importlib.util
import sys
from itertools import islice
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from thinksteer.arithmetic import training_texts

SCRIPT = Path(__file__).parent.parent / "scripts" / "train_tiny_reasoner.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("train_tiny_reasoner", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tokenizer(script):
    return script.build_tokenizer()


def train(script, monkeypatch, output: Path, steps: int) -> dict[str, torch.Tensor]:
    monkeypatch.setattr(script, "BATCH_TOKENS", 512)
    monkeypatch.setattr(script, "CHUNK", 2048)
    flags = ["--output", output, "--tokens", 512 * steps, "--layers", 1, "--hidden", 16, "--heads", 2, "--threads", 1]
    monkeypatch.setattr(sys, "argv", ["train", *map(str, flags)])
    script.main()
    return AutoModelForCausalLM.from_pretrained(output).state_dict()


def test_a_training_that_was_stopped_goes_on_to_the_same_weights(script, monkeypatch, tmp_path):
    class Stopped(Exception):
        pass

    whole = train(script, monkeypatch, tmp_path / "whole", 30)
    draw, calls = script.draw_batches, []

    def stop_at_the_second_chunk(*args):
        calls.append(args)
        if len(calls) == 2:
            raise Stopped
        return draw(*args)

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(script, "draw_batches", stop_at_the_second_chunk)
        train(script, patch, tmp_path / "stopped", 30)
    resumed = train(script, monkeypatch, tmp_path / "stopped", 30)
    assert all(torch.equal(resumed[name], weight) for name, weight in whole.items())
    assert (tmp_path / "whole.training" / "loss.png").exists()


def test_every_text_round_trips_also_outside_the_models_world(tokenizer):
    texts = [response for _, response in islice(training_texts("2 0"), 200)]
    for text in [*texts, "Größe ∫ x² dx\n\n\n  3.14\t<think>\nhm</think>"]:
        assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_the_words_of_the_models_world_are_one_token_each(tokenizer):
    text = "Mia has 32 keys. Wednesday: Mia gives 8.\n\nAlternatively, 24+8=32. Good.\n\n\\boxed{24}"
    pieces = "Mia| has| |3|2| keys|.| Wednesday|:| Mia| gives| |8|.|\n\n|"
    pieces += "Alternatively|,| |2|4|+|8|=|3|2|.| Good|.|\n\n|\\boxed|{|2|4|}"
    assert [tokenizer.decode([token]) for token in tokenizer(text).input_ids] == pieces.split("|")


def test_the_saved_tokenizer_is_the_same_one(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    saved = AutoTokenizer.from_pretrained(tmp_path)
    for _, response in islice(training_texts("3 0"), 50):
        assert saved(response).input_ids == tokenizer(response).input_ids


def test_the_prompt_of_the_chat_template_is_the_one_that_was_trained(tokenizer):
    asked = [{"role": "user", "content": "How many?"}]
    prompt = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    assert prompt == "<｜begin▁of▁sentence｜><｜User｜>How many?<｜Assistant｜>"
