"""Trains a diffusion model, or resumes a stopped run.

    sdit train --config=digits --workdir=runs/digits
    sdit train --config=mnist:tiny --workdir=runs/mnist --config.data.dir=DATA/mnist
    sdit train --config=cifar10 --workdir=runs/cifar10 --config.batch_size=512 --dry_run

--config.FIELD=VALUE sets any field of the configuration; --dry_run prints all of them and writes nothing.

To train one network with many processes, run the same command on every host of a TPU pod or in a Slurm job; elsewhere add
--coordinator=HOST:PORT --processes=N --process=I. Exit code 75: stopped and saved before the end, rerun to resume.
"""

import jax
from absl import flags
from ml_collections import config_flags

from sdit_jax import files
from sdit_jax.commands import joining
from sdit_jax.errors import InputError
from sdit_jax.sampling import weights
from sdit_jax.training.loop import train_and_evaluate

CONFIG = config_flags.DEFINE_config_file("config", None, "Shipped configuration or .py file; typed arguments follow a colon.")
WORKDIR = flags.DEFINE_string("workdir", "", "Run folder; made if missing, resumed if it contains a run.")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the resolved configuration, sizes and durations, and stop.")
JOIN = joining.define_flags()
REQUIRED = ("config", "workdir")


def main() -> None:
    if weights.find(WORKDIR.value):
        raise InputError(f"--workdir: found {WORKDIR.value!r}, a file of weights; must be a run folder")
    JOIN()
    state = train_and_evaluate(CONFIG.value, files.as_path(WORKDIR.value), dry_run=DRY_RUN.value)
    if state is not None and jax.process_index() > 0:  # Process 0 has logged its progress.
        print(f"process {jax.process_index()} of {jax.process_count()}: ended at step {int(state.step)}")
