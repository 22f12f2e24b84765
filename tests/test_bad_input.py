"""Bad input to every script: one message that names the culprit and the cure; nothing is half-written, lost or changed.

A row: what is wrong; the command, as a user types it in a folder with `artifacts/` of a small run and files of one's
own in `mine/`; what the message names; how it says to mend it; and what is done to the files before.
"""

import hashlib
import json
import os
import pickle
import re
import shlex
import shutil
import signal
import sys
from importlib import import_module
from pathlib import Path

import huggingface_hub
import pytest
import torch
from damage import (
    ANNOTATIONS,
    ATTN,
    EDITED,
    EVALUATION,
    HEADS,
    MLP,
    MODEL,
    RESPONSES,
    STEERED,
    STEERING,
    STRONGEST,
    TINY,
    WEIGHTS,
    Code,
    Damage,
    archive,
    copy,
    cut,
    folder,
    record,
    remove,
    rewrite,
    run_settings,
    saved,
    sharded,
    stated,
    tensors,
    third,
    unfinished,
    vectors,
    write,
)
from safetensors.torch import save_file

from thinksteer import cli, models, store

ROOT = Path(__file__).parent.parent
SCRIPTS = [
    path
    for path in [*ROOT.glob("*.py"), *ROOT.glob("scripts/*.py")]
    if "\ndef main(" in path.read_text(encoding="utf-8")
]
PROGRESS = re.compile(r"\d+%[|,]|\d*step \[|/s\]|^$")
LARGE = 1 << 18  # bytes; what is larger is told by its times, not its content

NOISE = torch.randn(6, 128, generator=torch.Generator().manual_seed(0))
SMALL, ZERO, NAN = NOISE[:4, :64], torch.zeros(6, 128), torch.full((6, 128), torch.nan)
O_PROJ, DOWN_PROJ = "model.layers.5.self_attn.o_proj.weight", "model.layers.2.mlp.down_proj.weight"
QUESTION = '{"question": "1+1?", "answer": "2"}\n'
CHOICE = '{"question": "a", "options": ["1", "2"], "answer": "A", "answer_index": 0, "category": "math"}\n'
NO_ENDPOINT = "--endpoint http://127.0.0.1:9/v1 --endpoint_model m --retries 0"  # nothing listens there
SOME = "--n_questions 1 --max_length 8"
ASK = f"generate_responses {SOME} --dataset mine --data_file mine/q.jsonl"
OWN = f"generate_responses {SOME} --model {MODEL}"
STEER = f"steer_eval {SOME} --direction_weight 0.3"
EXTRACT = "extract_directions --min_examples 2 --name new --control thinking_length_attn"
EDIT, BAKE = "edit_weights --name new", "export_steered --name new --direction_weight 1"
EXPORT = "export_vector --control thinking_length_mlp --format gguf --output mine/x.gguf"
IMPORT = "import_vector --name mine"
PROBE = r"track_confidence --choices 10-59 --suffix '\boxed{'"
RUN, DIRECTION, ANEW = "run the stage", "make it with stage 2", "--overwrite"
HERE = "--help lists all flags"

# fmt: off
FLAGS = [
    ("an unknown data set", "generate_responses --dataset gsm9k", "--dataset gsm9k", "known are arithmetic"),
    ("an unknown model", "generate_responses --model tiny", 'no model "tiny"', "nor one of tiny-reasoner"),
    ("no place for the model", "get_smollm2", "required: --output", HERE),
    ("an unknown template", "generate_responses --template chatml", "--template: invalid choice: 'chatml'", "'qwen3'"),
    ("an unknown split", "generate_responses --split dev", "--split dev", "train, test"),
    ("a model on no disk", "generate_responses --model nobody/none", "nobody/none is not in the", "hf download"),
    ("code of a model's own", "generate_responses --model huginn-0125", "huginn-0125 comes with",
     "--trust_remote_code"),
    ("a shard that is none", "generate_responses --shard 3/2", "--shard: '3/2'", "stays below N"),
    ("a shard in words", "evaluate_models --shard one", "--shard: 'one'", "such as 0/4"),
    ("more shards than questions", f"generate_responses {SOME} --shard 0/5", "--shard 0/5", "only 1 questions"),
    ("a negative temperature", "generate_responses --temperature -1", "--temperature: -1", "below 0"),
    ("a temperature that is NaN", "steer_eval --temperature nan", "--temperature: 'nan'", "finite number"),
    ("too large a top_p", "generate_responses --top_p 2", "--top_p: 2", "at most 1"),
    ("no samples", "evaluate_models --n_samples 0", "--n_samples: 0", "below 1"),
    ("no tokens", "generate_responses --max_length 0", "--max_length: 0", "below 1"),
    ("half a question", "generate_responses --n_questions 2.5", "--n_questions: '2.5'", "whole number"),
    ("a flag cut short", "generate_responses --max 5", "unrecognized arguments: --max 5", HERE),
    ("a flag without a value", "generate_responses --model", "--model: expected one argument", HERE),
    ("a model twice", f"evaluate_models --model {TINY} {TINY}", "--model: tiny-reasoner", "twice"),
    ("a GPU that is not there", f"generate_responses {SOME} --dataset arithmetic_and_facts --device cuda",
     "--device cuda", "use --device cpu"),
    ("parallel transformers", f"{OWN} --engine hf --tensor_parallel_size 2", "--engine hf", "use --engine vllm"),
    ("depth that a model has not", f"{OWN} --mean_recurrence 4", "--mean_recurrence 4", "leave it out"),
    ("a name that leads out", f"{ASK} --dataset ../x", "'../x' cannot name", "without leading / or .",
     write("mine/q.jsonl", QUESTION)),
    ("a name too long for a file", f"{EDIT}{'x' * 300}", "xxx' cannot name", "give a shorter"),
    ("other settings than before", "generate_responses --n_questions 24 --max_length 200 --seed 3", "seed: 0 -> 3",
     ANEW),
    ("the second of two data sets", f"evaluate_models {SOME} --model {TINY} --dataset reasoning_tasks gsm9k",
     "--dataset gsm9k", "known are"),
    ("a model that was never edited", "evaluate_models", 'no model "ThinkEdit-tiny-reasoner"', "nor made under",
     remove(EDITED)),
    ("a model that changed", f"evaluate_models --model ThinkEdit-{TINY} --n_questions 3 --max_length 60 --n_samples 1",
     "temperature: 0.6 -> 0.7", ANEW, stated(f"{EDITED}/generation_config.json", temperature=0.7)),
]

