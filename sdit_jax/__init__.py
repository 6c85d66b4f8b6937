"""Spiking diffusion transformers in JAX and flax.

Axis letters, used in names throughout the package (`x_BLC`, `spikes_TBLC`):
`T` spiking steps, `B` batch, `L` tokens, `C` channels, `H W` image height and width, `_` any remaining axes.
Images are NHWC, float32 in [-1, 1] inside the package and uint8 outside.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # Else imported where it is needed, so that `import sdit_jax` takes no time.
    from ml_collections import ConfigDict

    from sdit_jax.api import Run

__version__ = "0.1.0"
__all__ = ["configure", "load", "train"]


def load(place: str | Path, weights: str | None = None, step: int | None = None) -> Run:
    """A trained network: a run folder, a .safetensors file, or `pretrained:NAME`, which comes with the package.

        run = sdit_jax.load("pretrained:mnist")
        images = run.sample([3, 1, 4], steps=20, guidance=1.5)        uint8 (3, 28, 28, 1)

    `weights` is "ema" or "raw", by default averaged weights where the place has them; `step` is that of a checkpoint, by
    default of the newest. Raises errors.InputError for a place that is no run, cannot be read, or does not hold these weights.
    """
    from sdit_jax import api

    return api.load(place, weights, step)


def configure(config: str, overrides: Mapping[str, Any] | None = None) -> ConfigDict:
    """The configuration of a file, or a shipped one by its name, with other values for some fields.

        sdit_jax.configure("small:fashion_mnist", {"data.dir": "DATA/fashion-mnist", "batch_size": 64})

    As `sdit train --config=small:fashion_mnist --config.batch_size=64` has it. Raises errors.InputError for a configuration or
    a field that does not exist, and for values that are not allowed.
    """
    from sdit_jax import api

    return api.configure(config, overrides or {})


def train(config: str | ConfigDict, workdir: str | Path) -> Run:
    """Trains a configuration, or the shipped one of this name, in a run folder, and returns the trained network.

    The same call resumes a run that was stopped. Raises errors.InputError for a mistake in the configuration, TrainingFailed
    where the loss is not finite, and Stopped after SIGTERM or an interrupt, once the state is saved.
    """
    from sdit_jax import api

    return api.train(config, workdir)
