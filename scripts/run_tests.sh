#!/usr/bin/env bash
# Set up, lint, test: bash scripts/run_tests.sh [pytest arguments]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/set_up.sh" requirements-cpu.txt requirements-dev.txt
python -m pip install --quiet --no-deps repeng==0.4.0 # it asks for numpy 1, and does without

ruff check .
ruff format --check .
python -m pytest --numprocesses 2 --dist loadfile "$@"
