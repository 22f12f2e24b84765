#!/usr/bin/env bash
# The seven stages as SLURM jobs that wait for each other; the cluster's settings are in site.sh:
#
#   bash scripts/slurm/submit_pipeline.sh [--model M] [--dataset D] [--artifacts DIR] [--n_shards N] [--dry_run]
#       [STAGE: FLAGS ...] ...
#
#   bash scripts/slurm/submit_pipeline.sh --model deepseek-qwen-1.5b --dataset gsm8k --n_shards 8 \
#       responses: --max_length 4096 \
#       steering: --n_questions 200  steering: --n_questions 100 --direction_weight -1 1 --layer each \
#       edit:  edit: --control_heads random --name deepseek-qwen-1.5b.random-heads \
#       evaluation: --n_samples 10  evaluation: --dataset MATH-500 --n_samples 10
#
# `STAGE:` begins flags of that stage: responses, directions, steering, heads, edit, evaluation or report. One that is
# named again is one more job: another sweep, another edited model, another data set for all models. What is not named
# runs once as its script does by default, steering also layer by layer. Responses, steering and evaluation are arrays
# of N jobs. If a job fails, those that wait for it are cancelled; the same command then goes on from what is there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source scripts/slurm/site.sh

model=tiny-reasoner dataset='' artifacts='' n_shards=1 dry_run=false
while [[ ${1-} == --* ]]; do
    case $1 in
        --model | --dataset | --artifacts | --n_shards) declare "${1#--}=${2:?"$1 takes a value"}" && shift 2 ;;
        --dry_run) dry_run=true && shift ;;
        *) echo "error: unknown flag $1 (a stage's own flags come after its name, as in responses: $1)" >&2 && exit 2 ;;
    esac
done
[[ $n_shards =~ ^[1-9][0-9]*$ ]] || { echo "error: --n_shards $n_shards is not a whole number above 0" >&2 && exit 2; }

# Of each stage a line of quoted flags per job.
declare -A given=()
stage=
for word; do
    if [[ $word == @(responses|directions|steering|heads|edit|evaluation|report): ]]; then
        stage=${word%:}
        given[$stage]+=${given[$stage]+$'\n'}
    else
        given[${stage:?"$word comes before any STAGE:"}]+=$(printf ' %q' "$word")
    fi
done
: "${given[steering]=$'\n --layer each --direction_weight -1 1'}"

declare -A jobs=() # of each stage ":$variable" per job, with the variables of the lines that are printed
lines=() tasks=0   # the lines that submit the jobs, and how many jobs they come to
submit() { # stage, jobs to wait for, quoted flags
    local line variable limit=SITE_TIME_$1 log=%x-%j.out stage_flags='' flags=() size=1
    limit=${!limit-$SITE_TIME}
    [ "$1" = report ] || stage_flags=$(printf ' --model %q' "$model")
    [[ $1 == @(edit|report) || -z $dataset ]] || stage_flags+=$(printf ' --dataset %q' "$dataset")
    [ -z "$artifacts" ] || stage_flags+=$(printf ' --artifacts %q' "$artifacts")
    stage_flags+=$3
    if [[ $n_shards != 1 && $1 == @(responses|steering|evaluation) ]]; then
        flags+=("--array=0-$((n_shards - 1))") log=%x-%A_%a.out stage_flags+=" --shard %a/$n_shards" size=$n_shards
    fi
    flags+=("--job-name=$1-${model##*/}" "--output=$SITE_LOGS/$log" ${limit:+"--time=$limit"})
    flags+=(${SITE_PARTITION:+"--partition=$SITE_PARTITION"} ${SITE_ACCOUNT:+"--account=$SITE_ACCOUNT"})
    flags+=(${SITE_CPUS:+"--cpus-per-task=$SITE_CPUS"} ${SITE_MEM:+"--mem=$SITE_MEM"})
    if [[ $1 != @(edit|report) ]]; then
        flags+=(${SITE_GRES:+"--gres=$SITE_GRES"} "--nodes=$SITE_NODES" --ntasks-per-node=1)
    fi
    line=$(printf ' %q' "${flags[@]}")${SITE_SBATCH:+" $SITE_SBATCH"}
    [ -z "$2" ] || line+=" --kill-on-invalid-dep=yes --dependency=afterok$2"

    variable=$1_$((${#lines[@]} + 1))
    lines+=("$variable=\$(sbatch --parsable$line scripts/slurm/$1.sh$stage_flags)")
    jobs[$1]+=":\$$variable"
    tasks=$((tasks + size))
}
run() { # stage, stages to wait for
    local stage=$1 after='' each=() flags
    shift
    for flags; do after+=${jobs[$flags]}; done
    mapfile -t each <<<"${given[$stage]-}"
    for flags in "${each[@]}"; do submit "$stage" "$after" "$flags"; done
}

edited=()
mapfile -t edits <<<"${given[edit]-}"
for flags in "${edits[@]}"; do
    [[ $flags =~ --name[\ =]([^ ]+) ]] && edited+=("${BASH_REMATCH[1]}") || edited+=("ThinkEdit-${model##*/}")
done

run responses
run directions responses
run steering directions
run heads directions
run edit heads
run evaluation
base=$model
for model in "${edited[@]}"; do run evaluation edit; done
model=$base
run report steering evaluation

# What sbatch says of these does not name them; beyond MaxJobCount it waits, with half of the chain submitted.
config=$(scontrol show config 2>/dev/null) || config=''
for name in MaxArraySize max_array_tasks MaxJobCount; do
    limit=$(sed -n "s/.*\b$name *= *\([0-9]*\).*/\1/p" <<<"$config")
    needed=$n_shards what="tasks of an array"
    [ "$name" != MaxJobCount ] || needed=$tasks what="jobs"
    if ((needed > ${limit:-needed})); then
        echo "error: --n_shards $n_shards: $needed $what, this cluster has at most $limit ($name): give fewer" >&2
        exit 2
    fi
done

say() { # a line of shell: print it and, unless this is a dry run, run it
    echo "$1"
    "$dry_run" || eval "$1"
}
say "mkdir -p $(printf %q "$SITE_LOGS")" # a job whose log has no folder fails without a word
submitted=()
for line in "${lines[@]}"; do
    if ! say "$line"; then
        [ ${#submitted[@]} = 0 ] || eval "scancel ${submitted[*]}"
        echo "error: sbatch refuses ${line%%_*}, so nothing is left of the ${#submitted[@]} jobs before it" >&2
        exit 1
    fi
    submitted+=("\$${line%%=*}")
done
