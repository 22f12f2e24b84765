import json
import re
import time
from dataclasses import replace

import huggingface_hub
import pytest
import torch
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    MinistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from thinksteer.model_files import config
from thinksteer.models import (
    MODELS,
    ModelRef,
    identity,
    load_model,
    load_tokenizer,
    resolve,
)
from thinksteer.records import InputError
from thinksteer.thinking import TEMPLATES, Prompting

EDITED = {"deepseek-qwen-1.5b", "deepseek-llama3-8b", "deepseek-qwen-14b", "deepseek-qwen-32b"}
DEEPSEEK = ("<｜User｜>", "<｜Assistant｜>", "<think>", "</think>")
QWEN = ("<|im_start|>", "<|im_end|>", "<think>", "</think>")
SIZES = {"vocab_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
SIZES |= {"num_key_value_heads": 1, "head_dim": 4}
CHAT = "{% for m in messages %}{{ m.content }}{% endfor %}{{ '<|im_end|>\n<|im_start|>assistant\n' }}"


def save_checkpoint(folder, special, chat_template=None):
    """A Hugging Face folder with a tiny bfloat16 Qwen2 and a tokenizer that knows the special tokens."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 16, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    config = Qwen2Config(**sizes, num_attention_heads=2, num_key_value_heads=1, bos_token_id=0, eos_token_id=1)
    Qwen2ForCausalLM(config).bfloat16().save_pretrained(folder)
    words = Tokenizer(WordLevel({word: index for index, word in enumerate(("?", *special))}, "?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?")
    tokenizer.chat_template = chat_template
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("models") / "mine", DEEPSEEK)


def test_every_known_model_has_a_known_template_and_every_edited_one_a_base():
    assert {model.template for model in MODELS.values()} <= TEMPLATES.keys()
    edited = {key for key in MODELS if key.startswith("ThinkEdit-")}
    assert {key.removeprefix("ThinkEdit-") for key in edited} == EDITED
    assert MODELS["ThinkEdit-deepseek-llama3-8b"].location == "cesun/ThinkEdit-deepseek-llama3-8b"


def test_a_key_a_hub_id_and_a_folder_are_told_apart(tmp_path, checkpoint):
    key = resolve("deepseek-qwen-1.5b", tmp_path)
    assert (key.location, key.template.name) == ("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", "deepseek")
    folder = resolve(str(checkpoint), tmp_path)
    assert (folder.location, folder.template.name) == (str(checkpoint), "chat")
    hub = resolve("owner/some-model", tmp_path, Prompting("qwen3"))
    assert (hub.key, hub.location, hub.template.name) == ("owner/some-model", "owner/some-model", "qwen3")


def test_a_model_edited_here_comes_before_the_published_one_of_the_same_name(tmp_path):
    name = "ThinkEdit-deepseek-qwen-1.5b"
    assert resolve(name, tmp_path).location == "cesun/ThinkEdit-deepseek-qwen-1.5b"
    made = tmp_path / "models" / name
    made.mkdir(parents=True)
    (made / "config.json").write_text(json.dumps({}))
    assert resolve(name, tmp_path) == ModelRef(name, str(made), TEMPLATES["deepseek"])


def test_an_edited_model_is_prompted_like_its_base(tmp_path):
    made = tmp_path / "models" / "ThinkEdit-qwen3-4b"
    made.mkdir(parents=True)
    (made / "config.json").write_text("{}")
    assert resolve("ThinkEdit-qwen3-4b", tmp_path).template.name == "qwen3"


def test_an_unknown_name_lists_the_known_ones(tmp_path):
    with pytest.raises(InputError, match=r'no model "deepsek".*tiny-reasoner.*qwq-32b'):
        resolve("deepsek", tmp_path)
    with pytest.raises(InputError, match=r'"chatty".*deepseek'):
        resolve("tiny-reasoner", tmp_path, Prompting("chatty"))


@pytest.mark.parametrize("end", ["", "{{ '<think>\n' }}", "{{ '<think>\n\n</think>\n\n' }}"])
def test_a_folders_prompt_is_its_own_chat_template(tmp_path, end):
    """Never that of a family, whatever tokens it shares with one; the prompt tells whether thinking is opened."""
    folder = save_checkpoint(tmp_path / "mine", QWEN, CHAT + end)
    template = resolve(str(folder), tmp_path).template
    opened = {"": "", "{{ '<think>\n' }}": "<think>\n"}.get(end, "<think>\n\n</think>\n\n")
    assert template.prompt("2+2?", " Box it.") == f"2+2? Box it.<|im_end|>\n<|im_start|>assistant\n{opened}"
    assert template.opened_in(template.prompt("q")) == (opened == "<think>\n") and template.name == "chat"


def test_a_chat_template_is_given_a_system_message_and_its_variables(tmp_path):
    chat = "{% for m in messages %}[{{ m.role }}] {{ m.content }} {% endfor %}{{ 'thinks' if enable_thinking else '' }}"
    folder = save_checkpoint(tmp_path / "mine", QWEN, chat)
    asked = Prompting(system="Be brief.", chat_template_kwargs={"enable_thinking": True})
    template = resolve(str(folder), tmp_path, asked).template
    assert template.prompt("2+2?") == "[system] Be brief. [user] 2+2? thinks"
    assert template.settings == {"system": "Be brief.", "chat_template_kwargs": {"enable_thinking": True}}
    with pytest.raises(InputError, match="--system and --chat_template_kwargs go with --template chat, not with qwen3"):
        resolve(str(folder), tmp_path, replace(asked, template="qwen3"))


@pytest.mark.parametrize("special", [QWEN, ("<user>",)])
def test_a_folder_without_a_chat_template_asks_for_a_template(tmp_path, special):
    folder = save_checkpoint(tmp_path / "mine", special)
    with pytest.raises(InputError, match=r"mine has no chat template: give --template, one of deepseek.*plain"):
        resolve(str(folder), tmp_path).template.prompt("q")
    assert resolve(str(folder), tmp_path, Prompting("plain")).template.prompt("q") == "q"


def test_a_model_made_of_a_known_one_is_prompted_as_that_is(tmp_path):
    made = tmp_path / "models" / "steered"
    made.mkdir(parents=True)
    (made / "config.json").write_text("{}")
    (made / "steering.json").write_text('{"base_model": "qwq-32b"}')
    assert resolve("steered", tmp_path).template.name == "qwq"
    assert resolve(str(made), tmp_path).template.name == "qwq"


def test_the_delimiters_are_those_that_are_named(tmp_path):
    template = resolve("qwq-32b", tmp_path, Prompting(think_open="[THINK]", think_close="[/THINK]")).template
    assert (template.open, template.close, template.closing) == ("[THINK]", "[/THINK]", "\n[/THINK]")
    assert resolve("qwq-32b", tmp_path, Prompting(think_close="</t>")).template.open == "<think>"
    with pytest.raises(InputError, match="--thinking response has no marks"):
        Prompting(thinking="response", think_open="[THINK]")
    with pytest.raises(InputError, match="take text, not nothing"):
        Prompting(think_open="")


def test_a_folder_loads_as_float32_on_the_cpu_and_in_the_dtype_asked_for(tmp_path, checkpoint):
    ref = resolve(str(checkpoint), tmp_path)
    model = load_model(ref, device="cpu")
    assert model.dtype == torch.float32 and not model.training
    assert load_model(ref, device="cpu", dtype="bfloat16").dtype == torch.bfloat16
    assert load_tokenizer(ref).convert_tokens_to_ids("<think>") == 3


def test_a_model_is_not_left_on_one_of_several_gpus_for_want_of_accelerate(tmp_path, checkpoint, monkeypatch):
    ref = resolve(str(checkpoint), tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"4 GPUs.*pip install accelerate.*--device cuda"):
        load_model(ref)


def test_impossible_devices_and_dtypes_are_refused(tmp_path, checkpoint, monkeypatch):
    ref = resolve(str(checkpoint), tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="--device cpu"):
        load_model(ref, device="cuda")
    with pytest.raises(InputError, match=r'"int8".*bfloat16'):
        load_model(ref, device="cpu", dtype="int8")


def test_a_folder_without_weights_is_an_error_in_words(tmp_path, checkpoint):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_bytes((checkpoint / "config.json").read_bytes())
    ref = ModelRef("broken", str(broken), TEMPLATES["deepseek"])
    with pytest.raises(InputError, match="broken cannot be loaded"):
        load_model(ref, device="cpu")
    with pytest.raises(InputError, match="broken has no tokenizer files"):
        load_tokenizer(ref)
    assert config(ref) == json.loads((checkpoint / "config.json").read_text())


@pytest.mark.parametrize("offline", [True, False])
def test_a_model_that_is_neither_here_nor_reachable_says_what_to_do_at_once(tmp_path, monkeypatch, offline):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    ref = resolve("deepseek-qwen-32b", tmp_path)
    begun = time.monotonic()
    for load in (load_model, load_tokenizer):
        with pytest.raises(InputError, match=re.escape(f"hf download {ref.location}) or give --model a local folder")):
            load(ref)
    assert config(ref) is None
    assert time.monotonic() - begun < 5


def test_a_run_states_the_recurrence_that_was_asked_for(tmp_path):
    ref = resolve("tiny-reasoner", tmp_path)
    plain = identity(ref, None)
    assert plain == {"model": "tiny-reasoner", "source": "tiny_reasoner"}
    assert identity(ref, 8) == plain | {"mean_recurrence": 8}


@pytest.mark.parametrize(
    "config, says",
    [
        (GPT2Config(vocab_size=8, n_embd=8, n_layer=1, n_head=2), "GPT2LMHeadModel's decoder has no layers, norm"),
        (MinistralConfig(**SIZES, sliding_window=None), "transformers fails to run MinistralForCausalLM"),
        (Qwen2Config(**SIZES, rope_scaling={"rope_type": "dynamic", "factor": 2.0}), "Qwen2ForCausalLM is dynamic"),
        (Qwen2Config(**SIZES, is_causal=False), "Qwen2ForCausalLM lets a token see those after it"),
    ],
)
def test_a_model_that_cannot_be_run_right_is_refused_as_it_is_loaded(tmp_path, config, says):
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=says) as caught:
        load_model(ModelRef("odd", str(tmp_path), TEMPLATES["plain"]), device="cpu")
    assert "\n" not in str(caught.value)
