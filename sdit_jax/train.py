"""Trains a spiking diffusion transformer; the same command goes on with a run that was stopped.

    python -m sdit_jax.train --config=configs/digits.py --workdir=runs/digits
    python -m sdit_jax.train --config=configs/mnist.py:tiny --workdir=runs/mnist --config.data.dir=DATA/mnist
    python -m sdit_jax.train --config=configs/cifar10.py --workdir=runs/cifar10 --config.batch_size=512 --dry_run

Any field of the configuration is set with --config.FIELD=VALUE; --dry_run prints them all, and writes nothing.

The devices of many processes train one network: on TPU pods and under Slurm the same command is run on every host, elsewhere
with --coordinator=HOST:PORT --processes=N --process=I. Exit code 75: stopped before its end, the same command goes on.
"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from sdit_jax import command_line
from sdit_jax.config import InputError
from sdit_jax.sampling import weights
from sdit_jax.sharding import processes
from sdit_jax.training.loop import train_and_evaluate

CONFIG = config_flags.DEFINE_config_file("config", None, "Configuration file, with typed arguments after a colon.")
WORKDIR = flags.DEFINE_string("workdir", "", "Run folder; made if missing, resumed if it holds a run.")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the resolved configuration, sizes and durations, and stop.")
COORDINATOR = flags.DEFINE_string("coordinator", "", "host:port where process 0 listens; Slurm and TPUs need none.")
PROCESSES = flags.DEFINE_integer("processes", 0, "Number of processes that there must be; 0 for as many as are found.")
PROCESS = flags.DEFINE_integer("process", -1, "Which of them this is, from 0; needed with --coordinator.")


def main() -> None:
    if weights.find(WORKDIR.value):
        raise InputError(f"--workdir: found {WORKDIR.value!r}, a file of weights; must be a run folder, which training makes")
    processes.start(COORDINATOR.value, PROCESSES.value, PROCESS.value)
    train_and_evaluate(CONFIG.value, Path(WORKDIR.value), dry_run=DRY_RUN.value)


if __name__ == "__main__":
    command_line.run(main, required=("config", "workdir"))
