"""Everything that training changes, as one pytree."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from sdit_jax.models import SDiT, initial_params


class TrainState(struct.PyTreeNode):
    """`step` counts finished optimizer steps; `ema` is the averaged parameters, or None where none are kept."""

    step: jax.Array
    params: Any
    ema: Any
    optimizer: Any


def create(model: SDiT, tx: optax.GradientTransformation, seed: int, keep_ema: bool) -> TrainState:
    """The state before the first step, a function of the seed."""
    params = initial_params(model, seed)
    ema = jax.tree.map(jnp.copy, params) if keep_ema else None
    return TrainState(jnp.zeros((), jnp.int32), params, ema, tx.init(params))


def ema_decay(images_per_step: int, images_seen, half_life: float, ramp: float):
    """0.5^(images per step / half-life), the half-life being at most `ramp` of the images seen.

    Counted in images, so that the average spans the same data at any batch size. Source: Karras et al. 2022 (arXiv 2206.00364).
    """
    return 0.5 ** (images_per_step / jnp.minimum(half_life, jnp.maximum(ramp * images_seen, 1e-8)))
