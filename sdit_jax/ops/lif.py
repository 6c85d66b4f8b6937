"""The leaky integrate-and-fire neuron, stepped through time by `jax.lax.scan`."""

import jax
import jax.numpy as jnp

from sdit_jax.ops.surrogate import spike

# Up to this many spiking steps the scan is unrolled, so that the compiler fuses all steps into one pass over memory.
MAX_UNROLL = 8


def lif(
    currents_T___: jax.Array,
    *,
    tau: float = 2.0,
    v_threshold: float | jax.Array = 1.0,
    v_reset: float | None = 0.0,
    decay_input: bool = True,
    detach_reset: bool = False,
    surrogate: str = "atan",
    surrogate_slope: float | None = None,
    v_init: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Spikes of leaky integrate-and-fire neurons driven by currents, and their last membrane potential.

    With membrane v, rest r = v_reset (0 for soft reset) and current X_t, one spiking step is

        h = v + (X_t - (v - r)) / tau          decay_input=True
        h = v - (v - r) / tau + X_t            decay_input=False
        s = 1 if h >= v_threshold else 0
        v = (1 - s) h + s v_reset              hard reset
        v = h - s v_threshold                  soft reset, v_reset=None

    and ds/dh is the surrogate's. With `detach_reset` the gradient does not pass through s in the reset.

    Args:
      currents_T___: input currents, spiking steps first, any further axes.
      tau: membrane time constant in spiking steps, >= 1.
      v_threshold: firing threshold; a spike is h >= v_threshold.
      v_reset: potential after a spike and at rest; None subtracts the threshold instead (soft reset).
      decay_input: whether the current is divided by tau.
      detach_reset: whether the reset is left out of the gradient.
      surrogate: "atan", "sigmoid", "triangular" or "rectangular".
      surrogate_slope: sharpness of the surrogate; None takes its default.
      v_init: membrane before the first step, shape of one step; None is rest.

    Returns:
      (spikes_T___, v): spikes 0 or 1 in the dtype of the currents, and the float32 membrane after the last step. The membrane
      is at least float32 inside, whatever comes in.

    Raises:
      ValueError: tau below 1, an unknown surrogate, or currents without a step axis.

    Source: PAPER section 4; the conventions are those of spikingjelly's LIFNode.
    """
    if currents_T___.ndim < 1 or currents_T___.shape[0] < 1:
        raise ValueError(f"currents: found shape {currents_T___.shape}, need at least one spiking step on axis 0")
    if tau < 1:
        raise ValueError(f"tau: found {tau}, must be at least 1")
    dtype = currents_T___.dtype
    inner = jnp.promote_types(dtype, jnp.float32)
    rest = 0.0 if v_reset is None else v_reset
    v0 = jnp.full(currents_T___.shape[1:], rest, inner) if v_init is None else v_init.astype(inner)

    def step(v, x):
        x = x.astype(inner)
        if decay_input:
            h = v + (x - (v - rest)) / tau
        else:
            h = v - (v - rest) / tau + x
        s = spike(h - v_threshold, surrogate, surrogate_slope)
        s_reset = jax.lax.stop_gradient(s) if detach_reset else s
        if v_reset is None:
            v = h - s_reset * v_threshold
        else:
            v = (1 - s_reset) * h + s_reset * v_reset
        return v, s.astype(dtype)

    v, spikes_T___ = jax.lax.scan(step, v0, currents_T___, unroll=min(MAX_UNROLL, currents_T___.shape[0]))
    return spikes_T___, v
