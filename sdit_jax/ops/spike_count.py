"""Integrate-and-fire neurons that turn a current into a count of spikes, in closed form and step by step.

A neuron without leak, with soft reset and threshold 1, that starts at 1/2 and receives the current c at each of T steps, spikes

    n = clip(floor(T c + 1/2), 0, T)                    times: its rate n / T is c, clipped to 0..1 and rounded
      = sum over d = 1..T of 1[T c >= d - 1/2]

`spike_rate` computes the rate at once, for training and sampling; `spike_train` steps the neuron by `ops.lif`, as a chip would.
Both have equal counts unless a membrane lies within rounding of the threshold. `signed` neurons are two of these, one driven
by c and one by -c, whose spikes are +1 and -1: the counts are -T..T.

The gradient replaces each step function of the sum by a surrogate,

    d rate / d c = sum over d = 1..T of S(T c - d + 1/2)

which for the rectangular surrogate of slope 1 is the straight-through gradient: 1 where 0 <= c <= 1, else 0.

Sources: spike firing approximation in Spike-driven Transformer V3 (Yao et al. 2024, arXiv 2411.16061); I-LIF in SpikeYOLO
(Luo et al. 2024, arXiv 2407.20708).
"""

import functools
import math

import jax
import jax.numpy as jnp

from sdit_jax.ops.lif import lif
from sdit_jax.ops.marks import NEURONS, mark
from sdit_jax.ops.surrogate import DERIVATIVES, parse

START = 0.5  # The membrane before the first step. From 0, a neuron would spike floor(T c) times.


def spike_rate(
    current___: jax.Array, steps: int, *, signed: bool = False, surrogate: str = "rectangular", surrogate_slope: float = 1.0
) -> jax.Array:
    """Spikes per step, n / T, of neurons that receive a constant current for T = `steps` steps.

    n = clip(floor(T c + 1/2), 0, T); with `signed` n(c) - n(-c). Shape and dtype are those of the current.

    Raises:
      ValueError: `steps` below 1, an unknown surrogate or a slope that is not positive.
    """
    if steps < 1:
        raise ValueError(f"steps: found {steps}, must be at least 1")
    name, slope = parse(surrogate, surrogate_slope)
    return mark(_rate(steps, signed, name, slope, current___), NEURONS, steps)


def spike_train(
    currents_T___: jax.Array,
    v: jax.Array | None = None,
    *,
    tau: float = math.inf,
    signed: bool = False,
    surrogate: str = "rectangular",
    surrogate_slope: float = 1.0,
) -> tuple[jax.Array, jax.Array]:
    """Spikes of the same neurons driven by currents, step by step, and their last membrane.

    Under a constant current the mean over T steps is `spike_rate`. Spikes are 0 or 1, with `signed` -1, 0 or 1.

    Args:
      currents_T___: input currents, spiking steps first.
      v: the membrane before the first step, as it was returned; None starts at 1/2. With `signed` there are two, stacked.
      tau: finite for neurons that leak, v <- v (1 - 1/tau) + c; without a leak, infinity, they count.
      signed, surrogate, surrogate_slope: as for `spike_rate`; the gradient is that of `ops.lif`.
    """
    currents = jnp.stack([currents_T___, -currents_T___], 1) if signed else currents_T___
    v = jnp.full(currents.shape[1:], START) if v is None else v
    spikes, v = lif(
        currents, tau=tau, decay_input=False, v_reset=None, v_init=v, surrogate=surrogate, surrogate_slope=surrogate_slope
    )
    return (spikes[:, 0] - spikes[:, 1] if signed else spikes), v


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2, 3))
def _rate(steps: int, signed: bool, surrogate: str, slope: float, current___):
    levels = steps * current___.astype(jnp.promote_types(current___.dtype, jnp.float32))
    count = lambda x: jnp.clip(jnp.floor(x + START), 0, steps)
    n = count(levels) - count(-levels) if signed else count(levels)
    return (n / steps).astype(current___.dtype)


@_rate.defjvp
def _rate_jvp(steps, signed, surrogate, slope, primals, tangents):
    (current,), (tangent,) = primals, tangents
    return _rate(steps, signed, surrogate, slope, current), tangent * _derivative(steps, signed, surrogate, slope, current)


def _derivative(steps, signed, surrogate, slope, current):
    """d rate / d c; where the sum of rectangles is 1 between the first and the last, their common edges included."""
    if (surrogate, slope) == ("rectangular", 1.0):
        return ((current >= (-1 if signed else 0)) & (current <= 1)).astype(current.dtype)
    bump, levels = DERIVATIVES[surrogate][0], steps * current
    at = [d - START for d in range(1, steps + 1)]
    gradient = jnp.zeros_like(current)
    for level in at:
        gradient += bump(levels - level, slope)
        if signed:
            gradient += bump(-levels - level, slope)
    return gradient
