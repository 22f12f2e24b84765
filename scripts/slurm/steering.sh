#!/usr/bin/env bash
#SBATCH --job-name=steering --requeue --open-mode=append --signal=B:USR1@120
# Stage 3 as a job, from the repository: sbatch --array=0-7 scripts/slurm/steering.sh --model M --shard %a/8
source scripts/slurm/stage.sh steer_eval.py "$@"
