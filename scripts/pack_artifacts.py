"""Pack what finished runs left into an archive that others can download: python -m scripts.pack_artifacts OUT.zip

Reads   responses/, directions/, steering/, heads/, evaluations/, reports/, and models/ with --models
Writes  OUT.zip, the same bytes from the same files, and OUT.zip.sha256; scripts/download_artifacts.sh --url reads them

Run manifests are packed as they are: they name the host and the command line.
"""

from pathlib import Path

from thinksteer import cli
from thinksteer.archive import pack


def main() -> None:
    parser = cli.parser(__doc__)
    parser.add_argument("out", type=Path, metavar="OUT.zip")
    parser.add_argument("--models", action="store_true", help="with the weights of edited models, not only their cards")
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"), help="default: %(default)s")
    args = parser.parse_args()
    count, left_out = pack(args.artifacts, args.out, args.models)
    for what, reason in left_out.items():
        print(f"left out: {what}: {reason}")
    print(f"{args.out}: {count} files; put it and {args.out.name}.sha256 at one address")


if __name__ == "__main__":
    cli.run(main)
