"""Read ThinkEdit's published files into the artifacts: python -m scripts.import_upstream ThinkEdit.zip

Reads   the zip that upstream publishes (fetched from Google Drive with --download), or a folder of its files
Writes  responses/, directions/, steering/ and evaluations/ as the stages do

Nothing in the archive is executed: tensors load with weights_only, and paths that lead out of it are refused.
"""

from pathlib import Path

import gdown

from thinksteer import cli
from thinksteer.upstream import import_upstream

ZIP_ID = "135ttUxdNc4gQkmbZlpr3ecbhA3_392PE"  # ThinkEdit's README at 0820517: the second version of the paper


def main() -> None:
    parser = cli.parser(__doc__)
    parser.add_argument("source", type=Path, help="the zip, or the folder it was unpacked to")
    parser.add_argument("--download", action="store_true", help="fetch the zip to SOURCE first")
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"), help="default: %(default)s")
    args = parser.parse_args()
    if args.download:
        gdown.download(id=ZIP_ID, output=str(args.source))
    written = import_upstream(args.source, args.artifacts)
    print("\n".join(str(path) for path in written))
    print(f"{len(written)} files imported into {args.artifacts}")


if __name__ == "__main__":
    cli.run(main)
