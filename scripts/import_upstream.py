"""Read published files into the artifacts: ThinkEdit's own, or what publish_artifacts.sh packed.

    python -m scripts.import_upstream ThinkEdit.zip
    python -m scripts.import_upstream --url v2

Reads   a zip or a folder of its files, or what is at an address, which is kept in downloads/ with its sha256
Writes  responses/, directions/, steering/, evaluations/ as the stages do; of our own artifacts all folders

Nothing in the archive is executed: tensors load with weights_only, and paths that lead out of it are refused.
"""

from pathlib import Path

from thinksteer import cli
from thinksteer.archive import fetch, holds_artifacts, unpack
from thinksteer.upstream import ARCHIVES, import_upstream


def main() -> None:
    parser = cli.parser(__doc__)
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("source", nargs="?", type=Path, help="the zip, or the folder it was unpacked to")
    given.add_argument("--url", help=f"fetch this instead: {', '.join(ARCHIVES)} (ThinkEdit's own) or an address")
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"), help="default: %(default)s")
    args = parser.parse_args()
    source = args.source or fetch(ARCHIVES.get(args.url, args.url), args.artifacts / "downloads")
    written = (unpack if holds_artifacts(source) else import_upstream)(source, args.artifacts)
    print("\n".join(str(path) for path in written))
    print(f"{source}: {len(written)} files are in {args.artifacts}")


if __name__ == "__main__":
    cli.run(main)
