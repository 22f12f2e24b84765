"""The tokenizer of a model made here: AutoTokenizer must give the ids that the base model was read and steered with."""

import json
from contextlib import suppress
from pathlib import Path

from thinksteer.files import write_json
from thinksteer.models import ModelRef, load_tokenizer

TEXTS = (
    "Mia has 32 keys.  How many has she now?\n\n",
    " two\n\n\nlines,\ttabs \n and spaces   ",
    "it's I'LL naïve, nai\u0308ve, ﬁne, 日本語, 😀, \u00a0 1234567",
    "def f(x):\n    return x**2  # x²",
    "<think>\nOkay.\n</think>\n\n\\boxed{12}",
)
REWRITTEN = """`tokenizer_config.json` names PreTrainedTokenizerFast, which reads tokenizer.json as it stands: with the
base model's file, AutoTokenizer of transformers {} would give other ids here.
"""
OTHER_IDS = """AutoTokenizer of transformers {} gives other ids for some texts than tokenizer.json, with which this
model was made: load the tokenizer with PreTrainedTokenizerFast.
"""


def keep_ids(base: ModelRef, folder: Path) -> list[str]:
    """Have AutoTokenizer give, in `folder` with the base model's tokenizer files, the ids of `load_tokenizer(base)`.

    AutoTokenizer of transformers 5 takes a class by the model_type and by the class that tokenizer_config.json names.
    LlamaTokenizerFast, which the DeepSeek distillations of Qwen and of Llama name, then makes another tokenizer of the
    same vocabulary, one that drops spaces. Where ids differ, tokenizer_config.json names PreTrainedTokenizerFast, which
    reads tokenizer.json as it stands. For some types (qwen2) transformers ignores the name: all files are kept then.

    Returns what a model card should say of it: nothing where AutoTokenizer is right as it is, or there are no such
    files. InputError: the base model's tokenizer cannot be loaded.
    """
    import transformers

    if not any(folder.glob("tokenizer*")) and not any(folder.glob("vocab*")):
        return []
    wanted = load_tokenizer(base)
    texts = [*TEXTS, *(f"{token}Hi {token}\n" for token in wanted.all_special_tokens)]

    def right() -> bool:
        with suppress(Exception):  # of a class that cannot read these files, whatever it stumbles over
            found = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            return all(
                found(text).input_ids == (ids := wanted(text).input_ids) and found.decode(ids) == wanted.decode(ids)
                for text in texts
            )
        return False

    if right():
        return []
    whole, settings = folder / "tokenizer.json", folder / "tokenizer_config.json"
    before = {file: file.read_bytes() if file.is_file() else None for file in (whole, settings)}
    stated = json.loads(before[settings] or "{}")
    stated.pop("auto_map", None)  # a class of its own
    write_json(settings, {**wanted.special_tokens_map, **stated, "tokenizer_class": "PreTrainedTokenizerFast"})
    if before[whole] is None:
        wanted.backend_tokenizer.save(str(whole))
    if right():
        return [REWRITTEN.format(transformers.__version__)]
    for file, data in before.items():
        file.unlink() if data is None else file.write_bytes(data)
    return [OTHER_IDS.format(transformers.__version__)]
