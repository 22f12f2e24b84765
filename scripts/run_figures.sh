#!/usr/bin/env bash
# Set up, then the figures of the README, in a quarter of an hour on two cores: run_figures.sh [seal|behaviours|reasoning|confidence]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/set_up.sh" requirements-common.txt
bash "scripts/pipeline${1:+_$1}.sh" full
