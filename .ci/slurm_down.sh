#!/usr/bin/env bash
# Stop what slurm_up.sh started, by the recorded process numbers, and remove its folder.
#
#     slurm_down.sh [FOLDER]
set -uo pipefail

PATH=$PATH:/usr/sbin:/sbin
folder=${1:-/tmp/nightsift-slurm}
configuration=/etc/slurm/slurm.conf
[ -f "$folder/slurm.conf" ] || exit 0
if [ "$(readlink "$configuration")" != "$folder/slurm.conf" ]; then
    echo "slurm_down: $configuration is not that of $folder; nothing stopped" >&2
    exit 1
fi

scancel --user "$(squeue --noheader --format %u 2>/dev/null | sort -u | paste -sd,)" 2>/dev/null
for name in slurmd slurmctld munged; do
    file="$folder/$name.pid"
    [ -f "$file" ] || continue
    number=$(cat "$file")
    kill "$number" 2>/dev/null
    for _ in $(seq 50); do
        kill -0 "$number" 2>/dev/null || break
        sleep 0.2
    done
    kill -KILL "$number" 2>/dev/null && echo "slurm_down: $name had to be killed" >&2
done
rm -f "$configuration"
rm -rf "$folder"
