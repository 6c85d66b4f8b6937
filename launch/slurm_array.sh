#!/usr/bin/env bash
# Trains a sweep as a Slurm job array: one run per task, on GPUs of one node, saved and requeued as in launch/slurm.sh.
#     SBATCH="--partition=gpu" ./launch/slurm_array.sh --config=configs/scaling.py --workdir=/shared/runs/scaling
# On a login node it installs the environment, counts the runs and submits itself. AT_ONCE=16: most tasks at a time; SBATCH:
# flags for sbatch. Arguments are those of sdit sweep; --dry_run prints the commands, with LAST for the number of runs less one.
# Logs are runs/slurm-ARRAY-TASK.log. Tested with mock Slurm programs only.
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
[ -f "$here/shared.sh" ] || here="$SLURM_SUBMIT_DIR/launch" # Slurm runs a copy of this file from another folder.
. "$here/shared.sh"
environment cuda

if [ -z "${SLURM_ARRAY_TASK_ID:-}" ]; then
    list="JAX_PLATFORMS=cpu python -m sdit_jax sweep $(quoted "$@") --list"
    if [ -n "$dry_run" ]; then echo "$list | wc -l"; last=LAST; else runs="$(eval "$list" | wc -l)"; last=$((runs - 1)); fi
    step mkdir -p runs
    step sbatch --array="0-$last%${AT_ONCE:-16}" ${SBATCH:-} launch/slurm_array.sh "$@"
    if [ -z "$dry_run" ]; then exit; fi
    echo "# in each task of the array:"
fi
slurm_step --ntasks=1 python -m sdit_jax sweep "$@" --index="${SLURM_ARRAY_TASK_ID:-TASK}"
