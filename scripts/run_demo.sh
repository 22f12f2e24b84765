#!/usr/bin/env bash
# Set up, then the whole of ThinkEdit, or of another method, on the embedded model in minutes: run_demo.sh [seal|behaviours|reasoning|confidence]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/set_up.sh" requirements-common.txt
bash "scripts/pipeline${1:+_$1}.sh" demo
