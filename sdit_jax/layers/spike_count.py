"""Neurons in front of a matrix, which then multiplies spikes: real-valued currents become counts, or spikes one by one."""

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sdit_jax.layers.fields import at_least, choice, positive
from sdit_jax.layers.linear import UNIFORM, Linear
from sdit_jax.ops import spike_rate, spike_train
from sdit_jax.ops.surrogate import DERIVATIVES


@dataclasses.dataclass
class SpikeFields:
    """The fields of these neurons, shared by `SpikeLinear` and the networks that are configured with them."""

    neuron: str = choice("if", "if", "lif", "identity")  # "identity" passes currents on: the non-spiking baseline.
    spiking_steps: int = at_least(1, 4)  # T.
    signed: bool = False  # Spikes of both signs.
    gain: float = positive(0.5)  # Of the currents, before training.
    amplitude: float = positive(10.0)  # Of a spike, for faster learning; see `SpikeLinear`.
    surrogate: str = choice("rectangular", *DERIVATIVES)  # Derivative of a spike in the backward pass, `ops.surrogate`.
    surrogate_slope: float = positive(1.0)  # Its slope: a larger one is narrower.
    # "rate": one product on the counts of spikes. "steps": a product of 0 and 1 at each step, the same numbers.
    spiking: str = choice("rate", "rate", "steps")
    # "layer": all steps of a layer before the next. "streaming": each step runs through the whole network.
    timing: str = choice("layer", "layer", "streaming")
    tau: float = at_least(1, 2.0)  # Of "lif", in steps.


def spike_fields(config: Any) -> dict[str, Any]:
    """The neuron fields of a network, as arguments of `SpikeLinear`."""
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(SpikeFields)}


class SpikeLinear(SpikeFields, nn.Module):
    """a (W s(z) + b), where s are spikes: a layer of neurons (`ops.spike_count`) and a matrix behind it.

        c = gain z + bias                                    per channel; gain and bias are learned, from `gain` and 0
        s = clip(floor(T c + 1/2), 0, T) / T                 timing "layer", spiking "rate"
        W s + b = 1/T sum_t (W s_t + b), s_t in {0, 1}       timing "layer", spiking "steps", to rounding the same
        W s_t + b, s_t by membranes v_(t-1) and c_t          timing "streaming", one step a call

    The result is multiplied by the `amplitude` a of a spike, a constant that a chip stores in W and b. Optimizers like Adam
    move all weights at one speed, so that matrices learn a times faster: at a = 1 the network lags behind (docs/results.md).

    Sows the spikes per neuron and step, of both signs, as "firing_rate" (in streaming "firing_rate_by_step") into "spikes".
    """

    features: int = 1
    use_bias: bool = False
    kernel_init: Any = UNIFORM
    dtype: Any = jnp.float32  # Of the operands of the product; sums and results are float32.

    @nn.compact
    def __call__(self, z___C: jax.Array, v: jax.Array | None = None) -> tuple[jax.Array, jax.Array | None]:
        """(a (W s + b), v): the result and, in streaming, the membranes after this step."""
        channels = z___C.shape[-1:]
        gain = self.param("gain", nn.initializers.constant(self.gain), channels)
        current = gain * z___C + self.param("current_bias", nn.initializers.zeros, channels)
        kernel = {"use_bias": self.use_bias, "kernel_init": self.kernel_init, "dtype": self.dtype, "out_dtype": jnp.float32}
        linear = Linear(self.features, **kernel, name="linear")
        if self.neuron == "identity":
            return self.amplitude * linear(current), None
        surrogate = {"signed": self.signed, "surrogate": self.surrogate, "surrogate_slope": self.surrogate_slope}
        if self.timing == "streaming":
            tau = self.tau if self.neuron == "lif" else math.inf
            spikes_1___C, v = spike_train(current[None], v, tau=tau, **surrogate)
            self._sow("_by_step", spikes_1___C[0], lambda: spikes_1___C[0])
            return self.amplitude * linear(spikes_1___C[0]), v

        def train():
            return spike_train(jnp.broadcast_to(current, (self.spiking_steps, *current.shape)), **surrogate)[0]

        spikes = spike_rate(current, self.spiking_steps, **surrogate) if self.spiking == "rate" else train()
        self._sow("", spikes, train)
        return self.amplitude * (linear(spikes) if self.spiking == "rate" else linear(spikes).mean(0)), None

    def _sow(self, suffix, spikes, train):
        self.sow("spikes", f"firing_rate{suffix}", abs(spikes).mean())
        if self.is_mutable_collection("raster") and not self.is_initializing():
            self.sow("raster", f"spikes{suffix}", train())