DATA = [
    ("a data file that is not there", ASK, "mine/q.jsonl: no such file", "correct the path"),
    ("a folder as data file", ASK, "mine/q.jsonl: no such file", "correct the path", folder("mine/q.jsonl")),
    ("a data file of no known kind", ASK.replace("jsonl", "txt"), "mine/q.txt", ".jsonl, .json, .csv, .parquet"),
    ("an empty data file", ASK, "mine/q.jsonl: no rows", "give one", write("mine/q.jsonl", "\n")),
    ("a data file that is not UTF-8", ASK, "mine/q.jsonl line 2", "convert the file to UTF-8",
     write("mine/q.jsonl", QUESTION.encode() + b'{"question": "\xff"}\n')),
    ("a torn data file", ASK, "mine/q.jsonl line 2: broken JSON", "mend it", write("mine/q.jsonl", QUESTION + "{")),
    ("a JSON list as lines", ASK, "mine/q.jsonl line 1", "expected a JSON object",
     write("mine/q.jsonl", f"[{QUESTION.strip()}]\n")),
    ("lines as a JSON list", ASK.replace("jsonl", "json"), "mine/q.json", "expected a JSON list",
     write("mine/q.json", QUESTION)),
    ("brackets without end", ASK, "mine/q.jsonl line 1: broken JSON", "mend it", write("mine/q.jsonl", "[" * 100_000)),
    ("a number without end", ASK, "mine/q.jsonl line 1: broken JSON", "mend it",
     write("mine/q.jsonl", f'{{"question": "a", "answer": {"9" * 5000}}}\n')),
    ("a file without questions", ASK, "mine/q.jsonl line 1: none of the columns question", "--question_column",
     write("mine/q.jsonl", '{"text": "a", "answer": "1"}\n')),
    ("a column that is not there", f"{ASK} --answer_column gold", "no column 'gold'; there are question, answer",
     "--answer_column", write("mine/q.jsonl", QUESTION)),
    ("an answer that is NaN", ASK, "mine/q.jsonl line 1: answer", "text or a number",
     write("mine/q.jsonl", '{"question": "a", "answer": NaN}\n')),
    ("an empty question", ASK, "mine/q.jsonl line 1: question is empty", "fill it",
     write("mine/q.jsonl", '{"question": " ", "answer": "1"}\n')),
    ("half a character", ASK, "mine/q.jsonl line 1: question holds half", "correct it",
     write("mine/q.jsonl", '{"question": "\\ud800", "answer": "1"}\n')),
    ("an id twice", f"{ASK} --n_questions 2 --id_column question", "mine/q.jsonl line 2: the id '1+1?'",
     "give another --id_column", write("mine/q.jsonl", QUESTION * 2)),
    ("fewer questions than asked for", f"{ASK} --n_questions 2", "mine/q.jsonl: has 1 questions", "--n_questions",
     write("mine/q.jsonl", QUESTION)),
    ("too few fields", ASK.replace("jsonl", "csv"), "mine/q.csv line 2", "quote commas",
     write("mine/q.csv", b"\xef\xbb\xbfquestion,answer\r\na\r\n")),
    ("quotes left open", ASK.replace("jsonl", "csv"), "mine/q.csv line 2: broken CSV", "close its quotes",
     write("mine/q.csv", 'question,answer\n"a,1\n')),
    ("a Parquet file that is none", ASK.replace("jsonl", "parquet"), "mine/q.parquet: not a Parquet file",
     "write it again",
     write("mine/q.parquet", "PAR1")),
    ("questions for a data set that is made", f"{ASK} --dataset arithmetic", "--data_file mine/q.jsonl",
     "name the file's with --dataset", write("mine/q.jsonl", QUESTION)),
    ("examples that nothing takes", f"{ASK} --few_shot_file mine/q.jsonl", "--few_shot_file mine/q.jsonl",
     "take no worked examples", write("mine/q.jsonl", QUESTION)),
    ("a choice that is not there", f"{ASK} --dataset mmlu_elementary_math", "mine/q.jsonl line 1: answer '5'",
     "letter of its 2 choices", write("mine/q.jsonl", '{"question": "a", "choices": ["1", "2"], "answer": 5}\n')),
    ("a gold without an answer", f"{ASK} --dataset gsm8k", "mine/q.jsonl line 1: answer lacks `#### answer`",
     "with --dataset", write("mine/q.jsonl", '{"question": "1+1?", "answer": "1+1=2\\nA: 2"}\n')),
    ("a solution without an answer", f"{ASK} --dataset MATH", "mine/q.jsonl line 1: solution", "\\boxed",
     write("mine/q.jsonl", '{"problem": "a", "solution": "none"}\n')),
    ("no level of difficulty", f"{ASK} --dataset MATH-level5", "mine/q.jsonl line 1: none of the columns level",
     "add it",
     write("mine/q.jsonl", '{"problem": "a", "solution": "\\\\boxed{1}"}\n')),
    ("a problem without tests", f"{ASK} --dataset livecodebench", "mine/q.jsonl line 1", "LiveCodeBench's format",
     write("mine/q.jsonl", '{"question_content": "a", "public_test_cases": "["}\n')),
    ("a question longer than the model reads", ASK, "the prompt of 'mine-train-0' has", "shorten the question",
     write("mine/q.jsonl", json.dumps({"question": "keys " * 2100, "answer": "1"}))),
    ("artifacts in a file", f"{ASK} --artifacts mine/q.jsonl", "mine/q.jsonl/responses", "give another path",
     write("mine/q.jsonl", QUESTION)),
    ("a file where a folder is needed", f"{ASK} --artifacts new", "new/responses", "give another path",
     write("mine/q.jsonl", QUESTION), write("new/responses", "")),
]

