"""Whether a baked checkpoint computes what its base model does under steering, and figures to check it by elsewhere."""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thinksteer import store
from thinksteer.models import ModelRef, load_model, load_tokenizer
from thinksteer.records import Edit, InputError
from thinksteer.steering import applied
from thinksteer.tables import Column, Table
from thinksteer.tables import markdown as as_markdown

PROMPTS = (
    "What is 17 + 25? Let us think step by step.\n\n17 + 25 =",
    "The colours of the French flag are blue, white and",
)
TOP = 5  # of the next tokens
# What the logits of the checkpoint may differ by from those of steering at run time: a share of what steering does to
# them (the rounding of a 16-bit bias makes less than a hundredth), and of their size, for the rounding of float32.
OF_EFFECT, OF_LOGITS = 0.05, 1e-4

COLUMNS = (
    Column("prompt", "text"),
    Column("next token", "text"),
    Column("id", "count"),
    Column("log-probability", "rate"),
    Column("in the base model", "rate"),
)
NOTE = """Prompts: {prompts}. In transformers {version}, in float32, steering moves the logits of both by up to
{effect:g}; those of this checkpoint differ from those of steering at run time by at most {difference:g}."""
RUNTIMES = """## Check

Checkpoints made this way were run in transformers 5.19 and vLLM 0.32. Other runtimes are unchecked. Several (converters
to GGUF, SGLang, MLC) may leave out biases of `o_proj` and `down_proj` without a message, and then run the base model.
"""
NOT_RUN = """
This checkpoint was not run when it was made: {}. The same command with --overwrite, on a machine with more, adds two
prompts and the probabilities of their next tokens.
"""
SNIPPET = """
In this folder, with more digits from `steering.json` (below 0.001 in float32, of the order of 0.1 in bfloat16):

```python
import json, torch, transformers
model = transformers.AutoModelForCausalLM.from_pretrained(".", dtype="float32")
for one in json.load(open("steering.json"))["check"]["prompts"]:
    found = model(torch.tensor([one["ids"]])).logits[0, -1].log_softmax(-1)[one["next_ids"]]
    print((found - torch.tensor(one["logprobs"])).abs().max().item())
```
"""


def gigabytes_available() -> float:
    """Memory that this process can get: of the machine, or what its control groups' limits (SLURM's) leave."""
    free = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    with suppress(OSError):  # Linux has these files
        free.append(1024 * _entry(Path("/proc/meminfo"), "MemAvailable:"))
        own = Path("/proc/self/cgroup").read_text().splitlines()[-1].split(":")[-1]
        group = Path("/sys/fs/cgroup", own.lstrip("/"))
        for one in [group, *group.parents]:
            with suppress(OSError, ValueError):  # no such file, or "max"
                free.append(int((one / "memory.max").read_text()) - _entry(one / "memory.stat", "anon"))
    return min(free) / 1e9


def _entry(file: Path, name: str) -> int:
    return next(int(line.split()[1]) for line in file.read_text().splitlines() if line.split()[0] == name)


def check(base: ModelRef, baked: ModelRef, edits: Sequence[Edit]) -> dict[str, Any]:
    """The next tokens of PROMPTS and their natural-log probabilities, on the CPU in float32, one model after the other.

    Both are in folders. `logprobs` are the baked model's, `base_logprobs` the base model's without steering. Where the
    memory does not suffice, only that is said, as `not_run`. InputError: the baked model's logits, at any position, are
    not those of the base model under the edits.
    """
    import transformers

    weights = store.checkpoint_tensors(Path(base.location)).values()
    needed, available = 2 * 4e-9 * sum(tensor.numel() for tensor in weights), gigabytes_available()
    if needed > available:
        return {"not_run": f"that takes {needed:.1f} GB of memory, {available:.1f} GB were available"}
    tokenizer = load_tokenizer(base)
    ids = [tokenizer(prompt).input_ids for prompt in PROMPTS]
    unsteered, wanted = _logits(base, ids, ((), edits))
    [found] = _logits(baked, ids, ((),))
    effect, difference = (_largest(one, wanted) for one in (unsteered, found))
    size = torch.cat(wanted).abs().max().item()
    if not difference <= OF_EFFECT * effect + OF_LOGITS * size:  # "not": it may be NaN
        moved = (
            f"steering moves its logits by up to {effect:.3g}, those of the baked checkpoint are {difference:.3g} off"
        )
        raise InputError(f"{base.location}: {moved}: steer at run time instead (steer_eval.py)")
    figures = []
    for prompt, row, *both in zip(PROMPTS, ids, found, unsteered, strict=True):
        own, plain = (logits[-1].log_softmax(-1) for logits in both)
        best = own.topk(TOP).indices.tolist()
        about = {"prompt": prompt, "ids": row, "next_ids": best, "next_tokens": [tokenizer.decode([id]) for id in best]}
        names = ("logprobs", "base_logprobs")
        of_best = {name: one[best].tolist() for name, one in zip(names, (own, plain), strict=True)}
        figures.append(about | {name: [round(value, 4) for value in values] for name, values in of_best.items()})
    return {
        "transformers": transformers.__version__,
        "largest_effect": float(f"{effect:.3g}"),
        "largest_difference": float(f"{difference:.3g}"),
        "prompts": figures,
    }


def _logits(ref: ModelRef, ids: Sequence[list[int]], steerings: Sequence[Sequence[Edit]]) -> list[list[Tensor]]:
    """For each steering, those of each row of ids `[T, V]`."""
    model, found = load_model(ref, "cpu", "float32"), []
    for edits in steerings:
        with torch.no_grad(), applied(model, edits):
            found.append([model(torch.tensor([row])).logits[0] for row in ids])
    return found


def _largest(one: list[Tensor], other: list[Tensor]) -> float:
    return (torch.cat(one) - torch.cat(other)).abs().max().item()


def markdown(check: dict[str, Any]) -> str:
    """The section of a model card."""
    if "not_run" in check:
        return RUNTIMES + NOT_RUN.format(check["not_run"])
    prompts = check["prompts"]
    rows = [
        (str(number), json.dumps(token), id, own, base)
        for number, one in enumerate(prompts, start=1)
        for token, id, own, base in zip(
            *(one[key] for key in ("next_tokens", "next_ids", "logprobs", "base_logprobs")), strict=True
        )
    ]
    shown = "; ".join(f"{number}. {json.dumps(one['prompt'])}" for number, one in enumerate(prompts, start=1))
    effect, difference = check["largest_effect"], check["largest_difference"]
    note = NOTE.format(prompts=shown, version=check["transformers"], effect=effect, difference=difference)
    return RUNTIMES + "\n" + as_markdown(Table("check", "Next tokens", COLUMNS, tuple(rows), note)) + SNIPPET
