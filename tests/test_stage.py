"""What the generating stages make of a model's own generation settings."""

import json
import shutil
import sys

import pytest

import generate_responses
from thinksteer import models, store
from thinksteer.stage import Generator


@pytest.fixture
def generator(tmp_path, monkeypatch):
    """Of the embedded model, with these settings in its generation_config.json besides its own."""

    def made(**stated) -> Generator:
        folder = shutil.copytree(models.TINY_REASONER, tmp_path / "mine", dirs_exist_ok=True)
        file = folder / "generation_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | stated))
        flags = ["--artifacts", str(tmp_path), "--model", str(folder), "--max_length", "20", "--n_questions", "3"]
        monkeypatch.setattr(sys, "argv", ["generate_responses.py", *flags])
        args = generate_responses.parse_args()
        return Generator(args, models.resolve(args.model, args.artifacts))

    return made


def test_settings_that_are_not_carried_are_named_in_one_line_and_in_the_manifest(generator, tmp_path, capsys):
    with generator(num_beams=4, typical_p=0.9, min_p=0.1, bad_words_ids=[[5, 6]], presence_penalty=0.5) as stage:
        assert capsys.readouterr().out == (
            "mine: of its generation_config.json no engine here carries num_beams, typical_p\n"
        )
        stage.write(tmp_path / "responses.jsonl", "arithmetic", [])
    found = store.read_json(store.manifest_path(tmp_path / "responses.jsonl"))["settings"]
    assert found["not_carried"] == {"num_beams": 4, "typical_p": 0.9}
    assert (found["min_p"], found["bad_words_ids"], found["presence_penalty"]) == (0.1, [[5, 6]], 0.5)
    assert found["no_repeat_ngram_size"] == 0 and found["suppress_tokens"] == []


def test_nothing_is_said_where_all_is_carried(generator, capsys):
    with generator() as stage:
        assert capsys.readouterr().out == "" and stage.not_carried == {} and stage.loading.native_sampling
    with generator(min_p=0.1, num_beams=1, suppress_tokens=[7]) as stage:
        assert capsys.readouterr().out == "" and stage.not_carried == {} and not stage.loading.native_sampling
        assert stage.sampling.min_p == 0.1 and stage.sampling.suppress_tokens == (7,)
