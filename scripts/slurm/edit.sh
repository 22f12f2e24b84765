#!/usr/bin/env bash
#SBATCH --job-name=edit --requeue --open-mode=append
# Stage 5 as a job, from the repository: sbatch scripts/slurm/edit.sh --model M
source scripts/slurm/stage.sh edit_weights.py "$@"
