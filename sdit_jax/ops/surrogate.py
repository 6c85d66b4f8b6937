"""Spikes with surrogate gradients.

Forward, every function here is the Heaviside step: a spike is x >= 0, with x = membrane - threshold. Backward, the
derivative (zero almost everywhere) is replaced by a bump around x = 0 whose `slope` sets its width. Each bump has area 1.

| name | d spike / d x | default slope |
|---|---|---|
| `atan` | (a/2) / (1 + (pi a x / 2)^2) | 2 |
| `sigmoid` | a s(ax) (1 - s(ax)), s the logistic function | 4 |
| `triangular` | a max(0, 1 - a abs(x)) | 1 |
| `rectangular` | a where abs(x) < 1/(2a), else 0 | 1 |

Sources: PAPER section 4 for `atan` (Fang et al. 2021, arXiv 2007.05785); Neftci et al. 2019 (arXiv 1901.09948) for the others.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp


def _atan(x: jax.Array, slope: float) -> jax.Array:
    return slope / 2 / (1 + (math.pi / 2 * slope * x) ** 2)


def _sigmoid(x: jax.Array, slope: float) -> jax.Array:
    s = jax.nn.sigmoid(slope * x)
    return slope * s * (1 - s)


def _triangular(x: jax.Array, slope: float) -> jax.Array:
    return slope * jnp.maximum(0, 1 - slope * jnp.abs(x))


def _rectangular(x: jax.Array, slope: float) -> jax.Array:
    return jnp.where(jnp.abs(x) < 0.5 / slope, slope, 0.0)


DERIVATIVES: dict[str, tuple[Callable[[jax.Array, float], jax.Array], float]] = {
    "atan": (_atan, 2.0),
    "sigmoid": (_sigmoid, 4.0),
    "triangular": (_triangular, 1.0),
    "rectangular": (_rectangular, 1.0),
}


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _spike(x: jax.Array, name: str, slope: float) -> jax.Array:
    del name, slope
    return (x >= 0).astype(x.dtype)


def _spike_fwd(x, name, slope):
    return _spike(x, name, slope), x


def _spike_bwd(name, slope, x, cotangent):
    derivative, _ = DERIVATIVES[name]
    return ((cotangent * derivative(x, slope)).astype(x.dtype),)


_spike.defvjp(_spike_fwd, _spike_bwd)


def parse(surrogate: str, slope: float | None) -> tuple[str, float]:
    """Name and slope, the default where it is None. Raises ValueError for an unknown name or a slope that is not positive."""
    if surrogate not in DERIVATIVES:
        raise ValueError(f"surrogate: found {surrogate!r}, allowed are {', '.join(DERIVATIVES)}")
    slope = DERIVATIVES[surrogate][1] if slope is None else float(slope)
    if slope <= 0:
        raise ValueError(f"surrogate slope: found {slope}, must be positive")
    return surrogate, slope


def spike(x: jax.Array, surrogate: str = "atan", slope: float | None = None) -> jax.Array:
    """1 where x >= 0, else 0, in the dtype of `x`; its gradient is that of `surrogate` (see the table above).

    Raises ValueError as `parse` does.
    """
    return _spike(x, *parse(surrogate, slope))
