#!/usr/bin/env bash
# The seven stages on the embedded model, in order: bash scripts/pipeline.sh {demo|full}
#
# demo: minutes, few questions, the edit's setting as the full run chose it. full: the figures of the README. What is
# finished is not computed again, so either can be stopped at any time and started again. ARTIFACTS names another root than
# artifacts/demo or artifacts/full.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case ${1:-} in
    demo) responses=1500 steered=200 layered=60 evaluated=500 seeds=(0) ;;
    full) responses=3000 steered=1000 layered=300 evaluated=2000 seeds=(0 1 2) ;;
    *) echo "error: say demo or full" >&2 && exit 2 ;;
esac
root=${ARTIFACTS:-artifacts/$1}
model=tiny-reasoner
edited=ThinkEdit-$model
here=(--artifacts "$root")
length=(--max_length 320)

python generate_responses.py "${here[@]}" "${length[@]}" --n_questions "$responses"
# Long and short among questions of like size: else the direction would also be one of large and small questions.
python extract_directions.py "${here[@]}" --quantile 0.2 --match prompt_tokens

# Steering: all layers over a range wide enough to show where it breaks, one layer at a time, and a random direction.
steer=(python steer_eval.py "${here[@]}" "${length[@]}" --control thinking_length_attn thinking_length_mlp)
weights=(-0.8 -0.4 -0.2 -0.1 0 0.1 0.2 0.4 0.8 1.6)
"${steer[@]}" --n_questions "$steered" --direction_weight "${weights[@]}"
"${steer[@]}" --n_questions "$layered" --direction_weight -1 1 --layer each
"${steer[@]}" --n_questions "$steered" --direction_weight -0.4 -0.2 0 0.2 0.4 0.8 --control_direction random

python find_short_heads.py "${here[@]}"

# Number of heads and strength of the edit are chosen on other questions (--data_seed 1) than they are tested on.
chosen=(--n_heads 5 --intervention_weight 2)
if [ "$1" = full ]; then
    selection=$root/selection
    mkdir -p "$selection"
    cp -r "$root/directions" "$root/heads" "$selection/"
    candidates=()
    for count in 2 3 5; do
        for strength in 1 2 3; do
            name=$edited.$count-heads-x$strength
            python edit_weights.py --artifacts "$selection" --n_heads $count --intervention_weight $strength --name "$name"
            candidates+=("$name")
        done
    done
    python evaluate_models.py --artifacts "$selection" "${length[@]}" --n_questions 2000 --n_samples 1 --data_seed 1 \
        --model $model "${candidates[@]}"
    python analyze_results.py --artifacts "$selection"
    read -r -a chosen < <(python -m scripts.choose_edit "$selection")
    echo "Chosen: ${chosen[*]}"
fi

# The published setting (4 % of the heads, strength 1), the chosen one, and the same with random heads and directions.
models=("$model")
edit() { # name, flags
    python edit_weights.py "${here[@]}" --name "$@"
    models+=("$1")
}
edit "$edited"
edit "$edited.chosen" "${chosen[@]}"
for seed in "${seeds[@]}"; do
    edit "$edited.random-heads-$seed" --control_heads random --seed "$seed"
    edit "$edited.random-direction-$seed" --control_direction random --seed "$seed"
    edit "$edited.chosen-random-heads-$seed" "${chosen[@]}" --control_heads random --seed "$seed"
    edit "$edited.chosen-random-direction-$seed" "${chosen[@]}" --control_direction random --seed "$seed"
done
python evaluate_models.py "${here[@]}" "${length[@]}" --n_questions "$evaluated" --n_samples 2 --data_seed 2 --model "${models[@]}"
python analyze_results.py "${here[@]}"
cat "$root"/reports/{accuracy_overall,length_overall,accuracy_shortest,length_shortest,difference_overall}.md
echo "The report: $root/reports/report.html"
