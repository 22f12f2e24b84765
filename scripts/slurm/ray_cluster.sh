# shellcheck shell=bash
# Sourced in a job of several nodes: one Ray over all of them, which vLLM divides the model over. It ends with the job.
port=$((20000 + SLURM_JOB_ID % 10000)) # jobs on one node do not meet
RAY_ADDRESS=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1):$port
export RAY_ADDRESS

# A worker may come up before the head, so it tries again.
# shellcheck disable=SC2016
srun --ntasks-per-node=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" bash -c '
    if [ "$SLURM_NODEID" = 0 ]; then exec ray start --block --disable-usage-stats --head --port "${RAY_ADDRESS##*:}"; fi
    until ray start --block --address "$RAY_ADDRESS"; do sleep 1; done' &

for _ in {1..120}; do
    joined=$(ray status --address "$RAY_ADDRESS" 2>/dev/null | grep -c ' node_') || true
    [ "$joined" != "$SLURM_JOB_NUM_NODES" ] || break
    sleep 1
done
if [ "$joined" != "$SLURM_JOB_NUM_NODES" ]; then
    echo "error: $joined of $SLURM_JOB_NUM_NODES nodes joined Ray at $RAY_ADDRESS" >&2
    exit 1
fi
