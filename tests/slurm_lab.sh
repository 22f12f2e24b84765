#!/usr/bin/env bash
# A real SLURM of two nodes with one core each on this machine, without systemd or cgroups, for any user:
#
#   bash tests/slurm_lab.sh install           # Debian's packages; needs root
#   bash tests/slurm_lab.sh start DIR PORT    # PORT to PORT+2 are free; then export SLURM_CONF=DIR/slurm.conf
#   bash tests/slurm_lab.sh stop DIR
set -euo pipefail
PATH=$PATH:/usr/sbin # the daemons

install() {
    if type -P munged slurmctld slurmd sbatch shellcheck >/dev/null; then return; fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends munge slurmctld slurmd slurm-client shellcheck >/dev/null
}

daemon() { # name, command: in the background with its pid kept
    "${@:2}" </dev/null >"$lab/$1.out" 2>&1 &
    echo $! >"$lab/$1.pid"
}

wait_for() { # command: until it succeeds, for ten seconds
    for _ in {1..100}; do
        if "$@" >/dev/null 2>&1; then return; fi
        sleep 0.1
    done
    return 1
}

start() {
    mkdir -p "$lab/state"
    (umask 077 && head -c 128 /dev/urandom >"$lab/munge.key")
    # Left to itself SLURM looks for the machine's cgroups, and gives up where they are not as it likes them.
    echo "CgroupPlugin=cgroup/v1" >"$lab/cgroup.conf"
    cat >"$SLURM_CONF" <<CONF
ClusterName=lab
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=$port
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
# A requeued job waits for its credential to expire: by default two minutes.
AuthInfo=socket=$lab/munge.socket,cred_expire=5
StateSaveLocation=$lab/state
SlurmdSpoolDir=$lab/spool.%n
SlurmctldPidFile=$lab/slurmctld.own
SlurmdPidFile=$lab/slurmd-%n.own
SlurmctldLogFile=$lab/slurmctld.log
SlurmdLogFile=$lab/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=2,bf_interval=2
SlurmdParameters=config_overrides
MpiDefault=none
MailProg=/bin/true
ReturnToService=2
# Finished jobs can be asked about for an hour.
MinJobAge=3600
KillWait=5
NodeName=DEFAULT CPUs=1 RealMemory=4000
NodeName=n1 NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=$((port + 1))
NodeName=n2 NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=$((port + 2))
PartitionName=lab Nodes=ALL Default=YES DefaultTime=10 MaxTime=INFINITE
CONF
    # --force: the folder's parents may be writable for all, as those of temporary folders are.
    daemon munged munged --foreground --force --key-file="$lab/munge.key" --socket="$lab/munge.socket" \
        --pid-file="$lab/munged.own" --seed-file="$lab/munge.seed" --log-file="$lab/munged.log"
    wait_for munge -n -S "$lab/munge.socket" || true # what is wrong shows below
    daemon slurmctld slurmctld -D
    daemon slurmd-n1 slurmd -D -N n1
    daemon slurmd-n2 slurmd -D -N n2
    wait_for idle || { cat "$lab"/*.out && stop && exit 1; }
}

idle() {
    [ "$(sinfo --noheader --format='%T %D')" = "idle 2" ]
}

empty() {
    [ -z "$(squeue --noheader)" ]
}

gone() { # pid; a zombie is gone
    [[ $(ps -o stat= -p "$1") != [^Z]* ]]
}

stop() {
    scancel --user="$(id -un)" || true
    # Jobs outlive the daemons, so those stop last.
    wait_for empty || true
    for name in slurmd-n1 slurmd-n2 slurmctld munged; do
        [ -s "$lab/$name.pid" ] || continue
        kill "$(<"$lab/$name.pid")" || true
        wait_for gone "$(<"$lab/$name.pid")"
        rm "$lab/$name.pid"
    done
}

lab=${2:-} port=${3:-}
export SLURM_CONF=$lab/slurm.conf
[ ${#lab} -le 80 ] || { echo "error: $lab is too long for the daemons' sockets (at most 80 characters)" >&2 && exit 2; }
"${1:?install, start or stop}"
