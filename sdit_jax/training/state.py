"""Everything that training changes, as one pytree."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from sdit_jax.models import Network, initial_variables


class TrainState(struct.PyTreeNode):
    """The state after `step` optimizer steps.

    `variables` holds "params" and the network's running statistics, if any. `ema` averages all of them, or is None. `optimizer`
    is the optimizer's state for the parameters.
    """

    step: jax.Array
    variables: Any
    ema: Any
    optimizer: Any

    @property
    def params(self) -> Any:
        return self.variables["params"]


def create(model: Network, tx: optax.GradientTransformation, seed: int, keep_ema: bool) -> TrainState:
    """The state before the first step, a function of the seed."""
    variables = initial_variables(model, seed)
    ema = jax.tree.map(jnp.copy, variables) if keep_ema else None
    return TrainState(jnp.zeros((), jnp.int32), variables, ema, tx.init(variables["params"]))


def ema_decay(images_per_step: int, images_seen, half_life: float, ramp: float):
    """0.5^(images per step / half-life), with a half-life of at most `ramp` times the images seen.

    Counted in images, so that the average spans the same data at any batch size. Source: Karras et al. 2022 (arXiv 2206.00364).
    """
    return 0.5 ** (images_per_step / jnp.minimum(half_life, jnp.maximum(ramp * images_seen, 1e-8)))
