# shellcheck shell=bash
# Sourced in a job of several nodes: one Ray over all of them, which vLLM divides the model over. It ends with the job.
port=$((20000 + SLURM_JOB_ID % 10000)) # jobs on one node do not meet
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
RAY_ADDRESS=$(scontrol show node "$head" | sed -n 's/.*NodeAddr=\([^ ]*\).*/\1/p'):$port
RAY_AUTH_TOKEN=$(head -c 32 /dev/urandom | base64) # else other users of the nodes could run code in it
export RAY_ADDRESS RAY_AUTH_TOKEN RAY_AUTH_MODE=token

# A worker may come up before the head, so it tries again.
# shellcheck disable=SC2016
srun --ntasks-per-node=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" bash -c '
    start=(ray start --block --num-cpus "${SLURM_CPUS_PER_TASK:-1}")
    if [ "$SLURM_NODEID" = 0 ]; then exec "${start[@]}" --head --port "${RAY_ADDRESS##*:}" --disable-usage-stats; fi
    until "${start[@]}" --address "$RAY_ADDRESS"; do sleep 1; done' &

for _ in {1..120}; do
    joined=$(ray status --address "$RAY_ADDRESS" 2>/dev/null | grep -c ' node_') || true
    [ "$joined" != "$SLURM_JOB_NUM_NODES" ] || break
    sleep 1
done
if [ "$joined" != "$SLURM_JOB_NUM_NODES" ]; then
    echo "error: $joined of $SLURM_JOB_NUM_NODES nodes joined Ray at $RAY_ADDRESS" >&2
    exit 1
fi
