#!/usr/bin/env bash
# Set up, lint, test: bash scripts/run_tests.sh [pytest arguments]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/set_up.sh" requirements-cpu.txt requirements-dev.txt

ruff check .
ruff format --check .
python -m pytest --numprocesses 2 --dist loadfile "$@"
