"""What a network costs in training, which turns a budget of compute into a number of images."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sdit_jax.evaluation.energy import count_macs
from sdit_jax.models import SDiT, initial_params


class Cost(NamedTuple):
    """`parameters` of a network, embeddings included, and FLOPs of `training` on one image."""

    parameters: int
    training: int


def cost(model: SDiT) -> Cost:
    """Training takes 6 FLOPs per MAC: 2 for the product, and as many for the gradients of its inputs and of its weights.

    MACs are those of `evaluation.energy`, WKV among them. Neurons add none: they are the same for any number of spiking steps.
    """
    return _cost(model.clone(timesteps=1))  # pyright: ignore[reportArgumentType]  # A flax module has a hash.


@functools.cache
def _cost(model):
    x_BHWC = jnp.zeros((1, model.image_size, model.image_size, model.channels))
    macs = sum(count_macs(model, x_BHWC, jnp.zeros(1), jnp.zeros(1, jnp.int32)).values())
    params = jax.eval_shape(lambda: initial_params(model, 0))
    return Cost(sum(leaf.size for leaf in jax.tree.leaves(params)), 6 * macs)
