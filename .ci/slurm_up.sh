#!/usr/bin/env bash
# Bring up a Slurm of one node on the loopback interface, as root, from Debian's packages.
#
#     slurm_up.sh [FOLDER]        key, configuration, state, logs and process numbers; default /tmp/nightsift-slurm
#
# It has no accounting database: ask squeue for the state of jobs (--slurm-status-command squeue).
# slurm_down.sh with the same FOLDER stops it.
set -euo pipefail

PATH=$PATH:/usr/sbin:/sbin
folder=${1:-/tmp/nightsift-slurm}
configuration=/etc/slurm/slurm.conf
say() { echo "slurm_up: $*" >&2; }

[ "$(id -u)" = 0 ] || { say "must be root"; exit 1; }
if sinfo --noheader >/dev/null 2>&1; then
    say "a Slurm answers already; left as it is"
    exit 0
fi
for program in munged slurmctld slurmd sbatch; do
    command -v "$program" >/dev/null || { say "$program is missing: apt-get install slurm-wlm munge"; exit 1; }
done
# The steps of a job find the configuration only at the place that was compiled in.
if [ -e "$configuration" ] && [ ! -L "$configuration" ]; then
    say "$configuration belongs to another Slurm; not replaced"
    exit 1
fi

mkdir -p "$folder"/{munge,state,spool,log} /etc/slurm
chmod 755 "$folder" "$folder/munge"
umask 077
[ -s "$folder/munge/key" ] || head -c 1024 /dev/urandom >"$folder/munge/key"
umask 022

node=$(hostname -s)
cat >"$folder/slurm.conf" <<CONF
ClusterName=nightsift
SlurmctldHost=$node(127.0.0.1)
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmctldPort=26817
SlurmdPort=26818
SrunPortRange=26900-26999
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket
CredType=cred/munge
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.log
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=2,bf_interval=2
ReturnToService=2
KillWait=5
# squeue must still know a job some time after its end
MinJobAge=600
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc=$folder/log/jobs.txt
NodeName=$node NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$(awk '/^MemTotal/ {print int($2 / 1100)}' /proc/meminfo) State=UNKNOWN
PartitionName=all Nodes=$node Default=YES MaxTime=INFINITE State=UP
CONF
ln -sfn "$folder/slurm.conf" "$configuration"

munged --force --key-file="$folder/munge/key" --socket="$folder/munge/socket" --pid-file="$folder/munged.pid" \
    --log-file="$folder/log/munged.log" --seed-file="$folder/munge/seed"
slurmctld
slurmd

for _ in $(seq 100); do
    if [ "$(sinfo --noheader --format %t 2>/dev/null)" = idle ]; then
        say "node $node is up"
        exit 0
    fi
    sleep 0.2
done
say "the node did not come up within 20 s; the logs:"
tail -n 20 "$folder"/log/*.log >&2
exit 1
