"""The leaky integrate-and-fire neuron, stepped through time by `jax.lax.scan`.

Forward and backward are one pass over memory each: the gradient keeps the currents only, and the backward pass recomputes the
membranes from them. With h_t the membrane before the spike s_t, S = ds/dh the surrogate's derivative, and G the
cotangents, it steps

    G(s) <- G(s) + G(v) dv/ds      dv/ds = v_reset - h (hard), -v_threshold (soft), 0 (detach_reset)
    G(h)  = G(v) dv/dh + G(s) S    dv/dh = 1 - s (hard), 1 (soft)
    G(X)  = G(h) / tau             or G(h) where the input is not decayed
    G(v) <- G(h) (1 - 1/tau)

from the last spiking step to the first. The gradient of the threshold is -sum_t (G(s) S + s G(v)), without the second term
where the reset is hard; that of tau is -sum_t G(h) d / tau^2 with d = X - (v - r), or -(v - r) where the input is not decayed.
The compiler removes gradients that are not used.

Under a constant current X / v_threshold, from rest 0, the rate over T = 4 steps reaches its levels at

| reset, decay | 1/4 | 1/2 | 3/4 | 1 |
|---|---|---|---|---|
| hard, tau 2 | 16/15 | 4/3 | never | 2 |
| soft, tau 2 | 16/15 | 4/3 | 28/15 | 2 |
| hard, none | 1/4 | 1/2 | never | 1 |
| soft, none | 1/4 | 1/2 | 3/4 | 1 |

and the last is, for any T, floor(T X / v_threshold) / T in 0..1: even levels.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sdit_jax.ops.marks import NEURONS, mark
from sdit_jax.ops.surrogate import DERIVATIVES, parse

# Up to this many spiking steps the scan is unrolled, so that the compiler fuses all steps into one pass over memory.
MAX_UNROLL = 8


def lif(
    currents_T___: jax.Array,
    *,
    tau: float | jax.Array = 2.0,
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
      tau: membrane time constant in spiking steps, >= 1 (an array's values are not checked). Infinity, without decay of the
        input, is a neuron without leak, h = v + X_t.
      v_threshold: firing threshold; a spike is h >= v_threshold. Like tau it may be an array that broadcasts to one step of
        the currents, and has a gradient.
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
      ValueError: tau below 1, or infinite where it divides the input, an unknown surrogate, a slope that is not positive, or
        currents without a step axis.

    Source: PAPER section 4; the conventions are those of spikingjelly's LIFNode.
    """
    if currents_T___.ndim < 1 or currents_T___.shape[0] < 1:
        raise ValueError(f"currents: found shape {currents_T___.shape}, need at least one spiking step on axis 0")
    neuron = Neuron(v_reset, decay_input, detach_reset, *parse(surrogate, surrogate_slope))
    v_0, *constants = neuron.start(currents_T___.dtype, currents_T___.shape[1:], tau, v_threshold, v_init)
    spikes_T___, v = _lif(neuron, currents_T___, v_0, *constants)  # pyright: ignore[reportGeneralTypeIssues]
    return mark(spikes_T___, NEURONS, 1), v


def firing_rate(
    current___: jax.Array,
    timesteps: int,
    *,
    tau: float | jax.Array = 2.0,
    v_threshold: float | jax.Array = 1.0,
    v_reset: float | None = 0.0,
    decay_input: bool = True,
    detach_reset: bool = False,
    surrogate: str = "atan",
    surrogate_slope: float | None = None,
) -> jax.Array:
    """The mean over `timesteps` spiking steps of the spikes of `lif`, from rest, under a constant current.

    rate = 1/T sum_t s_t, as from lif(current repeated T times), without forming the repeated current or the spikes. Arguments
    and errors are those of `lif`; the rate has shape and dtype of the current.
    """
    if timesteps < 1:
        raise ValueError(f"timesteps: found {timesteps}, must be at least 1")
    neuron = Neuron(v_reset, decay_input, detach_reset, *parse(surrogate, surrogate_slope))
    v_0, *constants = neuron.start(current___.dtype, current___.shape, tau, v_threshold, None)
    rate___: Any = _rate(neuron, timesteps, current___, v_0, *constants)
    return mark(rate___, NEURONS, timesteps)


