#!/usr/bin/env bash
#SBATCH --job-name=responses --requeue --open-mode=append --signal=B:USR1@120
# Stage 1 as a job, from the repository: sbatch --array=0-7 scripts/slurm/responses.sh --model M --shard %a/8
source scripts/slurm/stage.sh generate_responses.py "$@"
