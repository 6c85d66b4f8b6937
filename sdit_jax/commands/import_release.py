"""Imports a checkpoint of the authors' PyTorch release as a run folder.

    sdit import_release --checkpoint=0100000.pt --workdir=runs/release
    sdit sample --workdir=runs/release --out=samples --sampler=ddpm --steps=250

Sizes are those of the checkpoint's arrays. The number of spiking steps, tau, threshold and the noise schedule, which it does
not contain, are the release's. Reading .pt files needs the torch extra: pip install 'sdit_jax[torch]'
"""

import jax.numpy as jnp
from absl import flags

from sdit_jax import config, files
from sdit_jax.checkpoint import Checkpoints
from sdit_jax.errors import InputError
from sdit_jax.models import release
from sdit_jax.training.state import TrainState

CHECKPOINT = flags.DEFINE_string("checkpoint", "", "Checkpoint of the release: .pt, or .npz with entries param/NAME.")
WORKDIR = flags.DEFINE_string("workdir", "", "New run folder.")
REQUIRED = ("checkpoint", "workdir")


def main() -> None:
    files.check_local(CHECKPOINT.value, "--checkpoint")
    workdir = files.as_path(WORKDIR.value)
    model_config, params = release.load(CHECKPOINT.value)
    if (workdir / "config.json").exists() or (workdir / "checkpoints").exists():
        raise InputError(f"--workdir: {workdir} already holds a run; name a new folder")
    run = config.default_config(model_config.to_dict())
    run.data.name = ""  # A checkpoint does not say what it was trained on.
    files.make_folder(workdir)
    with Checkpoints(workdir) as checkpoints:
        checkpoints.save(TrainState(jnp.zeros((), jnp.int32), {"params": params}, ema=None, optimizer={}))
    files.write_json(workdir / "config.json", run.to_dict())
    print(workdir)
