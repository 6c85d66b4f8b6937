#!/usr/bin/env bash
# Slurm: one process per node drives all its GPUs; saved before the time limit, and queued again until training is done.
#     SBATCH="--nodes=4 --partition=gpu" ./launch/slurm.sh --config=configs/cifar10.py --workdir=/shared/runs/cifar10
# Run on a login node it makes the environment and submits itself. SBATCH holds flags for sbatch, which win over those below;
# arguments go to python -m sdit_jax.train; --dry_run prints the commands. The checkout and the run folder must be on a file
# system that all nodes see; the log is runs/slurm-JOB.log, one for all restarts. Tried with stand-ins for Slurm only.
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
[ -f "$here/shared.sh" ] || here="$SLURM_SUBMIT_DIR/launch" # Slurm runs a copy of this file, from elsewhere.
. "$here/shared.sh"
environment cuda

if [ -z "${SLURM_JOB_ID:-}" ]; then
    step mkdir -p runs
    step sbatch ${SBATCH:-} launch/slurm.sh "$@"
    if [ -z "$dry_run" ]; then exit; fi
    echo "# in the job, on its first node:"
fi
slurm_step python -m sdit_jax.train "$@" --processes="${SLURM_JOB_NUM_NODES:-NODES}"
