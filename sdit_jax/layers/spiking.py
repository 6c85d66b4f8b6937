"""A layer of spiking neurons between a real-valued current and a real-valued firing rate."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from sdit_jax.ops import lif


class Spiking(nn.Module):
    """mean over T of LIF(current presented T times): the firing rate of every neuron, a multiple of 1/T in [0, 1].

    With `normalized`, the current is first brought to threshold scale, threshold * (gain * LayerNorm(current) + bias) with
    learned gain and bias per channel, both from 1: currents start around the threshold, where surrogate gradients are largest,
    and neurons fire from the first training step. Without it (the release) currents start far below, and every neuron is silent
    at first (PAPER section 5).

    Sows the mean firing rate as "firing_rate" in the collection "spikes". Source: PAPER section 4.
    """

    timesteps: int = 4
    tau: float = 2.0
    threshold: float = 1.0
    reset: str = "hard"
    detach_reset: bool = False
    surrogate: str = "atan"
    surrogate_slope: float = 2.0
    normalized: bool = False

    @nn.compact
    def __call__(self, current_BLC: jax.Array) -> jax.Array:
        if self.normalized:
            current_BLC = self.threshold * nn.LayerNorm(epsilon=1e-6, bias_init=nn.initializers.ones, name="norm")(current_BLC)
        spikes_TBLC, _ = lif(
            jnp.broadcast_to(current_BLC, (self.timesteps, *current_BLC.shape)),
            tau=self.tau,
            v_threshold=self.threshold,
            v_reset=0.0 if self.reset == "hard" else None,
            detach_reset=self.detach_reset,
            surrogate=self.surrogate,
            surrogate_slope=self.surrogate_slope,
        )
        rate_BLC = spikes_TBLC.mean(0)
        self.sow("spikes", "firing_rate", rate_BLC.mean())
        return rate_BLC
