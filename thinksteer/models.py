"""Which models there are, what a name given by the user means, and how a model is loaded."""

from __future__ import annotations

import importlib.util
import json
import re
import traceback
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from os.path import isfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from thinksteer.hub import check_available, own_file
from thinksteer.records import InputError
from thinksteer.thinking import CHAT, Prompting, Template

# PyTorch and transformers take seconds to import, and a stage that has nothing to do should end at once: they, and the
# modules that use them, are imported where they are used.
if TYPE_CHECKING:
    from argparse import Namespace

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TINY_REASONER = Path(__file__).parent / "tiny_reasoner"
DEFAULT = Prompting()
EDITED = "ThinkEdit-"  # what the name of an edited model begins with


@dataclass(frozen=True)
class Model:
    """A known model: a hub id or a folder, and its prompt template.

    `own_code`: it comes with Python code of its own, which transformers does not have. `quantile` is the share of the
    longest and of the shortest chains to compare where the paper's 1000 and 100 tokens do not fit.
    """

    location: str
    template: str
    quantile: float | None = None
    own_code: bool = False


_BASE = {
    "tiny-reasoner": Model(str(TINY_REASONER), "deepseek", quantile=0.2),
    "deepseek-qwen-1.5b": Model("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", "deepseek"),
    "deepseek-llama3-8b": Model("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", "deepseek"),
    "deepseek-qwen-14b": Model("deepseek-ai/DeepSeek-R1-Distill-Qwen-14B", "deepseek"),
    "deepseek-qwen-32b": Model("deepseek-ai/DeepSeek-R1-Distill-Qwen-32B", "deepseek"),
}
MODELS: dict[str, Model] = {
    **_BASE,
    **{EDITED + key: Model(f"cesun/{EDITED}{key}", "deepseek") for key in _BASE if key != "tiny-reasoner"},
    "deepseek-qwen-7b": Model("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "deepseek"),
    "qwq-32b": Model("Qwen/QwQ-32B", "qwq"),
    "s1-32b": Model("simplescaling/s1-32B", "s1"),
    **{
        f"qwen3-{size}b": Model(f"Qwen/Qwen3-{size}B", "qwen3", quantile=0.1)
        for size in ("0.6", "1.7", "4", "8", "14", "32")
    },
    "huginn-0125": Model("tomg-group-umd/huginn-0125", "plain", own_code=True),
}

DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class ModelRef:
    """A model as the user named it (`key`: of a folder, its name), where it is (folder or hub id), how it is prompted,
    and which chains of it are long and short (`quantile` of `Model`)."""

    key: str
    location: str
    template: Template
    quantile: float | None = None

    @property
    def source(self) -> str:
        """The hub id, or the folder's name: what a run depends on wherever the folder lies."""
        return Path(self.location).name if Path(self.location).is_dir() else self.location


def resolve(name: str, root: Path, prompting: Prompting = DEFAULT, trust_remote_code: bool = False) -> ModelRef:
    """What `--model NAME` means: an edited model under `root`/models, a key of MODELS, a folder, or a hub id.

    A model of one's own making comes first: `ThinkEdit-deepseek-qwen-1.5b` is also a published model's key. A model of
    the table, or made of one, has its family's template, any other one its tokenizer's chat template, unless
    `prompting` names another.
    """
    made = root / "models" / name
    if isfile(made / "config.json"):  # not Path's: names too long for one are none
        location = str(made)
    elif name in MODELS:
        location = MODELS[name].location
    elif isfile(Path(name) / "config.json") or (_is_hub_id(name) and not Path(name).is_dir()):
        location = name
    else:
        raise InputError(
            f'no model "{name}": it is neither a folder with a config.json, nor made under {root / "models"}, nor a '
            f"hub id (owner/name), nor one of {', '.join(MODELS)}"
        )
    known = MODELS.get(name) or MODELS.get(name.removeprefix(EDITED)) or MODELS.get(_base_of(Path(location)))
    tokenizer = cache(partial(_load_tokenizer, location, trust_remote_code))
    template = prompting.apply(known.template if known else CHAT, tokenizer)
    key = Path(location).resolve().name if Path(location).is_dir() and name not in MODELS else name
    return ModelRef(key, location, template, known.quantile if known else None)


def of_flags(flags: Namespace, name: str | None = None) -> ModelRef:
    """The model that a script's flags name and how they say it is prompted; `name`: one of several."""
    trusted = getattr(flags, "trust_remote_code", False)
    return resolve(name or flags.model, flags.artifacts, Prompting.of(flags), trusted)


def _base_of(folder: Path) -> str:
    """The key of the model that one made here was made from; nothing for any other."""
    for record in ("edit.json", "steering.json"):
        with suppress(OSError, ValueError, KeyError, TypeError):
            return str(json.loads((folder / record).read_text(encoding="utf-8"))["base_model"])
    return ""


def _is_hub_id(name: str) -> bool:
    with suppress(HFValidationError):
        validate_repo_id(name)
        return name.count("/") == 1
    return False


def identity(ref: ModelRef, mean_recurrence: int | None) -> dict[str, Any]:
    """What the settings of a run say of the model."""
    deep = {} if mean_recurrence is None else {"mean_recurrence": mean_recurrence}
    return {"model": ref.key, "source": ref.source} | deep


def check_code(location: str, trusted: bool) -> None:
    """Before anything is downloaded or run: a known model that needs code of its own is loaded on request alone."""
    if not trusted and any(model.own_code and model.location == location for model in MODELS.values()):
        raise _code_asked_for(location)


def _code_asked_for(location: str) -> InputError:
    place = "there" if Path(location).is_dir() else f"at https://huggingface.co/{location}"
    return InputError(
        f"{location} comes with Python code of its own, which runs on this machine: read it {place}, then add "
        "--trust_remote_code"
    )


def _said(error: Exception) -> str:
    """What a library, or a model's own code, says of a model's files, in one line, and what to do."""
    import transformers

    what = " ".join(f"{type(error).__name__}: {error}".split())
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    if not any(_is_own_code(frame.f_globals.get("__name__", "")) for frame in frames):
        cure = "download it again, or give a model that transformers knows"
    elif twice := re.search(r"multiple values for (?:keyword )?argument '(\w+)'", what):
        cure = f"its own code states {twice[1]} itself: take it out of its config.json"
    else:
        cure = f"its own code does not fit transformers {transformers.__version__}: use the version it was written for"
    return f"({what:.300}): {cure}"


def _is_own_code(module: str) -> bool:
    """Of a model, by the name of a Python module."""
    return module.startswith("transformers_modules")


def load_tokenizer(ref: ModelRef, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    return _load_tokenizer(ref.location, trust_remote_code)


def _load_tokenizer(location: str, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    check_code(location, trust_remote_code)
    check_available(location)
    folder = Path(location)
    # Without this, transformers makes up an empty tokenizer.
    if folder.is_dir() and not any(folder.glob("tokenizer*")) and not any(folder.glob("vocab*")):
        raise InputError(f"{location} has no tokenizer files: copy those of the base model there")
    try:
        # tokenizer.json is the tokenizer as it was trained with. AutoTokenizer of transformers 5 takes the class of the
        # architecture instead and rebuilds, for the DeepSeek distillations of Qwen, another one from its vocabulary.
        own = own_file(location, "tokenizer.json") and not (trust_remote_code and _has_tokenizer_code(location))
        loader = PreTrainedTokenizerFast if own else AutoTokenizer
        return loader.from_pretrained(location, trust_remote_code=trust_remote_code)
    except Exception as error:  # of a broken file, whatever the libraries happen to stumble over
        if "trust_remote_code" in str(error):
            raise _code_asked_for(location) from error
        raise InputError(f"the tokenizer of {location} cannot be loaded {_said(error)}") from error


def _has_tokenizer_code(location: str) -> bool:
    file = own_file(location, "tokenizer_config.json")
    return file is not None and "AutoTokenizer" in json.loads(file.read_text(encoding="utf-8")).get("auto_map", {})


def load_model(
    ref: ModelRef,
    device: str = "auto",
    dtype: str = "auto",
    trust_remote_code: bool = False,
    mean_recurrence: int | None = None,
) -> PreTrainedModel:
    """The model, ready to run. `device` "auto": cuda where there is one, split over several (`accelerate`).

    `dtype` "auto": the checkpoint's on cuda, `cpu.auto_dtype` on the CPU. `mean_recurrence`: how often a model of
    recurrent depth runs its core in every forward pass, None: as its config says; the states that it begins with are
    seeded (`recurrent.seed_initial_states`).
    """
    import torch
    from transformers import AutoModelForCausalLM

    from thinksteer import cpu
    from thinksteer.layout import check_runs
    from thinksteer.recurrent import is_recurrent, seed_initial_states

    if device not in ("auto", "cpu") and not torch.cuda.is_available():
        raise InputError(f"--device {device}: PyTorch finds no CUDA device here; use --device cpu")
    if dtype != "auto" and dtype not in DTYPES:
        raise InputError(f'unknown dtype "{dtype}": known are auto, {", ".join(DTYPES)}')
    check_code(ref.location, trust_remote_code)
    check_available(ref.location)
    shard = device == "auto" and torch.cuda.device_count() > 1
    if shard and importlib.util.find_spec("accelerate") is None:
        gpus = f"{torch.cuda.device_count()} GPUs"
        raise InputError(f"{gpus}: pip install accelerate, which splits a model over them, or --device cuda for one")
    target = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    chosen = getattr(torch, dtype) if dtype in DTYPES else cpu.auto_dtype(ref.location) if target == "cpu" else "auto"
    if target == "cpu":
        cpu.set_threads()
    try:
        if trust_remote_code:
            _adapt_own_code(ref.location, trust_remote_code)
        model, found = AutoModelForCausalLM.from_pretrained(
            ref.location,
            dtype=chosen,
            device_map="auto" if shard else None,
            trust_remote_code=trust_remote_code,
            use_safetensors=True,  # never a pickle
            ignore_mismatched_sizes=True,  # which are refused below, by name
            output_loading_info=True,
        )
    except Exception as error:  # as above
        if "trust_remote_code" in str(error):
            raise _code_asked_for(ref.location) from error
        raise InputError(f"{ref.location} cannot be loaded {_said(error)}") from error
    # These would be drawn at random.
    if unfit := sorted([*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"])]):
        few = f"{len(unfit)} of its tensors are missing or of another shape than its config.json says"
        raise InputError(f"{ref.location}: {few}, such as {unfit[0]}: download it again")
    if unfilled := _unfilled_buffer(model):
        raise InputError(
            f"{ref.location}: its own code computes {unfilled} in its constructor, which transformers 5 leaves "
            "unfilled: have the code register it with persistent=True and save it, or use transformers 4"
        )
    if is_recurrent(model):
        seed_initial_states(model)
        model.config.mean_recurrence = mean_recurrence or model.config.mean_recurrence
    elif mean_recurrence is not None:
        raise InputError(f"--mean_recurrence {mean_recurrence}: {ref.key} is no recurrent-depth model; leave it out")
    model = model.eval() if shard else model.eval().to(target)
    check_runs(model)
    return model


def runs_on(model: PreTrainedModel) -> tuple[str, str]:
    """The device and the dtype of a model, in words."""
    import torch

    device = torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else "cpu"
    return device, str(model.dtype).removeprefix("torch.")


def _adapt_own_code(location: str, trust_remote_code: bool) -> None:
    """Fit a model's own code that was written for transformers 4, as Huginn's was, to what transformers 5 asks of it:
    each tied weight with what it is tied to, which was the input embedding, and a call of `post_init`."""
    from transformers import AutoConfig
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    config = AutoConfig.from_pretrained(location, trust_remote_code=trust_remote_code)
    reference = getattr(config, "auto_map", {}).get("AutoModelForCausalLM")
    own = get_class_from_dynamic_module(reference, location) if reference else None
    listed = getattr(own, "_tied_weights_keys", None)
    if not isinstance(listed, list):
        return

    def named(model: PreTrainedModel) -> dict[str, str]:
        embedding = model.get_input_embeddings()
        source = next(f"{name}.weight" for name, module in model.named_modules() if module is embedding)
        return {tied: source for tied in listed if tied != source}

    def construct(model: PreTrainedModel, *args: Any, constructor: Any = own.__init__, **kwargs: Any) -> None:
        constructor(model, *args, **kwargs)
        if not hasattr(model, "all_tied_weights_keys"):
            model.post_init()

    own._tied_weights_keys, own.__init__ = property(named), construct


def _unfilled_buffer(model: PreTrainedModel) -> str | None:
    """A tensor that code of a model's own computes in a constructor and no checkpoint holds. transformers 5 constructs
    on the meta device, and fills only the buffers of its own kind of rotary embedding again."""
    if not _is_own_code(type(model).__module__):
        return None
    for name, _ in model.named_non_persistent_buffers():
        module = model.get_submodule(name.rpartition(".")[0])
        if not ("RotaryEmbedding" in type(module).__name__ and hasattr(module, "original_inv_freq")):
            return name
    return None
