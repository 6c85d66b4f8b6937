"""Spiking diffusion transformers in JAX and flax.

Axis letters, used in names throughout the package (`x_BLC`, `spikes_TBLC`):
`T` spiking steps, `B` batch, `L` tokens, `C` channels, `H W` image height and width, `_` any remaining axes.
Images are NHWC, float32 in [-1, 1] inside the package and uint8 outside.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sdit_jax.sampling.run import Run

__version__ = "0.1.0"


def load(place: str | Path, weights: str | None = None) -> Run:
    """A trained network: a run folder, a .safetensors file, or `pretrained:NAME`, which comes with the package.

        run = sdit_jax.load("pretrained:mnist")
        images = run.sample([3, 1, 4], steps=20, guidance=1.5)        uint8 (3, 28, 28, 1)

    `weights` is "ema" or "raw", by default averaged weights where the place has them. Raises errors.InputError for a place that
    is no run, cannot be read, or does not hold these weights.
    """
    from sdit_jax.sampling.run import open_run  # Here, so that `import sdit_jax` takes no time.

    return open_run(place, weights)
