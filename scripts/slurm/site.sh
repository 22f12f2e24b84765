# shellcheck shell=bash
# What your cluster wants of a job. Change the values here, or give them in the environment for one call:
#
#   SITE_PARTITION=a100 SITE_GRES=gpu:4 bash scripts/slurm/submit_pipeline.sh ...
#
# Empty means the cluster's own default. SITE_SETUP holds for every job, the others for what submit_pipeline.sh submits:
# to `sbatch scripts/slurm/<stage>.sh` give sbatch's own flags.

: "${SITE_PARTITION=}"
: "${SITE_ACCOUNT=}"
: "${SITE_CPUS=4}"
: "${SITE_MEM=32G}"
: "${SITE_SBATCH=}" # more flags of sbatch for every job, such as "--qos=low --nice=100"

# Of the stages that run a model, which are all but edit and report. Over several nodes a model is divided through Ray:
# SITE_NODES=2 SITE_GRES=gpu:4 takes --tensor_parallel_size 4 --pipeline_parallel_size 2.
: "${SITE_GRES=gpu:1}"
: "${SITE_NODES=1}"

# The limit for a job of any stage, and other limits for single ones. Responses, steering and evaluation may take longer
# than they are given: they stop before the limit, queue again and go on.
: "${SITE_TIME=08:00:00}"
: "${SITE_TIME_edit=01:00:00}"
: "${SITE_TIME_report=01:00:00}"

# Run first in every job, in the repository: Python with the requirements, modules, HF_HOME, HF_HUB_OFFLINE=1.
: "${SITE_SETUP=source .venv/bin/activate}"

: "${SITE_LOGS=artifacts/logs}"
