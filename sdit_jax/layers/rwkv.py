"""RWKV-4's two mixing layers (PAPER section 4), initialised by their place in the network (section 5)."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sdit_jax.layers.linear import Linear, for_each
from sdit_jax.ops import wkv
from sdit_jax.sharding import constrained

INNER, OUTER = ("batch", "tokens", "inner"), ("batch", "tokens", "channels")
UNIFORM = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # +-1/sqrt(fan_in)


def token_shift(x_BLC: jax.Array, side: int = 0) -> jax.Array:
    """The token before each token, zeros before the first; or, with a `side`, a token's neighbours on the image.

    The sequence is then one or more grids, each a token of its own, which sees zeros, and side^2 in raster order. Of their
    channels the four quarters (C not divided by 4: the first ones wider by one) are those of the left, right, upper and lower
    neighbour; zeros outside the image. Source: Vision-RWKV's quad-directional shift, Duan et al. 2024 (arXiv 2403.02308).
    """
    if not side:
        return jnp.pad(x_BLC, ((0, 0), (1, 0), (0, 0)))[:, :-1]
    B, L, C = x_BLC.shape
    grids_BGHWC = x_BLC.reshape(B, -1, 1 + side**2, C)[:, :, 1:].reshape(B, -1, side, side, C)
    quarters, zero = jnp.array_split(grids_BGHWC, 4, -1), jnp.zeros((), x_BLC.dtype)
    step = lambda x, down, right: jax.lax.pad(x, zero, [(0, 0, 0)] * 2 + [(down, -down, 0), (right, -right, 0), (0, 0, 0)])
    moved = [step(x, *way) for x, way in zip(quarters, ((0, 1), (0, -1), (1, 0), (-1, 0)), strict=True)]
    grids = jnp.concatenate(moved, -1).reshape(B, -1, side**2, C)
    return jnp.pad(grids, ((0, 0), (0, 0), (1, 0), (0, 0))).reshape(B, L, C)


def mixed(x, shifted, mu):
    """mu x + (1 - mu) shifted, per channel."""
    return shifted + mu * (x - shifted)


_linear = partial(Linear, use_bias=False, kernel_init=UNIFORM)


class TimeMix(nn.Module):
    """W_o( sigmoid(r) * wkv(k, v) ), k, v, r linear in a token mixed with its predecessor (or by `side`, see `token_shift`).

    `tail` are tokens (N, C) that follow those of every image, (B, L, C), and are the same for all: what depends on them and on
    no image, the keys, values and receptances (without a side, of all but the first), is computed once and not B times. The
    result is that of the joined sequence, (B, L + N, C). `layer` (may be traced) and `depth` set the initial decay and mixing
    of each channel. Products are in `dtype`, and so are k, v and r; the result, a current, is in the dtype of x.
    """

    depth: int
    bidirectional: bool = False
    implementation: str = "auto"
    dtype: Any = jnp.float32
    side: int = 0

    @nn.compact
    def __call__(self, x_BLC: jax.Array, layer, tail_LC: jax.Array | None = None) -> jax.Array:
        D = x_BLC.shape[-1]
        h = jnp.arange(D, dtype=jnp.float32)
        ascent, descent = layer / (self.depth - 1), 1 - layer / self.depth
        decay = self.param("time_decay", lambda _: -5 + 8 * (h / (D - 1)) ** (0.7 + 1.3 * ascent))
        first = self.param("time_first", lambda _: jnp.log(0.3) + 0.5 * ((h + 1) % 3 - 1))
        mu_k = self.param("mu_k", lambda _: (h / D) ** descent)
        mu_v = self.param("mu_v", lambda _: (h / D) ** descent + 0.3 * ascent)
        mu_r = self.param("mu_r", lambda _: (h / D) ** (descent / 2))

        if tail_LC is not None and not self.side:  # Its first token follows another one in every image.
            x_BLC = jnp.concatenate([x_BLC, for_each(tail_LC[:1], len(x_BLC))], 1)
        shifted = token_shift(x_BLC, self.side)

        def common(tail_LC, mu):
            if self.side:
                return mixed(tail_LC, token_shift(tail_LC[None], self.side)[0], mu)
            return mixed(tail_LC[1:], tail_LC[:-1], mu)

        def project(name, mu):
            linear, own = _linear(D, dtype=self.dtype, name=name), mixed(x_BLC, shifted, mu)
            if tail_LC is None:
                return constrained(linear(own), *INNER)
            own, shared = linear(own, common(tail_LC, mu))
            return constrained(jnp.concatenate([own, for_each(shared, len(own))], 1), *INNER)

        k, v, r = project("key", mu_k), project("value", mu_v), project("receptance", mu_r)
        y, _ = wkv(jnp.exp(decay), first, k, v, bidirectional=self.bidirectional, implementation=self.implementation)
        output = _linear(D, dtype=self.dtype, out_dtype=x_BLC.dtype, name="output")
        return constrained(output(nn.sigmoid(r) * y), *OUTER)


class ChannelMix(nn.Module):
    """sigmoid(W_r x_r) * W_v( relu(W_k x_k)^2 ), four times as wide inside; products in `dtype`, the result in that of x."""

    depth: int
    dtype: Any = jnp.float32
    side: int = 0

    @nn.compact
    def __call__(self, x_BLC: jax.Array, layer) -> jax.Array:
        D = x_BLC.shape[-1]
        h = jnp.arange(D, dtype=jnp.float32)
        descent = 1 - layer / self.depth
        mu_k = self.param("mu_k", lambda _: (h / D) ** descent)
        mu_r = self.param("mu_r", lambda _: (h / D) ** descent)

        shifted = token_shift(x_BLC, self.side)
        k = constrained(_linear(4 * D, dtype=self.dtype, name="key")(mixed(x_BLC, shifted, mu_k)), *INNER)
        r = _linear(D, dtype=self.dtype, name="receptance")(mixed(x_BLC, shifted, mu_r))
        value = _linear(D, dtype=self.dtype, out_dtype=x_BLC.dtype, name="value")
        return nn.sigmoid(r) * constrained(value(jnp.square(nn.relu(k))), *OUTER)
