#!/usr/bin/env bash
# Control vectors and answer confidence on the embedded model: bash scripts/pipeline_confidence.sh {demo|full}
#
# demo: minutes, few questions. full: the figures of docs/confidence.md. What is finished is not computed again, so
# either can be stopped at any time and started again. ARTIFACTS names another root.
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

# Vectors: of prompts that ask for much or little to be worked out, centred or not, and of the lengths of responses.
python generate_responses.py "${here[@]}" "${length[@]}" --n_questions "$responses"
vector() {
    python -m scripts.control_vectors "${here[@]}" --pairs effort --suffixes own --vector "$@"
}
vector pca_diff --name effort
vector pca_diff_centred --name effort.centred
python extract_directions.py "${here[@]}" --quantile 0.2 --match prompt_tokens

# The same weights, as shares of the stream's norm, for a random direction of the same layers.
steer() {
    python steer_eval.py "${here[@]}" "${length[@]}" --n_questions "$steered" "$@"
}
effort=(--control control_vector --scale overall --direction)
steer "${effort[@]}" effort --direction_weight -0.5 -0.25 0 0.25 0.5
steer "${effort[@]}" effort.centred --direction_weight -0.5 -0.25 0 0.25 0.5
steer --control thinking_length_attn --direction_weight -0.8 -0.4 0 0.4 0.8
for seed in "${seeds[@]}"; do
    random=(--control_direction random --control_seed "$seed")
    steer "${effort[@]}" effort --direction_weight -0.5 -0.25 0.25 0.5 "${random[@]}"
    steer --control thinking_length_attn --direction_weight -0.8 -0.4 0.4 0.8 "${random[@]}"
done

# How sure is the model of its answer, along the chains that it wrote, steered as when it wrote them?
ask="\n\nYeah, I think that's right.\n\n**Final Answer**\n\\boxed{" # as it was taught
python -m scripts.track_confidence "${here[@]}" --choices 10-59 --suffix "$ask" \
    "$root"/steering/tiny-reasoner/arithmetic/{effort.overall,thinking_length_attn}*/*.jsonl
python analyze_results.py "${here[@]}"
cat "$root"/reports/tiny-reasoner.confidence_{exits,calibration,steered}.md
echo "The report: $root/reports/report.html"
