#!/usr/bin/env bash
#SBATCH --job-name=evaluation --requeue --open-mode=append --signal=B:USR1@120
# Stage 6 as a job, from the repository: sbatch --array=0-7 scripts/slurm/evaluation.sh --model M --shard %a/8
source scripts/slurm/stage.sh evaluate_models.py "$@"
