#!/usr/bin/env bash
# Finished artifacts in one archive: bash scripts/publish_artifacts.sh [--artifacts DIR] [--models] OUT.zip
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec python -m scripts.pack_artifacts "$@"
