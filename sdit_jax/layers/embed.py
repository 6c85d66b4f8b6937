"""Patches, timestep and label embeddings, and back from tokens to images (PAPER sections 2, 3 and 5)."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from sdit_jax.layers.linear import Linear
from sdit_jax.sharding import own_rows

NORMAL = nn.initializers.normal(0.02)
FREQUENCIES = 128


def patchify(x_BHWC: jax.Array, patch_size: int) -> jax.Array:
    """Images as patches in raster order, (B, L, patch_size * patch_size * C)."""
    B, H, W, C = x_BHWC.shape
    p = patch_size
    x = x_BHWC.reshape(B, H // p, p, W // p, p, C).swapaxes(2, 3)
    return x.reshape(B, (H // p) * (W // p), p * p * C)


def unpatchify(x_BLC: jax.Array, patch_size: int) -> jax.Array:
    """The inverse of `patchify`, for square images."""
    B, L, C = x_BLC.shape
    p, n = patch_size, math.isqrt(L)
    return x_BLC.reshape(B, n, n, p, p, C // p**2).swapaxes(2, 3).reshape(B, n * p, n * p, C // p**2)


def sinusoid(t_B: jax.Array) -> jax.Array:
    """[cos(t f_i), sin(t f_i)] with f_i = exp(-ln(10000) i / 128), i = 0..127: shape (B, 256), float32."""
    frequencies = jnp.exp(-math.log(10_000) * jnp.arange(FREQUENCIES, dtype=jnp.float32) / FREQUENCIES)
    angles = t_B.astype(jnp.float32)[:, None] * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], -1)


class TimeEmbed(nn.Module):
    """Linear(SiLU(Linear(sinusoid(t)))): timesteps to (B, width)."""

    width: int

    @nn.compact
    def __call__(self, t_B):
        h = Linear(self.width, kernel_init=NORMAL, name="hidden")(sinusoid(t_B))
        return Linear(self.width, kernel_init=NORMAL, name="output")(nn.silu(h))


class LabelEmbed(nn.Module):
    """A table of num_classes + 1 rows, the last for "no label". In training a fraction `dropout` of labels becomes that one.

    Training needs the random stream "label_dropout". Labels outside 0..num_classes give NaN.
    """

    num_classes: int
    width: int
    dropout: float

    @nn.compact
    def __call__(self, y_B, train: bool):
        table = self.param("table", NORMAL, (self.num_classes + 1, self.width))
        if train and self.dropout > 0:
            key = self.make_rng("label_dropout")
            drop = own_rows(lambda rows: jax.random.bernoulli(key, self.dropout, (rows,)), len(y_B))
            y_B = jnp.where(drop, self.num_classes, y_B)
        return jnp.asarray(table).at[y_B].get(mode="fill", wrap_negative_indices=False)