class Neuron(NamedTuple):
    """The constants of a compiled program; tau and threshold may be learned arrays."""

    v_reset: float | None
    decay_input: bool
    detach_reset: bool
    surrogate: str
    slope: float

    def start(self, dtype, shape, tau, v_threshold, v_init):
        """(membrane before the first step, tau, threshold), at least float32."""
        if isinstance(tau, int | float):
            if not tau >= 1:
                raise ValueError(f"tau: found {tau}, must be at least 1")
            if math.isinf(tau) and self.decay_input:
                raise ValueError(f"tau: found {tau}, must be finite where it divides the input")
        inner = jnp.promote_types(dtype, jnp.float32)
        v_0 = jnp.full(shape, self.v_reset or 0.0, inner) if v_init is None else v_init.astype(inner)
        return v_0, jnp.asarray(tau, inner), jnp.asarray(v_threshold, inner)

    def step(self, v, x, tau, threshold):
        """(membrane after the spike, membrane before it, whether it fired, d of the equations above)."""
        leak, x = v - (self.v_reset or 0.0), x.astype(v.dtype)
        h, d = (v + (x - leak) / tau, x - leak) if self.decay_input else (v - leak / tau + x, -leak)
        fired = h >= threshold
        return h - jnp.where(fired, threshold, 0) if self.v_reset is None else jnp.where(fired, self.v_reset, h), h, fired, d


def _scan(step, carry, xs, T, reverse=False):
    return jax.lax.scan(step, carry, xs, length=T, reverse=reverse, unroll=min(MAX_UNROLL, T))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _lif(neuron: Neuron, currents_T___, v_0, tau, threshold):
    def step(v, x):
        v, _, fired, _ = neuron.step(v, x, tau, threshold)
        return v, fired.astype(currents_T___.dtype)

    v, spikes_T___ = _scan(step, v_0, currents_T___, len(currents_T___))
    return spikes_T___, v


def _lif_fwd(neuron, *inputs):
    return _lif(neuron, *inputs), inputs


def _lif_bwd(neuron, inputs, cotangents):
    return _adjoint(neuron, *inputs, *cotangents)


_lif.defvjp(_lif_fwd, _lif_bwd)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _rate(neuron: Neuron, T, current___, v_0, tau, threshold):
    def step(carry, _):
        v, count = carry
        v, _, fired, _ = neuron.step(v, current___, tau, threshold)
        return (v, count + fired), None

    (_, count), _ = _scan(step, (v_0, jnp.zeros_like(v_0)), None, T)
    return (count / T).astype(current___.dtype)


def _rate_fwd(neuron, T, *inputs):
    return _rate(neuron, T, *inputs), inputs


def _rate_bwd(neuron, T, inputs, d_rate):
    current, v_0, tau, threshold = inputs
    repeated = lambda x: jnp.broadcast_to(x, (T, *x.shape))  # Fused away where the scan is unrolled.
    d_spikes = repeated(d_rate.astype(v_0.dtype) / T)
    d_currents, *others = _adjoint(neuron, repeated(current), v_0, tau, threshold, d_spikes, jnp.zeros_like(v_0))
    return d_currents.sum(0), *others


_rate.defvjp(_rate_fwd, _rate_bwd)


def _adjoint(neuron: Neuron, currents_T___, v_0, tau, threshold, d_spikes_T___, d_v):
    """The cotangents of (currents_T___, v_0, tau, threshold), by the equations at the top of this file."""
    T, derivative, kept = len(currents_T___), DERIVATIVES[neuron.surrogate][0], 1 - 1 / tau

    def again(v, x):
        v, h, _, d = neuron.step(v, x, tau, threshold)
        return v, (h, d)

    def step(carry, inputs):
        d_v, d_tau, d_threshold = carry
        (h, d), d_s = inputs
        fired, d_s = h >= threshold, d_s.astype(h.dtype)
        if not neuron.detach_reset:
            d_s -= d_v * (threshold if neuron.v_reset is None else h - neuron.v_reset)
        through = d_s * derivative(h - threshold, neuron.slope)
        if neuron.v_reset is None:
            d_h, d_threshold = d_v + through, d_threshold - through - jnp.where(fired, d_v, 0)
        else:
            d_h, d_threshold = jnp.where(fired, 0, d_v) + through, d_threshold - through
        d_x = d_h / tau if neuron.decay_input else d_h
        return (d_h * kept, d_tau - d_h * d, d_threshold), d_x.astype(currents_T___.dtype)

    _, steps = _scan(again, v_0, currents_T___, T)
    zero = jnp.zeros_like(v_0)
    (d_v, d_tau, d_threshold), d_T___ = _scan(step, (d_v, zero, zero), (steps, d_spikes_T___), T, reverse=True)
    return d_T___, d_v, _summed_to(tau.shape, d_tau / tau**2), _summed_to(threshold.shape, d_threshold)


def _summed_to(shape, x):
    """The transpose of broadcasting an array of this shape to that of x."""
    x = x.sum(range(x.ndim - len(shape)))
    return x.sum([axis for axis, size in enumerate(shape) if size == 1], keepdims=True)
