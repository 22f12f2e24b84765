#!/usr/bin/env bash
# Reasoning against memory on the embedded model, from questions to effects: bash scripts/pipeline_reasoning.sh {demo|full}
#
# demo: minutes, one sample of each question. full: the figures of docs/reasoning.md. What is finished is not computed
# again, so either can be stopped at any time and started again. ARTIFACTS names another root.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case ${1:-} in
    demo) samples=1 seeds=(0) ;;
    full) samples=4 seeds=(0 1 2) ;;
    *) echo "error: say demo or full" >&2 && exit 2 ;;
esac
root=${ARTIFACTS:-artifacts/$1}
here=(--artifacts "$root" --dataset arithmetic_and_facts)
asked=(--n_questions 288 --max_length 320) # the 48 facts and 240 chains

# Are questions of both kinds told apart, where, and what does their difference do to what is said next?
python generate_responses.py "${here[@]}" "${asked[@]}"
python extract_directions.py "${here[@]}" --control reasoning_memory
python -m scripts.separate_classes "${here[@]}" --control reasoning_memory --layers 0 1 2 3 4 5
python -m scripts.layer_effects "${here[@]}" --control reasoning_memory

# As in LiReFs' code, then with parts of it otherwise; the chains are others than those the direction was read from.
steer() {
    python steer_eval.py "${here[@]}" "${asked[@]}" --n_samples "$samples" --control reasoning_memory --direction_weight "$@"
}
steer -1 -0.5 -0.1 0 0.05 0.1 0.2
steer -1 0 --direction reasoning_memory.probe
steer -1 0 --tokens response
steer -1 0 --site block_in --from_layer own --layer 4
steer -0.1 -0.05 0 0.05 0.1 --operation add --site block_in --from_layer own
for seed in "${seeds[@]}"; do
    random=(--control_direction random --control_seed "$seed")
    steer -1 -0.5 -0.1 0.05 0.1 0.2 "${random[@]}"
    steer -0.1 -0.05 0.05 0.1 --operation add --site block_in --from_layer own "${random[@]}"
done
python -m scripts.level_effects "${here[@]}" --levels reasoning memory
