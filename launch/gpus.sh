#!/usr/bin/env bash
# Trains on all GPUs of one machine, and restarts training that was stopped before its end (exit code 75) or killed.
#     ./launch/gpus.sh --config=configs/cifar10.py --workdir=runs/cifar10 --config.mesh.fsdp=8
# Arguments are those of sdit train; --dry_run prints the commands. On SIGTERM the run is saved and this script ends with 75;
# rerun to resume. RESTARTS=100: the maximum; PAUSE=10: seconds between restarts. Tested without GPUs.
set -euo pipefail
. "$(dirname "$0")/shared.sh"
environment cuda

for ((restart = 1; ; restart++)); do
    code=0
    attended python -m sdit_jax train "$@" || code=$?
    if [ -n "$stopped" ] || ! again "$code" || [ "$restart" -gt "${RESTARTS:-100}" ]; then exit "$code"; fi
    echo "training ended with $code: restart $restart of at most ${RESTARTS:-100}" >&2
    sleep "${PAUSE:-10}"
done
