#!/usr/bin/env bash
# Trains on GKE with Kubernetes JobSet, on TPU slices or GPU machines, which restart together until training is done.
#     export NAME=sdit IMAGE=REGISTRY/sdit_jax:gpu BUCKET=my-bucket
#     HOSTS=4 CHIPS=8 ./launch/jobset.sh gpu --config=configs/cifar10.py --workdir=/mnt/bucket/runs/cifar10
#     ACCELERATOR=tpu-v6e-slice TOPOLOGY=4x4 HOSTS=4 CHIPS=4 SLICES=2 ./launch/jobset.sh tpu --config=... --workdir=...
# Fills in launch/jobset_gpu.yaml or launch/jobset_tpu.yaml and applies it with kubectl; --dry_run prints it. HOSTS: number of
# machines (per slice); CHIPS: GPUs or TPU chips per machine; SERVICE_ACCOUNT=default: needs write access to the bucket;
# RESTARTS=100: the maximum. IMAGE is built from launch/Dockerfile. Arguments are those of sdit train. Not tested on a cluster.
set -euo pipefail
. "$(dirname "$0")/shared.sh"
kind="${1:-}"
[ "$#" = 0 ] || shift
case "$kind" in gpu | tpu) ;; *) fail "kind: found '$kind', allowed are gpu, tpu" ;; esac
need NAME IMAGE BUCKET HOSTS CHIPS
[ "$kind" = gpu ] || need ACCELERATOR TOPOLOGY
RESTARTS="${RESTARTS:-100}" SERVICE_ACCOUNT="${SERVICE_ACCOUNT:-default}" SLICES="${SLICES:-1}"
PROCESSES=$((HOSTS * SLICES))

ARGUMENTS=''
for argument; do # JSON strings are valid YAML.
    argument="${argument//\\/\\\\}"
    ARGUMENTS="$ARGUMENTS${ARGUMENTS:+, }\"${argument//\"/\\\"}\""
done
ARGUMENTS="[$ARGUMENTS]"

shopt -u patsub_replacement 2>/dev/null || true # Otherwise & stands for the match.
manifest="$(cat "launch/jobset_$kind.yaml")"
for name in NAME IMAGE BUCKET HOSTS CHIPS SLICES PROCESSES RESTARTS SERVICE_ACCOUNT ACCELERATOR TOPOLOGY ARGUMENTS; do
    manifest="${manifest//\$\{$name\}/${!name:-}}"
done
if [ -n "$dry_run" ]; then
    echo "# kubectl apply --filename=- with"
    echo "$manifest"
else
    echo "$manifest" | kubectl apply --filename=-
fi
