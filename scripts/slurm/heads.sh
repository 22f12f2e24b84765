#!/usr/bin/env bash
#SBATCH --job-name=heads --requeue --open-mode=append
# Stage 4 as a job, from the repository: sbatch scripts/slurm/heads.sh --model M
source scripts/slurm/stage.sh find_short_heads.py "$@"
