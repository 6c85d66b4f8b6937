"""Spiking diffusion transformers in JAX and flax.

Axis letters, used in names throughout the package (`x_BLC`, `spikes_TBLC`):
`T` spiking steps, `B` batch, `L` tokens, `C` channels, `H W` image height and width, `_` any remaining axes.
Images are NHWC, float32 in [-1, 1] inside the package and uint8 outside.
"""

__version__ = "0.1.0"
