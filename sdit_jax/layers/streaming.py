"""Spiking steps through a whole network, one after the other; layers of neurons keep their membranes from step to step.

    output_t, membranes_t = step(module, membranes_{t-1})       t = 1..T, from rest
    streamed                = 1/T sum_t output_t

Membranes are explicit: a dict of the membrane of each layer of neurons by its name, or of the dict of each block by its name,
as deep as the network is; {} is rest. A network streams as

    def __call__(self, x_BLC):
        current = Linear(...)(x_BLC)                            outside: what is the same at every step, computed once

        def step(module, membranes):
            spikes, v = Spiking(name="neurons").step(current, membranes.get("neurons"))
            y, inside = Block(name="block")(spikes, membranes.get("block", {}))
            return y, {"neurons": v, "block": inside}

        return streamed(step, self, steps=4)

Stacked blocks (`nn.scan` over blocks, inside of a step) take the membranes of their stack with in_axes 0 and return them among
what they stack. Parameters have the paths that they have without `streamed`.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

Membranes = dict[str, Any]
_ALIKE = {"variable_broadcast": "params", "split_rngs": {"params": False}}


def streamed(
    step: Callable[[Any, Membranes], tuple[jax.Array, Membranes]],
    module: nn.Module,
    steps: int,
    *,
    rest: float = 0.0,
    unroll: int = 1,
) -> jax.Array:
    """The mean output of `steps` spiking steps, by a scan; called in the compact method of `module`, whose layers `step` calls.

    What layers sow in a step has the steps as its first axis afterwards: "spikes" (see `layers.spiking.by_layer`) and "raster".
    A step has parameters but no running statistics. Initialisation, which needs the parameters alone, runs a single step.

    Args:
      step: (module, membranes) -> (output, membranes). It returns the same names at every step, and must take {}, rest.
      module: the flax module that calls.
      steps: T.
      rest: every membrane before the first step; must be where neurons start by themselves.
      unroll: steps that are compiled as one iteration of the scan.
    """
    if module.is_initializing():
        return step(module, {})[0]

    def iteration(module, membranes, _):
        output, membranes = step(module, membranes)
        return membranes, output

    # One step from rest, of which the compiler keeps nothing: neurons know the shapes of their membranes only once they run.
    first = nn.scan(lambda module, _, __: (None, step(module, {})[1]), length=1, **_ALIKE)
    _, after_1 = first(module, None, None)
    membranes = jax.tree.map(lambda leaf: jnp.full(leaf.shape[1:], rest, leaf.dtype), after_1)
    sown: Any = {"spikes": 0, "raster": 0}
    scan = nn.scan(iteration, variable_axes=sown, length=steps, unroll=unroll, **_ALIKE)
    _, outputs_T = scan(module, membranes, None)
    return outputs_T.mean(0)
