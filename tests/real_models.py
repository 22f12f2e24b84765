"""Real tokenizers and a real model for the tests; where one is missing, the test that asks for it is skipped."""

import fcntl
import json
import os
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from scripts.get_smollm2 import unpack
from thinksteer.records import InputError

DATA = Path(os.environ.get("THINKEDIT_TEST_DATA", Path(__file__).parents[1].parent / "shared" / "data"))


def r1_tokenizer(thinking_tokens: bool = True) -> PreTrainedTokenizerFast:
    """That of DeepSeek-R1-Distill-Qwen; without its tokens for the delimiters of thinking, that of Qwen2.5."""
    folder = DATA / "r1_tokenizer"
    if not folder.is_dir():
        pytest.skip(f"{folder} is missing: set THINKEDIT_TEST_DATA to the folder that has it")
    if thinking_tokens:
        return PreTrainedTokenizerFast.from_pretrained(folder)
    core = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    core["added_tokens"] = [one for one in core["added_tokens"] if "think" not in one["content"]]
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(core)))


def unpacked_smollm2(folder: Path) -> Path:
    """SmolLM2-135M-Instruct in a folder that test processes share; made by the first that comes."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "SmolLM2-135M-Instruct"
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            try:
                unpack(target)
            except InputError as error:
                pytest.skip(str(error))
    return target
