"""RWKV-4's two mixing layers (PAPER section 4), initialised by their place in the network (section 5)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from sdit_jax.ops import wkv

UNIFORM = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # +-1/sqrt(fan_in)


def token_shift(x_BLC: jax.Array) -> jax.Array:
    """The token before each token; zeros before the first."""
    return jnp.pad(x_BLC, ((0, 0), (1, 0), (0, 0)))[:, :-1]


def mixed(x, shifted, mu):
    """mu x + (1 - mu) shifted, per channel."""
    return shifted + mu * (x - shifted)


def _linear(width, name):
    return nn.Dense(width, use_bias=False, kernel_init=UNIFORM, name=name)


class TimeMix(nn.Module):
    """W_o( sigmoid(r) * wkv(k, v) ), with k, v, r linear in the token mixed with its predecessor.

    `layer` (may be traced) and `depth` set the initial decay and mixing of each channel.
    """

    depth: int
    bidirectional: bool = False
    implementation: str = "auto"

    @nn.compact
    def __call__(self, x_BLC: jax.Array, layer) -> jax.Array:
        D = x_BLC.shape[-1]
        h = jnp.arange(D, dtype=jnp.float32)
        ascent, descent = layer / (self.depth - 1), 1 - layer / self.depth
        decay = self.param("time_decay", lambda _: -5 + 8 * (h / (D - 1)) ** (0.7 + 1.3 * ascent))
        first = self.param("time_first", lambda _: jnp.log(0.3) + 0.5 * ((h + 1) % 3 - 1))
        mu_k = self.param("mu_k", lambda _: (h / D) ** descent)
        mu_v = self.param("mu_v", lambda _: (h / D) ** descent + 0.3 * ascent)
        mu_r = self.param("mu_r", lambda _: (h / D) ** (descent / 2))

        shifted = token_shift(x_BLC)
        k = _linear(D, "key")(mixed(x_BLC, shifted, mu_k))
        v = _linear(D, "value")(mixed(x_BLC, shifted, mu_v))
        r = _linear(D, "receptance")(mixed(x_BLC, shifted, mu_r))
        y, _ = wkv(jnp.exp(decay), first, k, v, bidirectional=self.bidirectional, implementation=self.implementation)
        return _linear(D, "output")(nn.sigmoid(r) * y)


class ChannelMix(nn.Module):
    """sigmoid(W_r x_r) * W_v( relu(W_k x_k)^2 ), four times as wide inside."""

    depth: int

    @nn.compact
    def __call__(self, x_BLC: jax.Array, layer) -> jax.Array:
        D = x_BLC.shape[-1]
        h = jnp.arange(D, dtype=jnp.float32)
        descent = 1 - layer / self.depth
        mu_k = self.param("mu_k", lambda _: (h / D) ** descent)
        mu_r = self.param("mu_r", lambda _: (h / D) ** descent)

        shifted = token_shift(x_BLC)
        k = jnp.square(nn.relu(_linear(4 * D, "key")(mixed(x_BLC, shifted, mu_k))))
        r = _linear(D, "receptance")(mixed(x_BLC, shifted, mu_r))
        return nn.sigmoid(r) * _linear(D, "value")(k)
