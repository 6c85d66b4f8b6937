#!/usr/bin/env bash
# Trains under Slurm with one process per node for all its GPUs, saved before the time limit and requeued until it is done.
#     SBATCH="--nodes=4 --partition=gpu" ./launch/slurm.sh --config=configs/cifar10.py --workdir=/shared/runs/cifar10
# On a login node it installs the environment and submits itself. SBATCH: flags for sbatch, which override those below.
# Arguments are those of sdit train; --dry_run prints the commands. The checkout and the run folder must be on a file system
# that all nodes share. All restarts log to runs/slurm-JOB.log. Tested with mock Slurm programs only.
#SBATCH --job-name=sdit_jax
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=runs/slurm-%j.log
set -euo pipefail
here="$(dirname "$0")"
[ -f "$here/shared.sh" ] || here="$SLURM_SUBMIT_DIR/launch" # Slurm runs a copy of this file from another folder.
. "$here/shared.sh"
environment cuda

if [ -z "${SLURM_JOB_ID:-}" ]; then
    step mkdir -p runs
    step sbatch ${SBATCH:-} launch/slurm.sh "$@"
    if [ -z "$dry_run" ]; then exit; fi
    echo "# in the job, on its first node:"
fi
slurm_step python -m sdit_jax train "$@" --processes="${SLURM_JOB_NUM_NODES:-NODES}"
