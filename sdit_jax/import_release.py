"""Turns a checkpoint of the authors' PyTorch release into a run folder, ready to sample.

    python -m sdit_jax.import_release --checkpoint=0100000.pt --workdir=runs/release
    python -m sdit_jax.sample --workdir=runs/release --out=samples --sampler=ddpm --steps=250

Sizes are read off the checkpoint; T, tau, threshold and the noise schedule, which it does not hold, are the release's.
Reading .pt files needs the torch extra: pip install 'sdit_jax[torch]'
"""

from pathlib import Path

import jax.numpy as jnp
from absl import flags

from sdit_jax import command_line, config, files
from sdit_jax.checkpoint import Checkpoints
from sdit_jax.config import InputError
from sdit_jax.models import release
from sdit_jax.training.state import TrainState

CHECKPOINT = flags.DEFINE_string("checkpoint", "", "The release's checkpoint: .pt, or .npz with entries param/NAME.")
WORKDIR = flags.DEFINE_string("workdir", "", "Run folder to make; must not hold a run yet.")


def main() -> None:
    workdir = Path(WORKDIR.value)
    model_config, params = release.load(CHECKPOINT.value)
    if (workdir / "config.json").exists() or (workdir / "checkpoints").exists():
        raise InputError(f"--workdir: {workdir} already holds a run; name a new folder")
    run = config.default_config(model_config)
    run.data.name = ""  # Which data set it was, a checkpoint does not say.
    files.make_folder(workdir)
    with Checkpoints(workdir) as checkpoints:
        checkpoints.save(TrainState(jnp.zeros((), jnp.int32), params, ema=None, optimizer={}))
    files.write_json(workdir / "config.json", run.to_dict())
    print(workdir)


if __name__ == "__main__":
    command_line.run(main, required=("checkpoint", "workdir"))
