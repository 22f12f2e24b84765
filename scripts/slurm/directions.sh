#!/usr/bin/env bash
#SBATCH --job-name=directions --requeue --open-mode=append
# Stage 2 as a job, from the repository: sbatch scripts/slurm/directions.sh --model M
source scripts/slurm/stage.sh extract_directions.py "$@"
