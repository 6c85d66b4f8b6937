"""Bytes that one device holds in a training step.

The state is what its layout (`sharding.shardings`) leaves on a device. What autodiff keeps for the backward pass is exact: the
residuals of the traced loss (`jax.vjp`) for one device's microbatch, with its dtypes, rematerialisation and tensor parallelism.
With R those residuals, R_none what they would be without rematerialisation, and N blocks,

    kept       = FUSED R           but R where blocks run in a loop, which stores all residuals
    transient  = (R_none - R) / N + BACKWARD R_none / N        recomputed for the current block, and its gradients
                 + its gathered weights and their gradient, where these are sharded

Two numbers are not counted but fitted to what XLA allocates on CPU for the network of MNIST, at widths 64 and 384, 5 and 17
blocks: FUSED, since the compiler does not store what it fuses into its reader, and BACKWARD.
"""

import dataclasses
import math
from typing import Any

import jax
from jax.extend.core import Literal
from jax.sharding import AbstractMesh, Mesh

from sdit_jax import sharding
from sdit_jax.analysis.dataflow import TENSOR
from sdit_jax.analysis.operations import Program, trace
from sdit_jax.diffusion.objective import Objective
from sdit_jax.models import Network
from sdit_jax.planner.arithmetic import noised_batch, tensor_axes
from sdit_jax.training.state import TrainState
from sdit_jax.training.step import loss_terms

FUSED, BACKWARD = 0.8, 0.75


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one device. `gradients` includes the accumulated ones, where there are microbatches."""

    parameters: int
    ema: int
    optimizer: int
    gradients: int
    kept: int
    transient: int

    @property
    def state(self) -> int:
        return self.parameters + self.ema + self.optimizer

    @property
    def total(self) -> int:
        return self.state + self.gradients + self.kept + self.transient


def memory(
    model: Network, objective: Objective, state: TrainState, mesh: Mesh | AbstractMesh, images: int, microbatches: int = 1
) -> Memory:
    """Of one device of the mesh, which works on `images` a step in `microbatches`; `state` may be shapes."""
    fsdp, blocks, part = mesh.shape["fsdp"], model.blocks, images // microbatches
    layout = sharding.shardings(mesh, state, model.layout)
    gradient = on_device(state.params, layout.params)
    R, program = residuals(model, objective, state.variables, part, mesh)
    R_none = R
    if model.remat != "none":
        R_none, _ = residuals(model.clone(remat="none"), objective, state.variables, part, mesh)
    loops = [loop for operation in program.equations for loop in operation.loops if loop.stack is not None]
    fused = FUSED if model.remat == "none" and all(loop.unrolled for loop in loops) else 1
    gathered = 2 * fsdp * gradient / blocks if fsdp > 1 else 0
    return Memory(
        on_device(state.variables, layout.variables),
        on_device(state.ema, layout.ema),
        on_device(state.optimizer, layout.optimizer),
        gradients=gradient * (1 + (microbatches > 1)),
        kept=round(fused * R),
        transient=round((R_none - R + fused * BACKWARD * R_none) / blocks + gathered),
    )


def on_device(tree: Any, layout: Any) -> int:
    """Bytes of one device's parts of abstract arrays."""
    parts = jax.tree.map(lambda leaf, to: math.prod(to.shard_shape(leaf.shape)) * leaf.dtype.itemsize, tree, layout)
    return sum(jax.tree.leaves(parts))


def residuals(
    model: Network, objective: Objective, variables: Any, images: int, mesh: Mesh | AbstractMesh
) -> tuple[int, Program]:
    """Bytes that one device keeps between the loss of some images and its gradient, and the program of that loss.

    Parameters and images are not included.
    """

    def backward(variables, examples):
        def loss(params):
            return loss_terms(model, objective, variables | {"params": params}, examples, jax.random.key(0))

        return jax.vjp(loss, variables["params"], has_aux=True)[1]

    examples = noised_batch(model, objective, images)
    program = trace(backward, variables, examples, split=tensor_axes(model, mesh))
    results = zip(program.jaxpr.outvars, program.results, strict=True)
    kept = {variable: array for variable, array in results if not isinstance(variable, Literal)}
    split = lambda array: mesh.shape["tensor"] if TENSOR in array.axes else 1
    sizes = {variable: array.size * array.dtype.itemsize // split(array) for variable, array in kept.items()}
    return sum(sizes[variable] for variable in kept.keys() - set(program.jaxpr.invars)), program
