"""AutoTokenizer of a model made here gives the ids of the base model's tokenizer.json."""

import json
import os
import shutil
from pathlib import Path

import pytest
from conftest import save_tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from thinksteer import models
from thinksteer.thinking import Prompting
from thinksteer.tokenizer_files import keep_ids

R1 = Path(os.environ.get("THINKEDIT_TEST_DATA", "../shared/data")) / "r1_tokenizer"
STRINGS = [
    "Mia has 32 keys. How many keys has she now?",
    "  two spaces, a\ttab\n\n\nand lines \n",
    "naïve, nai\u0308ve, 日本語 😀 \u200b ﬁ",
    "x = [1, 2]\nfor i in x:\n    print(i ** 2)  # 1, 4",
    "<think>\nOkay</think>\n\n\\boxed{7}<s>Hi</s> <|User|>Hi",
    "<｜User｜>1 + 1?<｜Assistant｜><think>\n",
    "",
    *(chr(code) * 2 + " " + chr(code) for code in (*range(32, 127), 0x3B1, 0x4E2D, 0xFF5C)),
]


def make(folder: Path, model_type: str, named: str = "LlamaTokenizerFast") -> models.ModelRef:
    folder.mkdir()
    save_tokenizer(folder, named)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    return models.resolve(str(folder), folder.parent / "none", Prompting("plain"))


def made_of(base: models.ModelRef, folder: Path, model_type: str) -> Path:
    shutil.copytree(base.location, folder)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    return folder


def ids(tokenizer) -> list:
    return [tokenizer(text).input_ids for text in STRINGS]


@pytest.mark.parametrize("base_type, model_type", [("qwen2", "llama"), ("llama", "llama"), ("qwen3", "qwen3")])
def test_a_class_of_another_kind_is_replaced(base_type, model_type, tmp_path):
    base = make(tmp_path / "base", base_type)
    wanted = PreTrainedTokenizerFast.from_pretrained(base.location)
    made = made_of(base, tmp_path / "made", model_type)
    assert ids(AutoTokenizer.from_pretrained(made)) != ids(wanted), "the fault that this is about"
    [remark] = keep_ids(base, made)
    found = AutoTokenizer.from_pretrained(made)
    assert ids(found) == ids(wanted) and "PreTrainedTokenizerFast" in remark
    assert [found.decode(one) for one in ids(wanted)] == [wanted.decode(one) for one in ids(wanted)]
    assert (found.bos_token, found.eos_token) == ("<s>", "</s>")
    before, after = (json.loads((Path(one) / "tokenizer_config.json").read_text()) for one in (base.location, made))
    assert before | {"tokenizer_class": "PreTrainedTokenizerFast"} == after
    assert (made / "tokenizer.json").read_bytes() == (Path(base.location) / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("named", ["PreTrainedTokenizerFast", "TokenizersBackend"])
def test_what_is_right_stays_as_it_is(named, tmp_path):
    base = make(tmp_path / "base", "llama", named)
    made = made_of(base, tmp_path / "made", "llama")
    assert keep_ids(base, made) == []
    assert json.loads((made / "tokenizer_config.json").read_text())["tokenizer_class"] == named
    for file in made.glob("tokenizer*"):
        file.unlink()
    assert keep_ids(base, made) == [], "no tokenizer, nothing to keep"


def test_where_the_name_is_ignored_the_files_are_kept_and_it_is_said(tmp_path):
    base = make(tmp_path / "base", "qwen2")
    made = made_of(base, tmp_path / "made", "qwen2")
    before = {file.name: file.read_bytes() for file in made.iterdir()}
    [remark] = keep_ids(base, made)
    assert "load the tokenizer with PreTrainedTokenizerFast" in remark
    assert {file.name: file.read_bytes() for file in made.iterdir()} == before
    assert ids(AutoTokenizer.from_pretrained(made)) == ids(AutoTokenizer.from_pretrained(base.location))


@pytest.mark.parametrize("with_config", [True, False])
def test_a_tokenizer_without_tokenizer_json_gets_one(with_config, tmp_path):
    """A Qwen2 of vocab.json and merges.txt: as a Llama, transformers would look for a tokenizer.model."""
    base = make(tmp_path / "base", "qwen2", "Qwen2Tokenizer")
    folder = Path(base.location)
    core = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "vocab.json").write_text(json.dumps(core["vocab"]))
    (folder / "merges.txt").write_text("".join(f"{' '.join(pair)}\n" for pair in core["merges"]))
    (folder / "tokenizer.json").unlink()
    if not with_config:
        (folder / "tokenizer_config.json").unlink()
    wanted = AutoTokenizer.from_pretrained(folder)
    made = made_of(base, tmp_path / "made", "llama")
    assert len(keep_ids(base, made)) == (0 if with_config else 1)
    found = AutoTokenizer.from_pretrained(made)
    assert ids(found) == ids(wanted) and found.eos_token == wanted.eos_token


@pytest.mark.skipif(not R1.is_dir(), reason=f"{R1} is not there (THINKEDIT_TEST_DATA)")
@pytest.mark.parametrize("model_type", ["llama", "qwen3"])
def test_r1s_own_tokenizer(model_type, tmp_path):
    base = models.resolve(str(R1), tmp_path / "none", Prompting("deepseek"))
    made = made_of(base, tmp_path / "made", model_type)
    for file in made.iterdir():
        file.chmod(0o644)
    assert AutoTokenizer.from_pretrained(made).decode(AutoTokenizer.from_pretrained(made)("a b").input_ids) != "a b"
    assert len(keep_ids(base, made)) == 1
    assert ids(AutoTokenizer.from_pretrained(made)) == ids(models.load_tokenizer(base))
