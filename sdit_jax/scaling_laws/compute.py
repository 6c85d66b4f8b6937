"""The cost of training a network, which converts a budget of compute to a number of images."""

import functools
from typing import NamedTuple

import jax

from sdit_jax.analysis.operations import forward
from sdit_jax.models import Network, initial_variables


class Cost(NamedTuple):
    """`parameters` of a network, embeddings included, and FLOPs of `training` on one image."""

    parameters: int
    training: int


@functools.cache
def cost(model: Network) -> Cost:
    """Training takes 6 FLOPs per multiply-accumulate of a forward pass, WKV included.

    They are 2 for the product, and as many for the gradients of its inputs and of its weights. Neurons multiply nothing.
    """
    params = jax.eval_shape(lambda: initial_variables(model, 0))["params"]
    return Cost(sum(leaf.size for leaf in jax.tree.leaves(params)), 6 * forward(model).macs)