MODELS = [
    ("a model without config", OWN, f'no model "{MODEL}"', "folder with a config.json", remove(f"{MODEL}/config.json")),
    ("a broken config", OWN, f"'{MODEL}/config.json' is not a valid JSON file", "download it again",
     write(f"{MODEL}/config.json", "{")),
    ("an unknown architecture", OWN, f"{MODEL} cannot be loaded", "a model that transformers knows",
     stated(f"{MODEL}/config.json", model_type="mine")),
    ("another architecture than the weights'", OWN, "transformer.h.0", "download it again",
     stated(f"{MODEL}/config.json", model_type="gpt2", architectures=["GPT2LMHeadModel"])),
    ("more layers than weights", OWN, "num_hidden_layers", "download it again",
     stated(f"{MODEL}/config.json", num_hidden_layers=7)),
    ("no tokenizer", OWN, f"{MODEL} has no tokenizer files", "copy those",
     remove(f"{MODEL}/tokenizer.json"), remove(f"{MODEL}/tokenizer_config.json")),
    ("half a tokenizer", OWN, f"the tokenizer of {MODEL}", "download it again", cut(f"{MODEL}/tokenizer.json")),
    ("a tokenizer of other JSON", OWN, f"the tokenizer of {MODEL}", "download it again",
     write(f"{MODEL}/tokenizer.json", "{}")),
    ("a tokenizer without a chat template", OWN, MODEL, "give --template, one of deepseek",
     write(f"{MODEL}/tokenizer.json", json.dumps({"version": "1.0", "added_tokens": [], "model":
           {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}})), remove(f"{MODEL}/chat_template.jinja")),
    ("a tokenizer without the template's BOS", f"{OWN} --template deepseek", "template deepseek", "has no such token",
     stated(f"{MODEL}/tokenizer_config.json", bos_token=None)),
    ("no weights", OWN, "no file named model.safetensors", "download it again", remove(WEIGHTS)),
    ("half the weights", OWN, f"{MODEL} cannot be loaded (SafetensorError", "download it again", cut(WEIGHTS)),
    ("a git-lfs pointer", OWN, f"{MODEL} cannot be loaded (SafetensorError", "download it again",
     write(WEIGHTS, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")),
    ("weights that are NaN", OWN, "logits are not finite", "whole weights",
     tensors(lambda found: found[DOWN_PROJ].fill_(torch.nan))),
    ("weights that are infinite", f"{OWN} --temperature 0", "logits are not finite", "whole weights",
     tensors(lambda found: found[O_PROJ].fill_(torch.inf))),
    ("a tensor that is missing", OWN, f"such as {DOWN_PROJ}", "download it again",
     tensors(lambda found: found.pop(DOWN_PROJ))),
    ("a tensor of another shape", OWN, f"such as {DOWN_PROJ}", "download it again",
     tensors(lambda found: found.update({DOWN_PROJ: torch.zeros(5, 5)}))),
    ("a shard that is missing", OWN, "model-00002-of-00002.safetensors", "download it again",
     sharded(), remove(f"{MODEL}/model-00002-of-00002.safetensors")),
    ("broken generation settings", OWN, f"{MODEL}/generation_config.json is not JSON", "download it again",
     write(f"{MODEL}/generation_config.json", "{")),
    ("generation settings that are no numbers", OWN, "temperature is 'hot'", "generation_config.json",
     stated(f"{MODEL}/generation_config.json", temperature="hot")),
    ("generation settings that are no tokens", OWN, "suppress_tokens is 5", "generation_config.json",
     stated(f"{MODEL}/generation_config.json", suppress_tokens=5)),
    ("generation settings that leave nothing", OWN, "suppress_tokens of", "generation_config.json",
     stated(f"{MODEL}/generation_config.json", suppress_tokens=[*range(620)])),
]

RECORDS = [
    ("responses that are not there", f"{EXTRACT} --dataset other", f"{TINY}/other.jsonl is missing", RUN),
    ("a folder as responses", EXTRACT, f"{RESPONSES} is missing", RUN, folder(RESPONSES)),
    ("responses cut short", EXTRACT, f"{RESPONSES} ends within a line", ANEW, cut(RESPONSES)),
    ("a line that is no JSON", EXTRACT, f"{RESPONSES}:3: Expecting", "remove the line", third(lambda line: b"junk\n")),
    ("a line that is not UTF-8", EXTRACT, f"{RESPONSES}:3: 'utf-8'", "remove the line", third(lambda line: b"\xff\n")),
    ("a byte order mark", EXTRACT, f"{RESPONSES}:1: Unexpected UTF-8 BOM", "remove the line",
     rewrite(RESPONSES, lambda data: b"\xef\xbb\xbf" + data)),
    ("a JSON list for a record", EXTRACT, f"{RESPONSES}:3: not a JSON object", "remove the line",
     third(lambda line: b"[" + line.strip() + b"]\n")),
    ("a record without a field", EXTRACT, f"{RESPONSES}:3: not a record: 'seed' missing", "remove the line",
     record(seed=...)),
    ("a record with a field too many", EXTRACT, f"{RESPONSES}:3: not a record: 'x' unknown", "remove the line",
     record(x=1)),
    ("a record with another type", EXTRACT, f"{RESPONSES}:3: not a record: 'sample' is True", "remove the line",
     record(sample=True)),
    ("a record twice", EXTRACT, "occurs twice", "remove one of the two lines", third(lambda line: line * 2)),
    ("responses without tokens", EXTRACT, "has text but no token ids", "import it with --model",
     record(token_ids=[])),
    ("responses of another model", EXTRACT, "recorded as closed", "pass the --template",
     record(token_ids=[5, 6, 7, 99999999])),
    ("shards beside the whole", EXTRACT, "arithmetic.jsonl and shards of 2 are mixed", "keep one",
     copy(RESPONSES, RESPONSES.replace(".jsonl", ".0-of-2.jsonl"))),
    ("a shard that was not run", EXTRACT, "arithmetic.1-of-2.jsonl missing", "with the missing --shard",
     lambda: Path(RESPONSES).rename(RESPONSES.replace(".jsonl", ".0-of-2.jsonl"))),
    ("responses that are not finished", EXTRACT, f"{RESPONSES} is not finished", "run again", unfinished(RESPONSES)),
    ("a broken manifest", EXTRACT, f"{RESPONSES}.run.json is not JSON", "restore it",
     write(f"{RESPONSES}.run.json", "{")),
    ("a manifest that is none", EXTRACT, f"{RESPONSES}.run.json is no JSON object", "restore it",
     write(f"{RESPONSES}.run.json", "[]")),
    ("responses that changed since", "extract_directions --min_examples 2", "input responses/", ANEW, record(seed=1)),
]

DIRECTIONS = [
    ("thresholds that cross", f"{EXTRACT} --long_above 50 --short_below 100", "--short_below 100", "be the smaller"),
    ("thresholds and a share", f"{EXTRACT} --long_above 50 --quantile 0.1", "--long_above", "give either pair"),
    ("matching without a share", f"{EXTRACT} --match prompt_tokens --long_above 50", "--match", "give either pair"),
    ("more than all chains", f"{EXTRACT} --quantile 0.7", "--quantile 0.7", "in (0, 0.5]"),
    ("thresholds that no chain passes", f"{EXTRACT} --long_above 900 --short_below 3", "0 long and 0 short",
     "would give enough"),
    ("too few examples, when overwriting", "extract_directions --min_examples 99 --overwrite", "at least 99",
     "generate more responses"),
    ("one name for two directions", "extract_directions --name a", "--name", "with one --control"),
    ("an unknown control", "extract_directions --control wait", "--control: invalid choice: 'wait'", "'seal'"),
    ("spans never drawn again", f"{EXTRACT} --min_reroll_rate 0.8", "rerolls.jsonl is missing", RUN),
    ("annotations that are not there", f"{EXTRACT} --annotations gpt", "annotations/gpt/", RUN),
    ("annotations of other responses", f"{EXTRACT} --annotations keywords", ANNOTATIONS, ANEW,
     rewrite(RESPONSES, lambda data: data[: data.rindex(b"\n", 0, -1) + 1])),
    ("no direction", f"{STEER} --control seal", "seal.safetensors is missing", RUN),
    ("a direction of another model", STEER, "shape (4, 64), the model [layers, hidden size] (6, 128)", DIRECTION,
     vectors(SMALL)),
    ("a direction that is NaN", STEER, f"{ATTN} holds no finite tensor", DIRECTION, vectors(NAN)),
    ("a direction of whole numbers", STEER, f"{ATTN} holds no finite tensor", DIRECTION, vectors(NOISE.long())),
    ("a direction that is zero", STEER, f"{ATTN} has no vector for all layers", "other --layer", vectors(ZERO)),
    ("a file without a direction", STEER, f"{ATTN} holds no finite tensor", DIRECTION,
     lambda: store.write_safetensors(Path(ATTN), {"vector": NOISE}, {})),
    ("half a direction", STEER, f"{ATTN} is not a safetensors file", "make it again", cut(ATTN)),
    ("an empty direction", STEER, f"{ATTN} is not a safetensors file", "make it again", write(ATTN, "")),
    ("a folder as direction", f"{STEER} --direction x", "x.safetensors is not a safetensors file", "make it again",
     folder(ATTN.replace("thinking_length_attn", "x"))),
    ("no norms to scale by", f"{STEER} --scale overall", f"{ATTN} holds no tensor `overall_norm`", "another --scale",
     vectors(NOISE)),
    ("norms of other layers", f"{STEER} --scale overall", f"{ATTN}: `overall_norm`", DIRECTION,
     vectors(NOISE, overall_norm=torch.ones(3))),
    ("a layer that is not there", f"{STEER} --layer 99", "--layer 99", "are 0 to 5"),
    ("a layer below the first", f"{STEER} --layer -1", "--layer -1", "are 0 to 5"),
    ("a layer by another count", f"{STEER} --layer 0 --layer_numbering hidden_states", "--layer 0", "are 1 to 6"),
    ("a layer twice", f"{STEER} --layer 2 2", "--layer: 2", "twice"),
    ("a strongest layer never looked for", f"{STEER} --layer strongest", f"{STRONGEST} is missing",
     "scripts.layer_effects"),
    ("a strongest layer that is not there", f"{STEER} --layer strongest", "strongest is 99", "make it again",
     write(STRONGEST, '{"strongest": 99}')),
    ("a file without a strongest layer", f"{STEER} --layer strongest", f"{STRONGEST} is no JSON object with strongest",
     "make it again", write(STRONGEST, "{}")),
    ("an infinite weight", "steer_eval --direction_weight inf", "--direction_weight: 'inf'", "finite number"),
    ("a weight beyond floats", f"{STEER}e300", "attn_out of layer 0", "give a smaller weight"),
    ("a weight twice", "steer_eval --direction_weight 0 -0.0", "--direction_weight: -0.0", "twice"),
    ("layers together without layers", f"{STEER} --together", "--together", "goes with --layer"),
    ("words for a direction", f"{STEER} --words wait", "--words", "go with penalties"),
    ("words that no token has", f"{STEER} --control seal_penalty --words qqzz", "--words qqzz", "give others"),
    ("a seed for nothing random", f"{STEER} --control_seed 3", "--control_seed 3", "--control_direction random"),
    ("a vector of a layer that is not there", f"{STEER} --from_layer 99", "--from_layer 99", "layers 0 to 5"),
    ("a direction that changed since", "steer_eval --n_questions 3 --max_length 60 --direction_weight 0.4",
     "input directions/", ANEW, vectors(NOISE)),
]

HEADS_AND_EDITS = [
    ("a rule of another method", "find_short_heads --overwrite", f"{ATTN}: '{{\"keywords\"", DIRECTION,
     vectors(NOISE, about={"rule": '{"keywords": "corrected", "n_correct": 5, "n_incorrect": 5}'})),
    ("an imported direction", "find_short_heads --overwrite", f"{ATTN} does not say which chains are short", DIRECTION,
     vectors(NOISE, about={})),
    ("a direction without length", "find_short_heads --min_examples 2 --overwrite", "zero or not finite", "row(s) [0,",
     vectors(ZERO)),
    ("more heads than there are", "find_short_heads --min_examples 2 --overwrite --n_heads 99", "--n_heads 99",
     "48 heads"),
    ("two numbers of heads", "find_short_heads --n_heads 2 --head_fraction 0.1", "--head_fraction", "not allowed with"),
    ("more than all heads", "find_short_heads --head_fraction 2", "--head_fraction: 2", "at most 1"),
    ("heads that are no heads", EDIT, f"{HEADS} is no JSON object with heads, scores", "make it again",
     write(HEADS, "[]")),
    ("a head without number", EDIT, f"{HEADS} is not as stage 4 writes it", "make it again",
     stated(HEADS, heads=[{"layer": 1}])),
    ("no head", EDIT, f"{HEADS} names no head", "make it again", stated(HEADS, heads=[])),
    ("scores that are NaN", f"{EDIT} --n_heads 3", "not finite", "head scores",
     stated(HEADS, scores=[[torch.nan] * 8] * 6)),
    ("a head in no layer", EDIT, "head (99, 0)", "make both from this model",
     stated(HEADS, heads=[{"layer": 99, "head": 0}])),
    ("a head that the layer has not", EDIT, "no head 9", "has 8, counted from 0",
     stated(HEADS, heads=[{"layer": 1, "head": 9}])),
    ("a direction for another edit", EDIT, "direction (4, 64)", "make both from this model", vectors(SMALL)),
    ("heads that were never published", "edit_weights --heads published", "--heads published", "leave the flag out"),
    ("an edit of an edit", f"edit_weights --model ThinkEdit-{TINY}", f"{EDITED} is an edited model",
     "edit its base model"),
    ("too strong an edit", f"{EDIT} --intervention_weight 1e300", "--intervention_weight 1e+300", "is not finite"),
    ("an edit under the base's name", f"edit_weights --name {TINY}", f"--name {TINY}", "name the edited one otherwise"),
    ("a model of unknown origin in the way", f"{EDIT} --overwrite", "models/new has no new.run.json", "move it away",
     write("artifacts/models/new/mine.txt", "")),
    ("another edit in the way", "edit_weights --n_heads 1", "chosen: ", ANEW),
    ("no more heads for a control", f"{EDIT} --control_heads random", "--control_heads random", "only 18 are left",
     stated(HEADS, heads=[{"layer": n // 8, "head": n % 8} for n in range(30)])),
    ("an index that names another file", f"{EDIT} --model {MODEL}", "lacks model.norm.weight", "download it again",
     sharded(**{"model.norm.weight": "model-00002-of-00002.safetensors"})),
    ("an index that leads out", f"{EDIT} --model {MODEL}", "'../x.safetensors', outside", "the checkpoint",
     sharded(**{"model.norm.weight": "../x.safetensors"})),
    ("quantised weights", f"{EDIT} --model {MODEL}", f"{WEIGHTS}: {O_PROJ} is stored as I8", "that is not quantised",
     tensors(lambda found: found.update({O_PROJ: found[O_PROJ].to(torch.int8)}))),
    ("only pickled weights", f"{EDIT} --model {MODEL}", "only .bin weights", "save_pretrained",
     remove(WEIGHTS), write(f"{MODEL}/pytorch_model.bin", "")),
    ("a config without heads", f"{EDIT} --model {MODEL}", "states no num_attention_heads", "attention heads",
     stated(f"{MODEL}/config.json", num_attention_heads=...)),
    ("a model that cannot be baked", f"{BAKE} --model {MODEL}", "type gpt2", "steer at run time",
     stated(f"{MODEL}/config.json", model_type="gpt2")),
    ("weights for some controls", f"{BAKE} 2 3", "--direction_weight: 3 values for 1 controls", "give one or each"),
    ("a bias at some tokens", f"{BAKE} --control seal", "--control seal", "steer at run time"),
    ("a bias beyond floats", f"{BAKE}e300", "attn_out of layer 0", "give a smaller weight"),
    ("a bias in a layer that is not there", f"{BAKE} --layer 99", "no layer 99", "has 6, counted from 0"),
]

ANALYSIS = [
    ("nothing to analyse", "analyze_results --artifacts empty", "not evaluated under empty", "run stage 6 or 3"),
    ("a model never evaluated", "analyze_results --models other", "under artifacts: other", "run stage 6 or 3"),
    ("an instruction never given", "analyze_results --instruction Think", "--instruction", "run evaluate_models.py"),
    ("an evaluation that is not finished", "analyze_results", f"{EVALUATION} is not finished", "run again",
     unfinished(EVALUATION)),
    ("an evaluation cut short", "analyze_results --overwrite", f"{EVALUATION} ends within a line", ANEW,
     cut(EVALUATION)),
    ("an empty evaluation", "analyze_results --overwrite", f"{EVALUATION} is empty", "run evaluate_models.py",
     write(EVALUATION, "")),
    ("an edit without its base", "analyze_results", f"{EDITED}/edit.json is no JSON object with base_model",
     "make it again",
     write(f"{EDITED}/edit.json", "{}")),
    ("a summary that is none", "analyze_results", f"{STEERING}/summary.json is no JSON object", "make it again",
     write(f"{STEERING}/summary.json", "[]")),
    ("other questions of base and edit", "analyze_results --overwrite", "share no (question, sample)",
     "evaluate both on the same questions", rewrite(EVALUATION, lambda data: data.replace(b'"id": "a', b'"id": "b'))),
    ("an evaluation that changed since", "analyze_results", "input evaluations/", ANEW,
     rewrite(EVALUATION, lambda data: data[: data.rindex(b"\n", 0, -1) + 1])),
    ("reports in a file", "analyze_results --overwrite", "artifacts/reports: File exists", "give another path",
     remove("artifacts/reports"), write("artifacts/reports", "")),
    ("nothing that papers say of", "verify_paper", "no finished records of a published model",
     "scripts.import_upstream"),
    ("a change in one sample", f"questions_needed --model {TINY} ThinkEdit-{TINY}", "3 responses to 3 questions",
     "generate two of each"),
    ("a change of nothing", f"questions_needed --model {TINY}", "--model", "expected 2 arguments"),
    ("no edit to choose", "choose_edit empty", "empty holds no evaluation", "run evaluate_models.py"),
    ("no artifacts to choose from", "choose_edit", "required: artifacts", HERE),
    ("an edit without accuracy", "choose_edit artifacts", "metrics.json is no JSON object with accuracy",
     "make it again",
     write(f"artifacts/evaluations/ThinkEdit-{TINY}/arithmetic/metrics.json", "{}")),
]

ANNOTATORS = [
    ("records from elsewhere", "annotate mine/r.jsonl", "mine/r.jsonl is not under --artifacts",
     "mirrors the files there",
     copy(RESPONSES, "mine/r.jsonl")),
    ("an endpoint without its model", "annotate --annotator judge --endpoint http://localhost/v1", "--annotator judge",
     "--endpoint_model"),
    ("an endpoint that is no URL", "annotate --annotator judge --endpoint_model m --endpoint localhost:8000",
     "--endpoint localhost:8000", "give a URL such as http://"),
    ("an endpoint with no such port",
     "annotate --annotator judge --endpoint_model m --endpoint http://127.0.0.1:99999/v1",
     "--endpoint http://127.0.0.1:99999/v1", "give a URL such as http://"),
    ("an endpoint where nothing listens", f"annotate --annotator judge {NO_ENDPOINT}", "http://127.0.0.1:9/v1 (m)",
     "see to the server"),
    ("a limit of costs without prices", f"annotate --annotator judge {NO_ENDPOINT} --max_cost 1", "--max_cost",
     "--price_in"),
    ("answers that are none", f"annotate --annotator judge {NO_ENDPOINT}", "artifacts/judge/m.jsonl:1: not an answer",
     "remove the line", write("artifacts/judge/m.jsonl", "{}\n")),
    ("a local annotator without its model", "annotate --annotator local", "--annotator local", "--annotator_model"),
    ("tokens of another text", "annotate --name new", "tokens are not its text", "generate it anew",
     record(response="another", token_ids=[5, 6], status="no_think", thinking_tokens=None)),
    ("annotations that were made otherwise", "annotate --n_responses 3", "n_responses: null -> 3", ANEW),
    ("one annotator twice", "annotator_agreement keywords keywords", "keywords is given twice", "name two"),
    ("an annotator that never was", "annotator_agreement keywords gpt", "annotations/gpt/", RUN),
    ("annotations that are none", "annotator_agreement keywords other",
     "other/responses/tiny-reasoner/arithmetic.jsonl:1",
     "remove the line", copy("artifacts/annotations/keywords", "artifacts/annotations/other"),
     write(ANNOTATIONS.replace("keywords", "other"), '{"id": 1}\n')),
    ("no behaviour steered", "behaviour_effects", "no finished steering, of controls named after initializing",
     "run steer_eval.py"),
    ("steering by no behaviour", "behaviour_effects --control thinking_length_attn",
     "by thinking_length_attn, of controls",
     "run steer_eval.py"),
    ("one model to compare", "compare_behaviours", "--model", "give two models"),
    ("a model never annotated", f"compare_behaviours --model {TINY} ThinkEdit-{TINY}",
     "no finished annotations by keywords",
     f"scripts.annotate artifacts/responses/ThinkEdit-{TINY}"),
    ("a rule that stops early", "class_statistics --n_correct 1 --n_incorrect 1", "passes over responses",
     "raise its numbers"),
    ("a class never found", "class_statistics --control reasoning_memory", "finds no span",
     "there are 24 responses"),
    ("chains that are no thoughts", "reroll_spans --control thinking_length_attn",
     "invalid choice: 'thinking_length_attn'",
     "'seal'"),
    ("no thought to draw again", "reroll_spans --control seal", "at least 1 of each", "generate more responses"),
]

INSIDE = [
    ("a layer to print that is not there", "compare_directions --layer 99", "--layer 99", "are 0 to 5"),
    ("nothing to compare", "compare_directions", f"artifacts/directions/{TINY} holds no direction", DIRECTION,
     remove(ATTN), remove(MLP)),
    ("a direction to compare of another model", "compare_directions --direction thinking_length_attn",
     f"{ATTN} is zero or of another model ([4, 64]", "leave it out", vectors(SMALL)),
    ("pairs that are not there", "control_vectors --pairs_file mine/p.json", "mine/p.json is missing",
     "the stage that writes"),
    ("no pairs", "control_vectors", "--pairs --pairs_file", "is required"),
    ("pairs without fillings", "control_vectors --pairs_file mine/p.json", "mine/p.json", 'give {"fillings"',
     write("mine/p.json", b'\xef\xbb\xbf{"pairs": []}')),
    ("a pair of the same", "control_vectors --pairs_file mine/p.json", "mine/p.json: number 1 of 'fillings'",
     "two different texts", write("mine/p.json", '{"fillings": [["a", "a"]]}')),
    ("thinking in a question", "control_vectors --pairs_file mine/p.json", "'a <think>' holds <think>",
     "leave out thinking blocks", write("mine/p.json", '{"fillings": [["a <think>", "b"]]}')),
    ("layers that are not there", "control_vectors --pairs effort --layers 9-20", "--layers 9-20",
     "give blocks 0 to 5"),
    ("layers in words", "control_vectors --pairs effort --layers all", "--layers all", "give blocks 0 to 5"),
    ("states of kinds that data lack", "hidden_states", "0 reasoning and 0 memory",
     "generate responses to more questions"),
    ("no states", "hidden_states --n_examples 0", "--n_examples: 0", "below 1"),
    ("too few to tell apart", "separate_classes --control thinking_length_attn --min_examples 2", "4 questions",
     "generate responses to more"),
    ("one label to tell apart", "separate_classes --control deduction", "invalid choice: 'deduction'", "'seal'"),
    ("a coefficient that is NaN", "layer_effects --coef nan", "--coef: 'nan'", "finite number"),
    ("a coefficient beyond floats", "layer_effects --control thinking_length_attn --coef 1e300", "--coef 1e+300",
     "give another"),
    ("no coefficient", "layer_effects --control thinking_length_attn --coef 0", "--coef 0", "give another"),
    ("effects of kinds that data lack", "layer_effects --control reasoning_memory",
     "--dataset arithmetic is of reasoning",
     "take another", vectors(NOISE, ATTN.replace("thinking_length_attn", "reasoning_memory"), {})),
    ("a random direction twice", "layer_effects --control_seeds 1 1", "--control_seeds: 1", "twice"),
    ("steering that never was", "level_effects --dataset other", "other has no finished steering", "run steer_eval.py"),
    ("a control never steered by", "level_effects --control seal", "by seal; there is thinking_length_attn",
     "run steer_eval.py"),
    ("a kind that is not there", "level_effects --levels memory", "--levels memory", "arithmetic has 4 days"),
    ("no weight 0", "level_effects", "no finished weight 0", "steer with that, too",
     remove(f"{STEERING}/0.0.jsonl"), remove(f"{STEERING}/0.0.jsonl.run.json")),
    ("budgets that differ", "level_effects", "at most 60 and 99 tokens", "keep those of one",
     run_settings(STEERED, max_length=99)),
    ("a file named after no weight", "level_effects", f"{STEERING}/mine.jsonl is not named after a weight",
     "move it away",
     copy(STEERED, f"{STEERING}/mine.jsonl"), copy(f"{STEERED}.run.json", f"{STEERING}/mine.jsonl.run.json")),
    ("broken steered records", "level_effects", f"{STEERED}:3", "remove the line",
     third(lambda line: b"junk\n", STEERED)),
]

CONFIDENCE = [
    ("one choice", "track_confidence --choices 1", "--choices 1", "two or more different"),
    ("a choice twice", "track_confidence --choices a A", "--choices a A", "two or more different"),
    ("an empty choice", "track_confidence --choices '' a", "--choices  a", "two or more different"),
    ("choices that one cannot tell apart", "track_confidence --choices a ab --suffix is", "'a' begins 'ab'",
     "choose others"),
    ("a chain without steps", "track_confidence --every 0", "--every: 0", "below 1"),
    ("no records to probe", PROBE, f"{RESPONSES} holds no records", "generate some first", write(RESPONSES, "")),
    ("records of another model", f"{PROBE} artifacts/evaluations/ThinkEdit-{TINY}/arithmetic/default.jsonl",
     "holds responses of ThinkEdit-tiny-reasoner", "give --model"),
    ("a direction of before", f"{PROBE} {STEERED}", f"{ATTN} is not what {STEERED} was made with", "--unsteered",
     vectors(NOISE)),
    ("steering that says not how", f"{PROBE} {STEERED}", f"{STEERED} does not say how", "--unsteered",
     run_settings(STEERED, direction=...)),
    ("steering without a manifest", f"{PROBE} {STEERED}", f"{STEERED} does not say how it was steered", "--unsteered",
     remove(f"{STEERED}.run.json")),
    ("chains without tokens", PROBE, "has text but no token ids", "import it with --model", record(token_ids=[])),
]

EXCHANGE = [
    ("a format without a control", "export_vector --format gguf --output mine/x.gguf", "required: --control", HERE),
    ("a place that a format has not", f"{EXPORT} --control thinking_length_attn", "add at attn_out",
     "--format lm-eval"),
    ("a layer counted in no way", f"{EXPORT} --layer 3", "--layer 3", "--layer_numbering"),
    ("a layer to export that is not there", f"{EXPORT} --layer 9 --layer_numbering block", "no block 9",
     "has 6, counted from 0"),
    ("nothing to export", f"{EXPORT} --direction_weight 0", "--direction_weight 0", "zero, or too large"),
    ("SEAL's file under another name", f"{EXPORT} --format seal --layer 2 --layer_numbering block", "mine/x.gguf",
     "call it layer_3_transition"),
    ("tokens that a format cannot tell", f"{EXPORT} --tokens response", "--tokens response", "they steer at all"),
    ("a file below a file", f"{EXPORT.replace('x.gguf', 'v.gguf')}/x.gguf", "mine/v.gguf", "give another path"),
    ("an export that is there", f"{EXPORT.replace('x.gguf', 'v.gguf')} --direction_weight 2", "weight: 1.0 -> 2.0",
     ANEW),
    ("a vector that is not there", f"{IMPORT} mine/none.gguf", "mine/none.gguf cannot be read", "give a .gguf"),
    ("a folder as vector", f"{IMPORT} mine", "mine cannot be read", "give a .gguf"),
    ("half a GGUF", f"{IMPORT} mine/v.gguf", "mine/v.gguf is a broken GGUF", "fetch it again", cut("mine/v.gguf")),
    ("a vector of no kind", f"{IMPORT} mine/v.gguf", "mine/v.gguf is no tensor file", "give one of torch.save's",
     write("mine/v.gguf", "no vector")),
    ("a vector of no layer", f"{IMPORT} mine/v.pt", "mine/v.pt does not say of which layer", "give --layer",
     saved(NOISE[0])),
    ("a vector of another size", f"{IMPORT} mine/v.pt --layer 2 --layer_numbering block", "3 layers of 64 values",
     "from another model", saved(NOISE[0, :64])),
    ("a vector that is infinite", f"{IMPORT} mine/v.pt --layer 2 --layer_numbering block", "mine/v.pt", "make it anew",
     saved(NOISE[0] / 0)),
    ("vectors that hold code", f"{IMPORT} mine/v.pt", "mine/v.pt is no tensor file, or holds code",
     "give one of torch.save's",
     saved(Code())),
    ("a bare pickle", f"{IMPORT} mine/v.pt", "mine/v.pt is no tensor file", "give one of torch.save's",
     write("mine/v.pt", pickle.dumps([1.0]))),
    ("coefficients for some files", f"{IMPORT} mine/v.gguf --coefficients 1 2", "--coefficients: 2 for 1",
     "one for each"),
    ("vectors that cancel out", f"{IMPORT} mine/v.gguf mine/v.gguf --coefficients 1 -1", "sum up to zero",
     "give other --coefficients"),
    ("a direction read elsewhere", f"{IMPORT} {ATTN}", f"{ATTN} was read at mid", "not added there"),
    ("a direction that says nothing of itself", f"{IMPORT} mine/o.safetensors", "mine/o.safetensors was read at None",
     "not added there", lambda: save_file({"direction": NOISE}, "mine/o.safetensors")),
    ("an archive that is not there", "import_upstream none.zip", "none.zip is neither", "give what was published"),
    ("a zip that is no zip", "import_upstream mine/b.zip", "mine/b.zip is neither", "give what was published",
     write("mine/b.zip", "PK")),
    ("half a zip", "import_upstream mine/a.zip --artifacts new", "mine/a.zip is neither", "give what was published",
     cut("mine/a.zip")),
    ("an archive of other things", "import_upstream mine/b.zip", "mine/b.zip holds no file that upstream publishes",
     "give the folder or zip", archive(("a.txt", ""))),
    ("an archive that leads out", "import_upstream mine/b.zip", "member '../x.json' leads out", "do not trust",
     archive(("../x.json", ""))),
    ("an archive with code", "import_upstream mine/b.zip --artifacts new", "member 'responses/m/a.pt'", "do not trust",
     archive(("responses/m/a.jsonl.run.json", "{}"), ("responses/m/a.pt", ""))),
    ("responses of another layout", "import_upstream mine/b.zip", "responses/m_gsm8k.json is not laid out",
     "as upstream writes it", archive(("responses/m_gsm8k.json", "[1]"))),
    ("a question that is no text", "import_upstream mine/b.zip", "responses/m_gsm8k.json is not laid out",
     "[0].question is {'q': '1+1?'}, not text",
     archive(("responses/m_gsm8k.json", '[{"question": {"q": "1+1?"}, "response": "2", "thinking": "", '
              '"thinking_length": -1}]'))),
    ("thinking that the prompt opened", "import_upstream mine/b.zip", "1 of 1 responses hold </think>",
     "give --opened_in_prompt",
     archive(("responses/m_gsm8k.json", '[{"question": "1+1?", "response": "Two.</think>2", "thinking": "", '
              '"thinking_length": -1}]'))),
    ("responses without end", "import_upstream mine/b.zip", "responses/m_gsm8k.json is not laid out",
     "as upstream writes it", archive(("responses/m_gsm8k.json", "[" * 100_000))),
    ("an artifact that is there and different", "import_upstream mine/a.zip", f"{HEADS} is there already", "move it",
     write(HEADS, "{}")),
    ("an address where nothing listens", "import_upstream --url http://127.0.0.1:9/x.zip",
     "http://127.0.0.1:9/x.zip cannot",
     "where it is within reach"),
    ("an address that is none", "import_upstream --url v3", "v3 cannot be had", "where it is within reach"),
    ("behaviours of another model", "import_behaviours mine/v.pt", "[layers, hidden size] [4, 64]",
     "give its own --model",
     saved({name: {"mean": SMALL, "count": 1} for name in ("overall", "deduction")})),
    ("the second of two files", "import_behaviours mine/v.pt mine/x.json", "mine/x.json is not laid out",
     "as upstream writes",
     saved({name: {"mean": NOISE, "count": 1} for name in ("overall", "deduction")}), write("mine/x.json", "[1]")),
    ("behaviours without text", "import_behaviours mine/x.json --template plain", "mine/x.json is not laid out",
     "[0].full_response is None, not text",
     write("mine/x.json", '[{"original_message": "Q?", "full_response": null, "annotated_thinking": null}]')),
    ("behaviours that hold code", "import_behaviours mine/v.pt", "mine/v.pt is no tensor file, or holds code",
     "give one of torch.save's", saved(Code())),
    ("nothing to pack", "pack_artifacts mine/new.zip --artifacts empty", "empty holds nothing", "run the stages first"),
    ("an archive that is there", "pack_artifacts mine/a.zip", "mine/a.zip is there already", "write elsewhere"),
]

OTHERS = [
    ("no task", "run_lm_eval --tasks ''", "--tasks: one of the names is empty", HERE),
    ("tasks in no folder", "run_lm_eval --tasks a --include_path mine/none", "--include_path: mine/none is no folder",
     HERE),
    ("tasks steered at some tokens", "run_lm_eval --tasks piqa --control seal", "--control seal", "use steer_eval.py"),
    ("a weight without a control", "run_lm_eval --tasks piqa --direction_weight 1", "its weight", "go with --control"),
    ("questions without options", "score_questions --data_file mine/q.jsonl",
     "mine/q.jsonl line 1: none of the columns options",
     "add it", write("mine/q.jsonl", QUESTION)),
    ("a score above 1", "score_questions --data_file mine/q.jsonl", "mine/q.jsonl line 1: memory_reason_score",
     "from 0 to 1",
     write("mine/q.jsonl", CHOICE.replace("}", ', "memory_reason_score": 3}'))),
    ("a scorer that nobody runs", f"score_questions --scorer judge {NO_ENDPOINT} --data_file mine/q.jsonl",
     "http://127.0.0.1:9/v1 (m)", "see to the server", write("mine/q.jsonl", CHOICE)),
    ("a scorer without its model", "score_questions --scorer judge", "--scorer judge", "--endpoint_model"),
    ("data in a file", "split_arithmetic mine/a.zip", "mine/a.zip: File exists", "give another path"),
    ("no data", "split_arithmetic mine/d --n_questions 0", "--n_questions: 0", "below 1"),
    ("tasks under another name", f"write_tasks mine/t.txt {NO_ENDPOINT}", "mine/t.txt", "must end in .jsonl"),
    ("tasks that nobody writes", f"write_tasks mine/t.jsonl {NO_ENDPOINT}", "http://127.0.0.1:9/v1 (m)",
     "see to the server"),
    ("tasks from nowhere", "write_tasks mine/t.jsonl", "--endpoint", "they say where to ask"),
    ("no training", "train_tiny_reasoner --tokens 0 --output mine/m", "--tokens 0", "give as many at least"),
    ("heads of half a number", "train_tiny_reasoner --heads 7 --output mine/m", "--heads 7", "an even number of heads"),
    ("no layers to train", "train_tiny_reasoner --layers 0 --output mine/m", "--layers: 0", "below 1"),
    ("a checkpoint that is none", "train_tiny_reasoner --tokens 5000 --layers 1 --hidden 16 --output mine/m",
     "mine/m.training/checkpoint.pt", "give one of torch.save's", write("mine/m.training/checkpoint.pt", "junk")),
    ("engines without a direction", "check_engines", f"{ATTN} is missing", RUN, remove(ATTN)),
    ("engines without a data set", "check_engines --dataset gsm9k", "--dataset gsm9k", "known are arithmetic"),
    ("a benchmark of no model", "benchmark --model tiny", 'no model "tiny"', "nor one of tiny-reasoner"),
    ("a benchmark of pipelines", "benchmark --pipeline_parallel_size 2", "pipelines", "use --tensor_parallel_size"),
    ("a benchmark without a data set", "benchmark --engine hf --dataset gsm9k", "--dataset gsm9k",
     "known are arithmetic"),
]
# fmt: on

ROWS = [
    *(*FLAGS, *DATA, *MODELS, *RECORDS, *DIRECTIONS, *HEADS_AND_EDITS, *ANALYSIS),
    *(*ANNOTATORS, *INSIDE, *CONFIDENCE, *EXCHANGE, *OTHERS),
]


def call(command: str) -> object:
    """What a script exits with, run in this process."""
    name, *flags = shlex.split(command)
    script = import_module(name if (ROOT / f"{name}.py").is_file() else f"scripts.{name}")
    handlers = {request: signal.getsignal(request) for request in (signal.SIGTERM, signal.SIGUSR1)}
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr(sys, "argv", [f"{name}.py", *flags])
        try:
            cli.run(script.main)
        finally:
            for request, handler in handlers.items():
                signal.signal(request, handler)
    return end.value.code


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`artifacts/` of a small run, and files of one's own in `mine/`."""
    place = tmp_path_factory.mktemp("place")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        shutil.copytree(models.TINY_REASONER, MODEL)
        for command in (
            "generate_responses --n_questions 24 --max_length 200",
            "extract_directions --min_examples 2",
            "steer_eval --n_questions 3 --max_length 60 --direction_weight 0 0.4",
            "find_short_heads --min_examples 2",
            "edit_weights",
            "evaluate_models --n_questions 3 --max_length 60 --n_samples 1",
            "analyze_results",
            "annotate",
            "export_vector --control thinking_length_mlp --format gguf --output mine/v.gguf",
            "pack_artifacts mine/a.zip",
        ):
            assert call(command) == 0, command
        for kind in ("directions", "heads"):
            shutil.copytree(f"artifacts/{kind}/{TINY}", f"artifacts/{kind}/model")
    return place


def link(source: str, target: str) -> None:
    """A copy; of what is only ever replaced, not written into, a second name."""
    shutil.copy2(source, target) if source.endswith(".jsonl") else os.link(source, target)


def snapshot(place: Path) -> dict[str, object]:
    """Every file, hidden ones too, with its content."""

    def content(path: Path) -> object:
        about = path.stat()
        if about.st_size < LARGE:
            return hashlib.sha256(path.read_bytes()).hexdigest()
        return about.st_size, about.st_mtime_ns, about.st_ino

    return {str(path.relative_to(place)): content(path) for path in place.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "command, culprit, cure, damage", [pytest.param(*row[1:4], row[4:], id=row[0]) for row in ROWS]
)
def test_bad_input_is_told_in_one_message_and_changes_nothing(
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    culprit: str,
    cure: str,
    damage: tuple[Damage, ...],
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    here = shutil.copytree(place, tmp_path / "place", copy_function=link)
    monkeypatch.chdir(here)
    for one in damage:
        one()
    before = snapshot(here)
    capsys.readouterr()
    code = call(command)
    lines = [line for line in re.split(r"[\r\n]", capsys.readouterr().err) if not PROGRESS.search(line)]
    assert code == cli.USAGE
    assert lines[0].startswith("error: ") and sum(line.startswith("error: ") for line in lines) == 1
    message = "\n".join(lines)
    assert culprit in message and cure in message and "Traceback" not in message
    assert snapshot(here) == before


def test_every_row_has_a_name_of_its_own_and_every_script_has_rows() -> None:
    assert len({row[0] for row in ROWS}) == len(ROWS) >= 130
    assert {row[1].split()[0] for row in ROWS} == {path.stem for path in SCRIPTS}


def test_every_script_ends_as_these_rows_run_it() -> None:
    for path in SCRIPTS:
        assert path.read_text(encoding="utf-8").endswith('if __name__ == "__main__":\n    cli.run(main)\n'), path


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
@pytest.mark.parametrize("path, mode", [(RESPONSES, 0), (str(Path(ATTN).parent), 0o500)])
def test_files_and_folders_without_permission_are_named(place, tmp_path, monkeypatch, capsys, path, mode):
    here = shutil.copytree(place, tmp_path / "place", copy_function=link)
    monkeypatch.chdir(here)
    Path(path).chmod(mode)
    assert call(EXTRACT) == cli.USAGE
    message = capsys.readouterr().err
    assert path in message and "Permission denied: change its permissions" in message
    Path(path).chmod(0o700)
