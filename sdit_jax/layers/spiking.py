"""A layer of spiking neurons, from real-valued currents to firing rates or spikes; and the reading of what layers have sown."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from sdit_jax.errors import InputError
from sdit_jax.layers.fields import at_least, choice, positive
from sdit_jax.ops import firing_rate, lif
from sdit_jax.ops.surrogate import DERIVATIVES

ACTIVATIONS = {"identity": lambda current: current, "gelu": nn.gelu}
ZEROS = nn.initializers.zeros


@dataclasses.dataclass
class NeuronFields:
    """The fields of a layer of neurons, shared by `Spiking` and the networks that are configured with them."""

    neuron: str = choice("lif", "lif", *ACTIVATIONS)  # "identity" and "gelu" do not spike: the non-spiking baselines.
    spiking_steps: int = at_least(1, 4)  # T.
    tau: float = at_least(1, 2.0)  # Time constant of the membrane, in spiking steps.
    leak: bool = True  # False: h = v + X, without tau.
    threshold: float = positive(1.0)  # Of the membrane, from which on a neuron fires.
    reset: str = choice("hard", "hard", "soft")  # After a spike: to 0, or by the threshold.
    detach_reset: bool = False  # Leaves the reset out of the gradient.
    surrogate: str = choice("atan", *DERIVATIVES)  # Derivative of a spike in the backward pass, `ops.surrogate`.
    surrogate_slope: float = positive(2.0)  # Its slope: a larger one is narrower.
    normalized_currents: bool = False  # LayerNorm of currents, so that neurons fire from the first step.
    learned_threshold: bool = False  # Per channel, from `threshold`.
    learned_decay: bool = False  # Per channel, from `tau`.


def neuron_fields(config: Any) -> dict[str, Any]:
    """The neuron fields of a network, as arguments of `Spiking`."""
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(NeuronFields)}


def check_neurons(fields: Mapping[str, Any]) -> None:
    """Raises InputError for neuron fields of a network that contradict each other."""
    if fields["learned_decay"] and not fields["leak"]:
        raise InputError("config.model.learned_decay: found True, there is no decay with config.model.leak False")
    if fields["learned_decay"] and fields["tau"] == 1:
        raise InputError("config.model.tau: found 1, must be above 1 with config.model.learned_decay")


class Spiking(NeuronFields, nn.Module):
    """LIF neurons: the firing rate of a constant current, or the spikes of T currents.

        rate = 1/T sum_t LIF(current at each of T steps)_t        a multiple of 1/T in [0, 1]

    With `normalized_currents`, a current is first brought to the scale of the threshold, threshold * (gain * LayerNorm(current)
    + bias), with learned gain and bias per channel, both from 1: currents start around the threshold, where surrogate gradients
    are largest, and neurons fire from the first training step. Without it (the release) currents start far below, and all
    neurons are silent at first (PAPER section 5).

    With `learned_threshold` and `learned_decay` each channel has its own threshold * exp(a) and tau = 1 + (tau - 1) exp(-b),
    which is 1/tau = sigmoid(b + const). a and b are learned from 0, so that all channels start at the fields (PLIF, Fang et al.
    2021, arXiv 2007.05785) and weight decay pulls them back there.

    Without `leak` the membrane sums its currents, h = v + X; with a soft reset the rate is then floor(T X / threshold) / T in
    0..1, even steps of the current (table in ops/lif.py).

    With `neuron` "identity" or "gelu" (tanh form) nothing spikes: the current passes through that function.

    Sows the mean firing rate in the collection "spikes", as "firing_rate" or, at a single step, "firing_rate_by_step"; and if
    the collection "raster" is mutable, its spikes: "spikes" (T, B, L, C), at a single step "spikes_by_step" (B, L, C). Source:
    PAPER section 4.
    """

    def __call__(self, current: jax.Array, stepped: bool = False) -> jax.Array:
        """Rates (B, L, C) of a constant current (B, L, C); `stepped`: spikes (T, B, L, C) of currents (T, B, L, C)."""
        current, learned = self.scaled(current)
        if self.neuron in ACTIVATIONS:
            return ACTIVATIONS[self.neuron](current)
        fired = self.fire(current, **learned) if stepped else self.rate(current, **learned)
        self.sow("spikes", "firing_rate", fired.mean())
        if self.is_mutable_collection("raster") and not self.is_initializing():
            self.sow("raster", "spikes", as_TBLC(fired if stepped else self.fire(self.repeated(current), **learned)))
        return fired

    def step(self, current: jax.Array, v: jax.Array | None = None) -> tuple[jax.Array, jax.Array | None]:
        """Spikes of one step and the membranes after it, both (B, L, C), of currents (B, L, C) and the membranes before.

        A membrane of None is at rest; neurons that do not spike have none. For `layers.streaming`.
        """
        current, learned = self.scaled(current)
        if self.neuron in ACTIVATIONS:
            return ACTIVATIONS[self.neuron](current), None
        spikes_1___, v = lif(current[None], v_init=v, **self.constants | learned)
        self.sow("spikes", "firing_rate_by_step", spikes_1___.mean())
        if self.is_mutable_collection("raster") and not self.is_initializing():
            self.sow("raster", "spikes_by_step", as_TBLC(spikes_1___)[0])
        return spikes_1___[0], v

    @nn.compact
    def scaled(self, current: jax.Array) -> tuple[jax.Array, dict[str, Any]]:
        """The current that drives the neurons, normalised or as it is, and their learned constants."""
        if self.normalized_currents:
            current = self.threshold * nn.LayerNorm(epsilon=1e-6, bias_init=nn.initializers.ones, name="norm")(current)
        learned, channels = {}, current.shape[-1:]
        if self.learned_threshold and self.neuron not in ACTIVATIONS:
            learned["v_threshold"] = self.threshold * jnp.exp(self.param("threshold_scale", ZEROS, channels))
        if self.learned_decay and self.neuron not in ACTIVATIONS:
            learned["tau"] = 1 + (self.tau - 1) * jnp.exp(-self.param("decay_shift", ZEROS, channels))
        return current, learned

    def rate(self, current___: jax.Array, **learned: Any) -> jax.Array:
        """Firing rate of a constant current."""
        return firing_rate(current___, self.spiking_steps, **self.constants | learned)

    def fire(self, currents_T___: jax.Array, **learned: Any) -> jax.Array:
        """Spikes of T currents, of their shape."""
        return lif(currents_T___, **self.constants | learned)[0]

    def repeated(self, current___: jax.Array) -> jax.Array:
        """The same current at each of T steps."""
        return jnp.broadcast_to(current___, (self.spiking_steps, *current___.shape))

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


def as_TBLC(spikes_TB___C: jax.Array) -> jax.Array:
    """Spikes (T, B, L, C): L counts tokens or pixels."""
    return spikes_TB___C.reshape(*spikes_TB___C.shape[:2], -1, spikes_TB___C.shape[-1])


def by_layer(spikes: Mapping, name: str, ndim: int = 0) -> dict[str, Any]:
    """What layers have sown as `name` in the collection "spikes": {"in_blocks.0.time_neurons": value, ...}.

    `ndim` is that of one value's arrays: a further axis in front counts the blocks of an `nn.scan` and is taken apart. The
    second and later calls of a layer get ".1", ".2", ... behind its name. What is sown as `name`_by_step, under
    `streaming.streamed`, has the spiking steps in front of all other axes, and counts as its mean over them.
    """
    found, flat = {}, dict[tuple, Any](flatten_dict(spikes))
    for (*path, sown_name), calls in flat.items():
        by_step = sown_name == f"{name}_by_step"
        for i, value in enumerate(calls if sown_name == name or by_step else ()):
            value = jax.tree.map(lambda leaf: leaf.mean(0), value) if by_step else value
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
