"""A layer of spiking neurons between a real-valued current and a real-valued firing rate, and what such layers have sown."""

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from sdit_jax.ops import firing_rate, lif

TWINS = {"identity": lambda current: current, "gelu": nn.gelu}
NEURONS = ("lif", *TWINS)
ZEROS = nn.initializers.zeros


class Spiking(nn.Module):
    """mean over T of LIF(current presented T times): the firing rate of every neuron, a multiple of 1/T in [0, 1].

    With `normalized_currents`, the current is first brought to threshold scale, threshold * (gain * LayerNorm(current) + bias)
    with learned gain and bias per channel, both from 1: currents start around the threshold, where surrogate gradients are
    largest, and neurons fire from the first training step. Without it (the release) currents start far below, and every neuron
    is silent at first (PAPER section 5).

    Sows the mean firing rate as "firing_rate" in the collection "spikes". Source: PAPER section 4. With `neuron` "identity" or
    "gelu" (its tanh form) there are no spikes: the same current, normalised or not, passes through that function of it instead,
    and nothing is sown.

    With `learned_threshold` and `learned_decay` each channel has its own: threshold * exp(a), and tau = 1 + (tau - 1) exp(-b),
    which is 1/tau = sigmoid(b + const), with a and b learned from 0, so that all start at the fields (PLIF, Fang et al. 2021,
    arXiv 2007.05785) and weight decay pulls them back there. Currents are brought to the scale of the field, not to this one's.

    Without `leak` the membrane sums its currents, h = v + X, and `tau` means nothing; with a soft reset the rate's levels are
    then even steps of the current, floor(T X / threshold) / T (the table in ops/lif.py).
    """

    neuron: str = "lif"
    timesteps: int = 4
    tau: float = 2.0
    leak: bool = True
    threshold: float = 1.0
    reset: str = "hard"
    detach_reset: bool = False
    surrogate: str = "atan"
    surrogate_slope: float = 2.0
    normalized_currents: bool = False
    learned_threshold: bool = False
    learned_decay: bool = False

    @nn.compact
    def __call__(self, current_BLC: jax.Array) -> jax.Array:
        if self.normalized_currents:
            current_BLC = self.threshold * nn.LayerNorm(epsilon=1e-6, bias_init=nn.initializers.ones, name="norm")(current_BLC)
        if self.neuron in TWINS:
            return TWINS[self.neuron](current_BLC)
        learned, channels = {}, current_BLC.shape[-1:]
        if self.learned_threshold:
            learned["v_threshold"] = self.threshold * jnp.exp(self.param("threshold_scale", ZEROS, channels))
        if self.learned_decay:
            learned["tau"] = 1 + (self.tau - 1) * jnp.exp(-self.param("decay_shift", ZEROS, channels))
        rate_BLC = self.rate(current_BLC, **learned)
        self.sow("spikes", "firing_rate", rate_BLC.mean())
        return rate_BLC

    def rate(self, current___: jax.Array, **learned: Any) -> jax.Array:
        """Firing rate of a constant current. Like `fire` a method, so that `evaluation` can watch it (nn.intercept_methods)."""
        return firing_rate(current___, self.timesteps, **self.constants | learned)

    def fire(self, currents_T___: jax.Array, **learned: Any) -> jax.Array:
        """Spikes of currents, of their shape; `learned` constants of `ops.lif` in place of the fields."""
        return lif(currents_T___, **self.constants | learned)[0]

    @property
    def constants(self) -> dict[str, Any]:
        """The arguments of `ops.lif`."""
        return {
            "tau": self.tau if self.leak else math.inf,
            "decay_input": self.leak,
            "v_threshold": self.threshold,
            "v_reset": 0.0 if self.reset == "hard" else None,
            "detach_reset": self.detach_reset,
            "surrogate": self.surrogate,
            "surrogate_slope": self.surrogate_slope,
        }


def by_layer(spikes: Mapping, name: str, ndim: int = 0) -> dict[str, Any]:
    """What layers have sown as `name` in the collection "spikes": {"in_blocks.0.time_neurons": value, ...}.

    `ndim` is that of one value's arrays: a further axis in front is the stack of blocks of an `nn.scan`, and is taken apart.
    A layer that is called more than once has ".1", ".2", ... behind its name from the second call on.
    """
    found, flat = {}, dict[tuple, Any](flatten_dict(spikes))
    for (*path, sown_name), calls in flat.items():
        for i, value in enumerate(calls if sown_name == name else ()):
            stack, *layer = [*(path or ["network"]), *([str(i)] if i else [])]
            first = jax.tree.leaves(value)[0]
            if first.ndim == ndim:
                found[".".join([stack, *layer])] = value
            else:
                blocks = [jax.tree.map(lambda leaf, block=block: leaf[block], value) for block in range(len(first))]
                found |= {".".join([stack, str(block), *layer]): one for block, one in enumerate(blocks)}
    return found


def firing_rates(spikes: Mapping) -> dict[str, jax.Array]:
    """The sown collection as {"firing_rate/in_blocks.0.time_neurons": scalar, ...}."""
    return {f"firing_rate/{layer}": rate for layer, rate in by_layer(spikes, "firing_rate").items()}
