"""FLOPs of a step on one device, and the least bytes that it moves through memory.

`training_program` and `forward` of `analysis.operations` give the products of the step; elementwise work between products, WKV
and neurons is taken as fused into them. Per run of a product:

    FLOPs   2 MACs, divided over `tensor` where tensor parallelism splits one of its axes
    bytes   its operands and its result, in the dtype of its operands; weights and their gradients in float32. Products with
            constants are sums, which are fused

Per run of WKV 3 arrays of the size of its result move, and 5 more for its gradient; of neurons 2, and 3 more. The optimizer
reads the gradient and reads and writes both moments and the weight, and the average of the weight where one is kept.
"""

import dataclasses
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh

from sdit_jax.analysis.dataflow import TENSOR, Origin
from sdit_jax.analysis.operations import Program, trace
from sdit_jax.diffusion.objective import Objective
from sdit_jax.models import Network
from sdit_jax.ops import marks
from sdit_jax.sharding.layout import spec
from sdit_jax.training.examples import Examples, noised
from sdit_jax.training.step import gradients

FLOAT32 = 4
# Arrays that move in a run forward, and for its gradient.
MOVED = {marks.WKV: (3, 5), marks.NEURONS: (2, 3)}
UPDATES, UPDATES_OF_AVERAGE = 7, 2


def noised_batch(model: Network, objective: Objective, images: int) -> Examples:
    """The shapes of a batch of so many images."""
    batch = {
        "image": jax.ShapeDtypeStruct((images, model.image_size, model.image_size, model.channels), "uint8"),
        "label": jax.ShapeDtypeStruct((images,), "int32"),
    }
    return jax.eval_shape(lambda batch: noised(objective, batch, jax.random.key(0)), batch)


def tensor_axes(model: Network, mesh: Mesh | AbstractMesh) -> Any:
    """split(path, shape): which axes of a parameter tensor parallelism splits on the mesh."""
    return lambda path, shape: [axis if axis == TENSOR else None for axis in spec(mesh, path, shape, model.layout)]


def training_program(
    model: Network, objective: Objective, variables: Any, images: int, microbatches: int = 1,
    mesh: Mesh | AbstractMesh | None = None,
) -> Program:  # fmt: skip
    """Loss and gradients of one device's images, in microbatches; `variables` may be shapes."""

    def step(variables, examples, key):
        return gradients(model, objective, variables, examples, key, microbatches)

    split = tensor_axes(model, mesh) if mesh is not None else None
    return trace(step, variables, noised_batch(model, objective, images), jax.random.key(0), split=split)


@dataclasses.dataclass(frozen=True)
class Arithmetic:
    """One device's share of a step: FLOPs of its products, and bytes that it moves.

    Bytes are those of activations, of weights and their gradients, and of the optimizer's updates. `spared` are the FLOPs that
    products which are the same for all images, and so are done once, do not repeat.
    """

    flops: float
    spared: float
    activations: float
    weights: float
    updates: float

    @property
    def bytes(self) -> float:
        return self.activations + self.weights + self.updates


def arithmetic(program: Program, images: int, *, tensor: int = 1, updated: int = 0, ema: bool = False) -> Arithmetic:
    """Of a program of microbatches of so many images, and the update of `updated` parameters."""
    flops = spared = activations = weights = 0.0
    backward = any(operation.phase == "backward" for operation in program.operations)
    on_device = lambda array: array.size / (tensor if TENSOR in array.axes else 1)
    for operation in program.operations:
        arrays, runs = (*operation.operands, operation.result), operation.runs
        if not operation.is_product:
            again, gradient = MOVED[operation.kind]
            moved = again + (gradient if backward and operation.phase == "forward" else 0)
            activations += runs * moved * on_device(operation.result) * np.dtype(operation.result.dtype).itemsize
            continue
        work = 2 * operation.macs / (tensor if any(TENSOR in array.axes for array in arrays) else 1)
        flops += work
        spared += (images - 1) * work if operation.is_common else 0
        if any(array.origin == Origin.CONSTANT for array in operation.operands):
            continue
        itemsize = np.dtype(operation.operands[0].dtype).itemsize
        for place, array in enumerate(arrays):
            if place == operation.weights or (operation.gives_gradient and place == len(operation.operands)):
                weights += runs * FLOAT32 * on_device(array)
            else:
                activations += runs * itemsize * on_device(array)
    moved = UPDATES + UPDATES_OF_AVERAGE * ema
    return Arithmetic(flops, spared, activations, weights, FLOAT32 * moved * updated)
