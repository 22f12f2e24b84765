#!/usr/bin/env bash
#SBATCH --job-name=report --requeue --open-mode=append
# Stage 7 as a job, from the repository: sbatch scripts/slurm/report.sh
source scripts/slurm/stage.sh analyze_results.py "$@"
