# shellcheck shell=bash
# The body of every wrapper, sourced in a job with a stage's script and its flags: source stage.sh SCRIPT [FLAGS]
#
# USR1, which SLURM sends ahead of the time limit or of a preemption, makes the stage stop between two records; the job
# then goes back into the queue, where the same command, without --overwrite, goes on. TERM (scancel) only stops it.
set -euo pipefail
source scripts/slurm/site.sh

set -- "${@/#%a\//${SLURM_ARRAY_TASK_ID-}/}" # --shard %a/8: the part of this task of the array
for word; do # of a job that was queued again all but --overwrite, which would begin once more
    shift
    if [ "$word" != --overwrite ] || [ "${SLURM_RESTART_COUNT:-0}" = 0 ]; then set -- "$@" "$word"; fi
done
job=${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}
echo "$(date '+%F %T') job $job on $SLURM_JOB_NODELIST, restart ${SLURM_RESTART_COUNT:-0}: ${*@Q}"

run() {
    set +u # scripts of modules and conda use unset variables
    eval "$SITE_SETUP"
    [ "$SLURM_JOB_NUM_NODES" = 1 ] || source scripts/slurm/ray_cluster.sh
    exec python -u "$@"
}

# In the background, since bash runs no trap while it waits for a command in the foreground.
run "$@" &
child=$!
asked=
trap 'asked+=" USR1"; kill -USR1 "$child" || true' USR1
trap 'asked+=" TERM"; kill -TERM "$child" || true' TERM

# A signal ends `wait` too: only when none came in between is the status the stage's.
while seen=$asked status=0; wait "$child" || status=$?; [ "$asked" != "$seen" ]; do :; done

# 130 is a stage that stopped cleanly, 138 one that was still starting: both have to go on. An error must not.
if [[ $asked == *USR1* && $status =~ ^(130|138)$ ]]; then
    echo "$(date '+%F %T') job $job goes back into the queue"
    scontrol requeue "$job"
fi
exit "$status"
