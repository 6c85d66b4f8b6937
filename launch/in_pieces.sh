#!/usr/bin/env bash
# Trains for MINUTES on whatever this machine has, saves, and ends with exit code 75; the same command goes on from there. When
# training is done it draws samples and evaluates them: for accelerators that are lent by the hour.
#     ./launch/in_pieces.sh 25 --config=cifar10_large --workdir=runs/large --config.data.dir=DATA/cifar-10-batches-bin
# Other arguments are those of sdit train; --dry_run prints the commands. SAMPLES=10000: how many are evaluated; GUIDANCE=2.
# EXTRAS=cuda or tpu, where packages are to be installed.
set -euo pipefail
. "$(dirname "$0")/shared.sh"
minutes="${1:-}" workdir='' data=''
[[ "$minutes" =~ ^[0-9]+(\.[0-9]+)?$ ]] || fail "MINUTES: found '$minutes', must be a number: $0 25 --config=..."
shift
for argument; do
    case "$argument" in
        --workdir=*) workdir="${argument#*=}" ;;
        --config.data.dir=*) data="--data_dir=${argument#*=}" ;;
    esac
done
[ -n "$workdir" ] || fail "--workdir: missing"
environment ''

code=0
attended timeout --preserve-status "${minutes}m" python -m sdit_jax train "$@" || code=$?
case "$code" in
    0) ;;
    75) echo "saved after $minutes minutes; rerun to go on" >&2 && exit 75 ;;
    *) exit "$code" ;;
esac
step python -m sdit_jax evaluate "--workdir=$workdir" ${data:+"$data"} "--n=${SAMPLES:-10000}" --sampler=dpmpp_2m --steps=20 \
    "--guidance=${GUIDANCE:-2}" "--out=$workdir/evaluation/end"
