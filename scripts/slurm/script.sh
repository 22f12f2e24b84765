#!/usr/bin/env bash
#SBATCH --job-name=script --requeue --open-mode=append
# One of scripts/ as a job, from the repository: sbatch scripts/slurm/script.sh layer_effects --model M
source scripts/slurm/stage.sh -m "scripts.$1" "${@:2}"
