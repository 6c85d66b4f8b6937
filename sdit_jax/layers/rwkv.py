"""The two mixing layers of RWKV-4 (PAPER section 4), initialised by their depth in the network (section 5)."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sdit_jax.layers.linear import UNIFORM, Linear, broadcast_batch
from sdit_jax.ops import wkv
from sdit_jax.sharding import constrained

INNER, OUTER = ("batch", "tokens", "inner"), ("batch", "tokens", "channels")


def token_shift(x_BLC: jax.Array, side: int = 0) -> jax.Array:
    """The predecessor of each token, zeros before the first; or, with a `side`, its neighbours on the image.

    With a side, the sequence is one or more grids: a first token, which gets zeros, and side^2 tokens in raster order. The four
    quarters of the channels (the first ones wider by one where 4 does not divide C) come from the left, right, upper and lower
    neighbour, zeros outside the image. Source: Vision-RWKV's quad-directional shift, Duan et al. 2024 (arXiv 2403.02308).
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


def time_parameters(module: nn.Module, D: int, layer, depth: int) -> tuple[jax.Array, jax.Array, tuple[jax.Array, ...]]:
    """(log decay, bonus, (mu_k, mu_v, mu_r)) of a time mix, parameters of `module` that start by its depth in the network."""
    h = jnp.arange(D, dtype=jnp.float32)
    ascent, descent = layer / (depth - 1), 1 - layer / depth
    decay = module.param("time_decay", lambda _: -5 + 8 * (h / (D - 1)) ** (0.7 + 1.3 * ascent))
    first = module.param("time_first", lambda _: jnp.log(0.3) + 0.5 * ((h + 1) % 3 - 1))
    mu_k = module.param("mu_k", lambda _: (h / D) ** descent)
    mu_v = module.param("mu_v", lambda _: (h / D) ** descent + 0.3 * ascent)
    mu_r = module.param("mu_r", lambda _: (h / D) ** (descent / 2))
    return decay, first, (mu_k, mu_v, mu_r)


def channel_parameter(module: nn.Module, name: str, D: int, layer, depth: int) -> jax.Array:
    """A mu of a channel mix, as `time_parameters`."""
    return module.param(name, lambda _: (jnp.arange(D, dtype=jnp.float32) / D) ** (1 - layer / depth))


_linear = partial(Linear, use_bias=False, kernel_init=UNIFORM)


class TimeMix(nn.Module):
    """W_o( sigmoid(r) * wkv(k, v) ), with k, v and r linear in tokens mixed with their predecessor (or by `side`).

    `tail_LC` holds tokens that follow those of every image and are the same for all images. Their keys, values and receptances
    are computed once instead of B times (without a side, of all but the first, whose predecessor belongs to an image). The
    result is that of the joined sequence. `layer` (may be traced) and `depth` set each channel's initial decay and mixing.
    Products, k, v and r are in `dtype`; the result, a current, is in the dtype of x.
    """

    depth: int
    bidirectional: bool = False
    implementation: str = "auto"
    dtype: Any = jnp.float32
    side: int = 0

    @nn.compact
    def __call__(self, x_BLC: jax.Array, layer, tail_LC: jax.Array | None = None) -> jax.Array:
        D = x_BLC.shape[-1]
        decay, first, (mu_k, mu_v, mu_r) = time_parameters(self, D, layer, self.depth)

        if tail_LC is not None and not self.side:  # The predecessor of its first token is an image's.
            x_BLC = jnp.concatenate([x_BLC, broadcast_batch(tail_LC[:1], len(x_BLC))], 1)
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
            return constrained(jnp.concatenate([own, broadcast_batch(shared, len(own))], 1), *INNER)

        k, v, r = project("key", mu_k), project("value", mu_v), project("receptance", mu_r)
        y, _ = wkv(jnp.exp(decay), first, k, v, bidirectional=self.bidirectional, implementation=self.implementation)
        output = _linear(D, dtype=self.dtype, out_dtype=x_BLC.dtype, name="output")
        return constrained(output(nn.sigmoid(r) * y), *OUTER)


class ChannelMix(nn.Module):
    """sigmoid(W_r x_r) * W_v( relu(W_k x_k)^2 ), four times as wide inside; products in `dtype`, the result in x's dtype."""

    depth: int
    dtype: Any = jnp.float32
    side: int = 0

    @nn.compact
    def __call__(self, x_BLC: jax.Array, layer) -> jax.Array:
        D = x_BLC.shape[-1]
        mu_k, mu_r = (channel_parameter(self, name, D, layer, self.depth) for name in ("mu_k", "mu_r"))
        shifted = token_shift(x_BLC, self.side)
        k = constrained(_linear(4 * D, dtype=self.dtype, name="key")(mixed(x_BLC, shifted, mu_k)), *INNER)
        r = _linear(D, dtype=self.dtype, name="receptance")(mixed(x_BLC, shifted, mu_r))
        value = _linear(D, dtype=self.dtype, out_dtype=x_BLC.dtype, name="value")
        return nn.sigmoid(r) * constrained(value(jnp.square(nn.relu(k))), *OUTER)
