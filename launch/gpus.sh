#!/usr/bin/env bash
# One machine and all its GPUs: environment, then training, run again while it stops before its end (75) or is killed.
#     ./launch/gpus.sh --config=configs/cifar10.py --workdir=runs/cifar10 --config.mesh.fsdp=8
# Arguments go to python -m sdit_jax.train; --dry_run prints the commands. SIGTERM is passed on: the run is saved, this
# script ends with 75, and the same command goes on. RESTARTS=100: at most, PAUSE=10: seconds in between. Tried without GPUs.
set -euo pipefail
. "$(dirname "$0")/shared.sh"
environment cuda

for ((restart = 1; ; restart++)); do
    code=0
    attended python -m sdit_jax.train "$@" || code=$?
    if [ -n "$stopped" ] || ! again "$code" || [ "$restart" -gt "${RESTARTS:-100}" ]; then exit "$code"; fi
    echo "training ended with $code: restart $restart of at most ${RESTARTS:-100}" >&2
    sleep "${PAUSE:-10}"
done
