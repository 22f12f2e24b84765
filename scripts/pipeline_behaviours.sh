#!/usr/bin/env bash
# Behaviours on the embedded model, from responses to effects: bash scripts/pipeline_behaviours.sh {demo|full}
#
# demo: minutes, few questions. full: the figures of docs/behaviours.md. It shares the responses of scripts/pipeline.sh,
# computes nothing twice, and can be stopped at any time and started again. ARTIFACTS names another root.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case ${1:-} in
    demo) responses=1500 steered=200 seeds=(0) ;;
    full) responses=3000 steered=500 seeds=(0 1 2) ;;
    *) echo "error: say demo or full" >&2 && exit 2 ;;
esac
root=${ARTIFACTS:-artifacts/$1}
here=(--artifacts "$root")
length=(--max_length 320)
# What the embedded model does: restate the question, deduce, check, switch. It never tries examples.
published=(initializing deduction uncertainty-estimation backtracking)
onsets=("${published[@]/%/.onset}")

# Which behaviour is where in the thinking, what its states point at, and in which layer that matters to what comes next.
python generate_responses.py "${here[@]}" "${length[@]}" --n_questions "$responses"
python -m scripts.annotate "${here[@]}" --annotator keywords
python extract_directions.py "${here[@]}" --annotations keywords --control "${published[@]}" "${onsets[@]}"
python -m scripts.compare_directions "${here[@]}" --direction "${published[@]}" "${onsets[@]}" --layer 5
python -m scripts.layer_effects "${here[@]}" --annotations keywords --control "${published[@]}"
python -m scripts.layer_effects "${here[@]}" --annotations keywords --control "${onsets[@]}"

# Less and more of it, in the layer of the largest effect, beside random directions of the same norm.
steer() { # weights... -- flags
    local weights=()
    while [ "$1" != -- ]; do weights+=("$1") && shift; done
    python steer_eval.py "${here[@]}" "${length[@]}" --n_questions "$steered" --data_seed 2 --layer strongest \
        --direction_weight "${weights[@]}" --control "${@:2}"
}
steer -0.2 -0.1 0 0.1 0.2 -- "${onsets[@]}"
steer -1 -0.5 0 0.5 1 -- "${published[@]}"
for seed in "${seeds[@]}"; do
    random=(--control_direction random --control_seed "$seed")
    steer -0.2 0.2 -- "${onsets[@]}" "${random[@]}"
    steer -1 1 -- "${published[@]}" "${random[@]}"
done

steered_files=("$root"/steering/tiny-reasoner/arithmetic/{initializing,deduction,uncertainty-estimation,backtracking}*/*.jsonl)
python -m scripts.annotate "${here[@]}" --annotator keywords "${steered_files[@]}"
python -m scripts.behaviour_effects "${here[@]}"
