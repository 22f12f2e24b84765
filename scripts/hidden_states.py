"""The states of labelled spans, of every layer, in a file: of questions for reasoning and for memory, say.

    python -m scripts.hidden_states --dataset arithmetic_and_facts
    python -m scripts.hidden_states --model qwen3-8b --dataset mmlu_pro_questions --n_examples 2000

Reads   responses/<model>/<dataset>.jsonl
Writes  states/<model>/<dataset>.<control>.safetensors, to be opened with `safetensors.torch.load_file`: `last` and
        `mean`, both [examples, layers + 1, hidden size]

Entry k of the second dimension is the residual stream that enters block k, the last entry what leaves the last block,
before the final norm. `last` is at the last token where the method reads a span (reasoning_memory: the prompt's last),
in the model's dtype; `mean` is over all tokens up to that one, or, where a method reads more than one token of a span,
over these. A method that reads inside the blocks has an entry per block. The metadata of the file
(`safetensors.safe_open(...).metadata()`) tell `ids`, `samples` and `labels` of the examples, as JSON lists.
"""

import argparse

from thinksteer import cli, models, store
from thinksteer.methods import METHODS
from thinksteer.states import add_flags, make_states


def parse_args() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_model(parser)
    cli.add_loading(parser)
    cli.add_controls(parser, default=["reasoning_memory"])
    add_flags(parser)
    cli.add_artifacts(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    ref = models.of_flags(args)
    for control in args.control:
        path = make_states(args, ref, METHODS[control])
        tensors, _ = store.read_safetensors(path)
        shapes = ", ".join(f"{name} {list(one.shape)} {one.dtype}" for name, one in tensors.items())
        print(f"{path}: {shapes}".replace("torch.", ""))


if __name__ == "__main__":
    cli.run(main)
