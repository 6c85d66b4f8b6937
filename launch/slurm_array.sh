#!/usr/bin/env bash
# Slurm: a sweep as a job array, one run per task, each on GPUs of one node, saved and queued again like launch/slurm.sh.
#     SBATCH="--partition=gpu" ./launch/slurm_array.sh --config=configs/scaling.py --workdir=/shared/runs/scaling
# Run on a login node it makes the environment, counts the sweep's runs and submits itself. AT_ONCE=16: so many at most;
# SBATCH holds flags for sbatch; arguments go to python -m sdit_jax.sweep; --dry_run prints the commands (LAST stands for the
# number of runs less one). The logs are runs/slurm-ARRAY-TASK.log. Tried with stand-ins for Slurm only.
#SBATCH --job-name=sdit_jax_sweep
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=runs/slurm-%A-%a.log
set -euo pipefail
here="$(dirname "$0")"
[ -f "$here/shared.sh" ] || here="$SLURM_SUBMIT_DIR/launch" # Slurm runs a copy of this file, from elsewhere.
. "$here/shared.sh"
environment cuda

if [ -z "${SLURM_ARRAY_TASK_ID:-}" ]; then
    list="JAX_PLATFORMS=cpu python -m sdit_jax.sweep $(quoted "$@") --list"
    if [ -n "$dry_run" ]; then echo "$list | wc -l"; last=LAST; else runs="$(eval "$list" | wc -l)"; last=$((runs - 1)); fi
    step mkdir -p runs
    step sbatch --array="0-$last%${AT_ONCE:-16}" ${SBATCH:-} launch/slurm_array.sh "$@"
    if [ -z "$dry_run" ]; then exit; fi
    echo "# in each task of the array:"
fi
slurm_step --ntasks=1 python -m sdit_jax.sweep "$@" --index="${SLURM_ARRAY_TASK_ID:-TASK}"
