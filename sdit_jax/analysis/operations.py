"""The operations of a traced program: each dot and convolution, WKV and layer of neurons, with its layer, counts and arrays.

`trace` records a function as a jaxpr and walks through it once, also through jitted, rematerialised and custom-gradient
functions; nothing is computed. A dot over an axis of K numbers has K multiply-accumulates (MACs) per element of its result. A
convolution has one per element of its result, input channel of its group and tap of its kernel, padding included; the zeros
that a transposed convolution inserts are excluded, so that it has as many as the convolution that it transposes. WKV and
neurons are elementwise and are counted by rule, at their marks (`ops.marks`).

    scan     its operations run `length` times; where it scans over weights of products (`nn.scan` over blocks), each iteration
             is a layer of its own: "in_blocks.0", "in_blocks.1", ...
    cond     its largest branch
    shard    its operations (`jax.shard_map`) run once for each part of its arguments
    while    of unknown length: its operations count once, and `Program.uncertain` names their layers

Layers are named by the scopes of flax modules. Operations whose results are not used are left out, as a compiler does.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr
from jax.interpreters.partial_eval import dce_jaxpr

from sdit_jax.analysis.dataflow import BATCH, Array, Axes, Origin
from sdit_jax.analysis.walker import Operation, Walker, opened
from sdit_jax.models import Network, initial_variables


class InLayer(NamedTuple):
    """An operation in one layer: which of `Program.equations` it is, and the indices of its loops there."""

    operation: Operation
    equation: int
    index: tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Program:
    """A traced function without dead code; its operations, one per equation; descriptions of its results."""

    jaxpr: Jaxpr
    consts: Sequence[Any]
    equations: tuple[Operation, ...]
    results: tuple[Array, ...]

    @functools.cached_property
    def by_layer(self) -> list[InLayer]:
        """All operations; those of stacked layers once per layer, layer by layer."""
        found = []
        first_stack = lambda pair: next((loop.stack for loop in pair[1].loops if loop.stack is not None), None)
        for _, group in itertools.groupby(enumerate(self.equations), first_stack):
            layers = [InLayer(operation, i, index) for i, equation in group for operation, index in equation.by_layer()]
            found += sorted(layers, key=lambda layer: next((i for i in layer.index if isinstance(i, int)), 0))
        return found

    @property
    def operations(self) -> list[Operation]:
        return [each.operation for each in self.by_layer]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of products and WKV."""
        return sum(operation.macs for operation in self.operations)

    @property
    def flops(self) -> int:
        """Floating-point operations of products: two per multiply-accumulate."""
        return sum(2 * operation.macs for operation in self.operations if operation.is_product)

    @property
    def model_flops(self) -> int:
        """`flops` without what is computed again for the backward pass."""
        return self.flops - sum(2 * each.macs for each in self.operations if each.is_product and each.phase == "recompute")

    @property
    def uncertain(self) -> list[str]:
        """Layers with operations in loops of unknown length, which are counted once."""
        unknown = [each.layer for each in self.operations if any(loop.length is None for loop in each.loops)]
        return list(dict.fromkeys(unknown))


def forward(model: Network, images: int = 1) -> Program:
    """One forward pass of so many images, as for sampling."""
    image = jax.ShapeDtypeStruct((images, model.image_size, model.image_size, model.channels), "float32")
    t_B, y_B = (jax.ShapeDtypeStruct((images,), dtype) for dtype in ("float32", "int32"))
    return trace(model.apply, jax.eval_shape(lambda: initial_variables(model, 0)), image, t_B, y_B)


def trace(
    function: Callable[..., Any], variables: Any, *inputs: Any, split: Callable[[str, Sequence[int]], Axes] | None = None
) -> Program:
    """The program of function(variables, *inputs); all arguments may be shapes.

    The leaves of `variables`, a network's {"params": ...}, are parameters, and `split(path, shape)` labels their axes. The
    first axis of all other arrays counts images.
    """
    arrays = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        name = jax.tree_util.keystr(path, simple=True, separator="/").removeprefix("params/")
        arrays.append(Array.of(leaf, Origin.PARAMETERS, name, tuple(split(name, leaf.shape)) if split else None))
    images = lambda ndim: (BATCH, *[None] * (ndim - 1))[:ndim]
    arrays += [Array.of(leaf, Origin.DATA, axes=images(leaf.ndim)) for leaf in jax.tree.leaves(inputs)]
    return walk(jax.make_jaxpr(function)(variables, *inputs), arrays)


def walk(traced: ClosedJaxpr, inputs: Sequence[Array] | None = None) -> Program:
    """The program of a jaxpr; `inputs` describe its arguments, by default as data."""
    jaxpr, consts = opened(traced)
    jaxpr, _ = dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars), instantiate=True)
    consts = getattr(jaxpr, "consts", consts)  # In JAX 0.12 a jaxpr holds its own, without unused ones.
    if inputs is None:
        inputs = [Array.of(variable.aval, Origin.DATA) for variable in jaxpr.invars]
    walker = Walker({array.view.split("/")[0] for array in inputs if array.view})
    outputs, operations = walker.program(jaxpr, inputs, "")
    return Program(jaxpr, consts, tuple(operations), tuple(outputs))
