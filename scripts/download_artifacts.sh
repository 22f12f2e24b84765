#!/usr/bin/env bash
# Published artifacts, fetched and read in: bash scripts/download_artifacts.sh [--url URL] [--artifacts DIR]
#
# Without --url, or with --url v1, ThinkEdit's own results (second and first version of the paper); else what an address
# holds, theirs or made by publish_artifacts.sh. A download that was cut off goes on when the command is given again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[[ " $*" == *" --url"* ]] || set -- --url v2 "$@"
exec python -m scripts.import_upstream "$@"
