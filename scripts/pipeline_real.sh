#!/usr/bin/env bash
# ThinkEdit on any model and GSM8K, with its controls: bash scripts/pipeline_real.sh MODEL [SIZES] [-- FLAGS]
#
#   --responses N     training questions that the directions are made of (default: 400)
#   --steered N       test questions at each weight (default: 200)
#   --weights "W .."  of the direction, 0 among them (default: "-0.08 -0.04 0 0.04 0.08", the paper's range)
#   --evaluated N     test questions for each model, edited or not (default: 300)
#   --samples N       of each of these (default: 2)
#   --stronger "F"    flags of edit_weights.py for a second edit (default: "--intervention_weight 2")
#   --max_length N    tokens of a response (default: 1024)
#   --sampling "F"    flags of the stages that generate, as "--temperature 0.6 --top_p 0.95" (default: the model's own)
#   --quantile S      share of the longest and of the shortest responses (default: 0.2)
#   --instruction T   after every question (default: to reason and to box the answer)
#   --engine E, --dtype D   as of the stages
#   --data DIR        folder with train.jsonl and test.jsonl of GSM8K (default: the hub)
#   --artifacts DIR   (default: artifacts/real)
#   --only "STAGE .." of responses, directions, steering, heads, edits, evaluation, report (default: all)
#
# FLAGS go to every stage: --thinking response for a model without marks, --template, --system, ... What is finished is
# not computed again: stop it at any time, and give the same command to go on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
usage() { sed -n '2,21s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2 && exit 2; }

if [ $# -eq 0 ] || [[ $1 == -* ]]; then usage; fi
model=$1 && shift
responses=400 steered=200 weights="-0.08 -0.04 0 0.04 0.08" evaluated=300 samples=2 stronger="--intervention_weight 2"
max_length=1024 sampling="" quantile=0.2 engine="" dtype=auto data="" artifacts=artifacts/real
instruction=$'\nReason step by step, then give the final answer in \\boxed{}.'
only="responses directions steering heads edits evaluation report"
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    if [ $# -lt 2 ]; then usage; fi
    case $1 in
        --responses | --steered | --weights | --evaluated | --samples | --stronger | --max_length | --sampling | --quantile | \
            --instruction | --engine | --dtype | --data | --artifacts | --only) printf -v "${1#--}" %s "$2" ;;
        *) usage ;;
    esac
    shift 2
done
if [ $# -gt 0 ]; then shift; fi

name=$(basename "$model")
here=(--artifacts "$artifacts" --dataset gsm8k)
base=(--model "$model" "$@")
load=(--dtype "$dtype")
read -r -a sampling <<<"$sampling"
ask=("${load[@]}" --max_length "$max_length" --instruction "$instruction" ${engine:+--engine "$engine"} \
    ${sampling[@]+"${sampling[@]}"})
train=(${data:+--data_file "$data/train.jsonl"})
test=(${data:+--data_file "$data/test.jsonl"})
stage() { [[ " $only " == *" $1 "* ]]; }

if stage responses; then
    python generate_responses.py "${here[@]}" "${base[@]}" "${ask[@]}" "${train[@]}" --n_questions "$responses"
fi
# Long and short among questions of like size: else the direction would also be one of large and small questions.
if stage directions; then
    python extract_directions.py "${here[@]}" "${base[@]}" "${load[@]}" --quantile "$quantile" --match prompt_tokens
fi
if stage steering; then
    read -r -a weights <<<"$weights"
    for control in "" random; do
        python steer_eval.py "${here[@]}" "${base[@]}" "${ask[@]}" "${test[@]}" --n_questions "$steered" \
            --direction_weight "${weights[@]}" ${control:+--control_direction $control}
    done
fi
if stage heads; then
    python find_short_heads.py "${here[@]}" "${base[@]}" "${load[@]}"
fi

# The published share of the heads and strength, and a stronger edit with its controls.
read -r -a stronger <<<"$stronger"
models=("$model")
edit() { # name, flags
    models+=("$1")
    if stage edits; then python edit_weights.py --artifacts "$artifacts" "${base[@]}" --name "$@"; fi
}
edit "ThinkEdit-$name"
edit "ThinkEdit-$name.stronger" "${stronger[@]}"
edit "ThinkEdit-$name.stronger-random-heads" "${stronger[@]}" --control_heads random
edit "ThinkEdit-$name.stronger-random-direction" "${stronger[@]}" --control_direction random

if stage evaluation; then
    python evaluate_models.py "${here[@]}" "$@" "${ask[@]}" "${test[@]}" --n_questions "$evaluated" --n_samples "$samples" \
        --model "${models[@]}"
fi
if stage report; then
    python analyze_results.py --artifacts "$artifacts" --instruction "$instruction"
    cat "$artifacts"/reports/{accuracy_overall,length_overall,accuracy_shortest,difference_overall,responses}.md
    echo "The report: $artifacts/reports/report.html"
fi
