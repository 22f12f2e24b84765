"""Read published files into the artifacts: ThinkEdit's own, or what publish_artifacts.sh packed.

    python -m scripts.import_upstream ThinkEdit.zip
    python -m scripts.import_upstream --url v2
    python -m scripts.import_upstream traces/ --model deepseek-qwen-1.5b --opened_in_prompt

Reads   a zip or a folder of its files, or what is at an address, which is kept in downloads/ with its sha256; with
        --model its tokenizer, which makes the token ids that ThinkEdit's files lack
Writes  responses/, directions/, steering/, evaluations/ as the stages do; of our own artifacts all folders

Nothing in the archive is executed: tensors load with weights_only, and paths that lead out of it are refused.
"""

import argparse
from pathlib import Path

from thinksteer import cli, models, texts
from thinksteer.archive import fetch, holds_artifacts, unpack
from thinksteer.records import InputError
from thinksteer.upstream import ARCHIVES, import_upstream


def parse_args() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("source", nargs="?", type=Path, help="the zip, or the folder it was unpacked to")
    given.add_argument("--url", help=f"fetch this instead: {', '.join(ARCHIVES)} (ThinkEdit's own) or an address")
    cli.add_model(parser)
    parser.set_defaults(model=None)  # no token ids
    parser.add_argument("--trust_remote_code", action="store_true", help="run Python code that comes with the model")
    cli.add_opened_in_prompt(parser)
    cli.add_artifacts(parser)
    args = parser.parse_args()
    if (args.opened_in_prompt or args.template) and not args.model:
        parser.error("--opened_in_prompt and --template need --model, whose tokenizer counts the thinking")
    return args


def main() -> None:
    args = parse_args()
    source = args.source or fetch(ARCHIVES.get(args.url, args.url), args.artifacts / "downloads")
    if not holds_artifacts(source):
        written = import_upstream(source, args.artifacts, **reading(args), overwrite=args.overwrite)
    elif args.model or args.overwrite:
        raise InputError(f"{source} holds artifacts, which are unpacked as they are: leave out --model and --overwrite")
    else:
        written = unpack(source, args.artifacts)
    print("\n".join(str(path) for path in written))
    print(f"{source}: {len(written)} files are in {args.artifacts}")


def reading(args: argparse.Namespace) -> dict[str, object]:
    """How `import_upstream` is to read texts, by the flags."""
    if not args.model:
        return {}
    ref = models.of_flags(args)
    template = texts.opened(ref.template) if args.opened_in_prompt else ref.template
    about = {"tokenizer": ref.source, "template": template.name, "opened_in_prompt": texts.opens(template)}
    tokenizer = models.load_tokenizer(ref, args.trust_remote_code)
    return {"template": template, "tokenizer": tokenizer, "settings": about}


if __name__ == "__main__":
    cli.run(main)
