#!/usr/bin/env bash
# Set up, then the whole of ThinkEdit on the embedded model in minutes: bash scripts/run_demo.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/set_up.sh" requirements-common.txt
bash scripts/pipeline.sh demo
