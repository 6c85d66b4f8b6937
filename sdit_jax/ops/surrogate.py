"""Surrogate derivatives of the spike.

A spike is the Heaviside step of x = membrane - threshold, whose derivative is zero almost everywhere. The backward pass uses
a bump around x = 0 instead. `slope` sets its width; its area is 1.

| name | d spike / d x | default slope |
|---|---|---|
| `atan` | (a/2) / (1 + (pi a x / 2)^2) | 2 |
| `sigmoid` | a s(ax) (1 - s(ax)), s the logistic function | 4 |
| `triangular` | a max(0, 1 - a abs(x)) | 1 |
| `rectangular` | a where abs(x) < 1/(2a), else 0 | 1 |

Sources: PAPER section 4 for `atan` (Fang et al. 2021, arXiv 2007.05785); Neftci et al. 2019 (arXiv 1901.09948) for the others.
"""

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


def parse(surrogate: str, slope: float | None) -> tuple[str, float]:
    """Name and slope, the default where it is None. Raises ValueError for an unknown name or a slope that is not positive."""
    if surrogate not in DERIVATIVES:
        raise ValueError(f"surrogate: found {surrogate!r}, allowed are {', '.join(DERIVATIVES)}")
    slope = DERIVATIVES[surrogate][1] if slope is None else float(slope)
    if slope <= 0:
        raise ValueError(f"surrogate slope: found {slope}, must be positive")
    return surrogate, slope
