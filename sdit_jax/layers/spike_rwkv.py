"""The mixing layers of RWKV with neurons in front of every matrix, so that each multiplies spikes (`layers.spike_count`).

Norms, token shift, gates and WKV's recurrence are real-valued. Both layers take the membranes of their neurons, {name: v}, and
return them after the step; in timing "layer" both are empty.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sdit_jax.layers.rwkv import INNER, OUTER, channel_parameter, mixed, time_parameters, token_shift
from sdit_jax.layers.spike_count import SpikeLinear
from sdit_jax.layers.stack import layer_norm
from sdit_jax.layers.streaming import Membranes
from sdit_jax.ops import wkv
from sdit_jax.sharding import constrained


class Fire:
    """Calls the SpikeLinear layers of a module by name and collects their membranes in `after`."""

    def __init__(self, linear: Callable[..., SpikeLinear], membranes: Membranes):
        self.linear, self.before, self.after = linear, membranes, {}

    def __call__(self, name: str, features: int, z_BLC: jax.Array, **settings: Any) -> jax.Array:
        y_BLC, v = self.linear(features=features, name=name, **settings)(z_BLC, self.before.get(name))
        if v is not None:
            self.after[name] = v
        return y_BLC


class SpikeTimeMix(nn.Module):
    """W_o N(LN(sigmoid(r) * wkv(k, v))), with k, v and r each W N(mu z + (1 - mu) shifted z); N are neurons.

    WKV is bidirectional. `layer` (may be traced) and `depth` set each channel's initial decay and mixing (PAPER section 5).
    """

    linear: Callable[..., SpikeLinear]
    depth: int
    side: int
    implementation: str = "auto"

    @nn.compact
    def __call__(self, z_BLC: jax.Array, layer, membranes: Membranes) -> tuple[jax.Array, Membranes]:
        D, fire = z_BLC.shape[-1], Fire(self.linear, membranes)
        decay, first, mus = time_parameters(self, D, layer, self.depth)
        shifted = token_shift(z_BLC, self.side)
        k, v, r = (
            constrained(fire(name, D, mixed(z_BLC, shifted, mu)), *INNER)
            for name, mu in zip(("key", "value", "receptance"), mus, strict=True)
        )
        y_BLC, _ = wkv(jnp.exp(decay), first, k, v, bidirectional=True, implementation=self.implementation)
        return constrained(fire("output", D, layer_norm(nn.sigmoid(r) * y_BLC)), *OUTER), fire.after


class SpikeChannelMix(nn.Module):
    """W_v N(LN(h)), h = W_k N(mu z + (1 - mu) shifted z), four times as wide inside; N are neurons.

    RWKV's gate is left out. Neurons that rectify take the place of relu(h)^2; with `squared_relu`, for neurons that do not, it
    is back.
    """

    linear: Callable[..., SpikeLinear]
    depth: int
    side: int
    squared_relu: bool = False

    @nn.compact
    def __call__(self, z_BLC: jax.Array, layer, membranes: Membranes) -> tuple[jax.Array, Membranes]:
        D, fire = z_BLC.shape[-1], Fire(self.linear, membranes)
        mu = channel_parameter(self, "mu_k", D, layer, self.depth)
        h = constrained(fire("key", 4 * D, mixed(z_BLC, token_shift(z_BLC, self.side), mu)), *INNER)
        if self.squared_relu:
            h = jnp.square(nn.relu(h))
        return constrained(fire("value", D, layer_norm(h)), *OUTER), fire.after
