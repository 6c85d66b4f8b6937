"""Where the arrays of a traced program come from, and which of their axes are split over devices.

Each array is a constant, computed from parameters alone, or computed from data. A `view` is one parameter, or part of it, cast
and rearranged. An axis is labelled "batch" where it counts images and "tensor" where tensor parallelism splits it. Labels pass
from the operands of an equation to its results, as a compiler that partitions the program would place them.

An array behind neurons holds spikes per spiking step, n / T for a count n over T steps; its `steps` are T. Zeros, which are no
spikes in any number of steps, have 0, all other arrays None. `steps` pass through equations that move numbers and change none:
a weighted mean of two arrays of spikes is real-valued.
"""

import dataclasses
import enum
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax.extend.core import JaxprEqn

BATCH, TENSOR = "batch", "tensor"
Axes = tuple[str | None, ...]


class Origin(enum.IntEnum):
    """What an array is computed from; of several inputs the greatest counts."""

    CONSTANT = 0
    PARAMETERS = 1
    DATA = 2


@dataclasses.dataclass(frozen=True)
class Array:
    """Shape and dtype of an array in a program, its origin, the parameter it is a view of, the label of each axis, and `steps`:
    the spiking steps that one of its numbers stands for (see above).
    """

    shape: tuple[int, ...]
    dtype: Any
    origin: Origin = Origin.CONSTANT
    view: str | None = None
    axes: Axes = ()
    steps: int | None = None

    @classmethod
    def of(cls, aval: Any, origin: Origin = Origin.CONSTANT, view: str | None = None, axes: Axes | None = None) -> "Array":
        shape = tuple(getattr(aval, "shape", ()))
        return cls(shape, getattr(aval, "dtype", None), origin, view, (None,) * len(shape) if axes is None else axes)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def joined(self, other: "Array") -> "Array":
        """The same array where it may come from either of two places."""
        view, origin = self.view if self.view == other.view else None, max(self.origin, other.origin)
        axes, steps = _union(self.axes, other.axes), _common_steps(self.steps, other.steps)
        return dataclasses.replace(self, origin=origin, view=view, axes=axes, steps=steps)

    def unstacked(self) -> "Array":
        """One element along the first axis."""
        return dataclasses.replace(self, shape=self.shape[1:], axes=self.axes[1:])

    def stacked(self, length: int) -> "Array":
        """`length` of them along a new first axis."""
        return dataclasses.replace(self, shape=(length, *self.shape), axes=(None, *self.axes))


def results(equation: JaxprEqn, inputs: Sequence[Array]) -> list[Array]:
    """The results of an equation that contains no programs."""
    name = equation.primitive.name
    outputs: list[Any] = [variable.aval for variable in equation.outvars]
    if name == "optimization_barrier":  # Several arrays pass through, each for itself.
        return list(inputs)
    origin = max((array.origin for array in inputs), default=Origin.CONSTANT)
    view = inputs[0].view if name in VIEWS and origin == Origin.PARAMETERS else None
    rule = _RULES.get(name, _reduced if "axes" in equation.params and name.startswith(("reduce_", "arg")) else _elementwise)
    steps = _moved_steps(name, inputs)
    arrays = [Array.of(aval, origin, view, rule(equation.params, inputs, aval.shape)) for aval in outputs]
    return [dataclasses.replace(a, steps=steps if jnp.issubdtype(a.dtype, jnp.floating) else None) for a in arrays]


def contraction(equation: JaxprEqn, lhs: Array, rhs: Array) -> tuple[Array, Array, frozenset[str]]:
    """(lhs, rhs, labels that are summed over) of a dot or convolution.

    Axes that are multiplied together get the same label. A device that holds a part of an axis that is summed over has a part
    of the sum.
    """
    if equation.primitive.name == "dot_general":
        (sum_l, sum_r), (batch_l, batch_r) = equation.params["dimension_numbers"]
        pairs, summed = [*zip(sum_l, sum_r, strict=True), *zip(batch_l, batch_r, strict=True)], sum_l
    else:
        numbers = equation.params["dimension_numbers"]
        pairs, summed = [(numbers.lhs_spec[1], numbers.rhs_spec[1])], numbers.lhs_spec[1:2]
    axes_l, axes_r = list(lhs.axes), list(rhs.axes)
    for left, right in pairs:
        axes_l[left] = axes_r[right] = axes_l[left] or axes_r[right]
    labels = frozenset(label for label in (axes_l[axis] for axis in summed) if label)
    return dataclasses.replace(lhs, axes=tuple(axes_l)), dataclasses.replace(rhs, axes=tuple(axes_r)), labels


# Primitives whose result holds the numbers of their first operand, or some of them.
VIEWS = {
    "broadcast_in_dim", "convert_element_type", "copy", "dynamic_slice", "name", "reshape", "rev", "sharding_constraint",
    "slice", "squeeze", "transpose",
}  # fmt: skip
# Primitives whose result holds numbers of several operands, unchanged, and which operands these are.
MOVES = {
    "concatenate": slice(None), "pad": slice(2), "select_n": slice(1, None), "dynamic_update_slice": slice(2),
    "gather": slice(1), "split": slice(1),
} | dict.fromkeys(VIEWS, slice(1))  # fmt: skip


def _moved_steps(name: str, inputs: Sequence[Array]) -> int | None:
    moved = inputs[MOVES[name]] if name in MOVES else ()
    return functools.reduce(_common_steps, [array.steps for array in moved]) if moved else None


def _common_steps(first: int | None, second: int | None) -> int | None:
    if first == 0 or second == 0:  # Zeros beside the other's numbers.
        return second if first == 0 else first
    return first if first == second else None


def _union(first: Axes, second: Axes) -> Axes:
    return tuple(a or b for a, b in zip(first, second, strict=True))


def _elementwise(params, inputs, shape) -> Axes:
    """Of unknown primitives too: an axis of the result has the label of that axis in operands of as many axes."""
    axes = (None,) * len(shape)
    for array in inputs:
        if len(array.shape) == len(shape):
            axes = _union(axes, array.axes)
    return axes


def _reduced(params, inputs, shape) -> Axes:
    return tuple(label for axis, label in enumerate(inputs[0].axes) if axis not in params["axes"])


def _transposed(params, inputs, shape) -> Axes:
    return tuple(inputs[0].axes[axis] for axis in params["permutation"])


def _squeezed(params, inputs, shape) -> Axes:
    return tuple(label for axis, label in enumerate(inputs[0].axes) if axis not in params["dimensions"])


def _broadcast(params, inputs, shape) -> Axes:
    axes: list[str | None] = [None] * len(shape)
    for label, axis in zip(inputs[0].axes, params["broadcast_dimensions"], strict=True):
        axes[axis] = label
    return tuple(axes)


def _reshaped(params, inputs, shape) -> Axes:
    """Axes are merged and split in groups of equal size; a group's label goes to the first axis of its result."""
    old, labels = inputs[0].shape, inputs[0].axes
    axes: list[str | None] = [None] * len(shape)
    if 0 in old:
        return tuple(axes)
    i = j = 0
    while i < len(old) and j < len(shape):
        first_i, first_j, size_i, size_j = i, j, old[i], shape[j]
        i, j = i + 1, j + 1
        while size_i != size_j:
            if size_i < size_j:
                size_i, i = size_i * old[i], i + 1
            else:
                size_j, j = size_j * shape[j], j + 1
        label = next((label for label in labels[first_i:i] if label), None)
        # Axes of size 1 may be new; a batch may be of one image.
        places = [axis for axis in range(first_j, j) if shape[axis] > 1 and label != BATCH]
        axes[places[0] if places else first_j] = label
    return tuple(axes)


def _gathered(params, inputs, shape) -> Axes:
    numbers, (operand, indices) = params["dimension_numbers"], inputs[:2]
    dropped = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
    rows = iter(indices.axes[:-1])
    columns = iter([label for axis, label in enumerate(operand.axes) if axis not in dropped])
    return tuple(next(columns) if axis in numbers.offset_dims else next(rows) for axis in range(len(shape)))


def _multiplied(params, inputs, shape) -> Axes:
    (sum_l, sum_r), (batch_l, batch_r) = params["dimension_numbers"]
    lhs, rhs = inputs
    shared = [lhs.axes[left] or rhs.axes[right] for left, right in zip(batch_l, batch_r, strict=True)]
    free_l = [label for axis, label in enumerate(lhs.axes) if axis not in (*sum_l, *batch_l)]
    free_r = [label for axis, label in enumerate(rhs.axes) if axis not in (*sum_r, *batch_r)]
    return (*shared, *free_l, *free_r)


def _convolved(params, inputs, shape) -> Axes:
    numbers, (lhs, rhs) = params["dimension_numbers"], inputs
    axes: list[str | None] = [None] * len(shape)
    axes[numbers.out_spec[0]], axes[numbers.out_spec[1]] = lhs.axes[numbers.lhs_spec[0]], rhs.axes[numbers.rhs_spec[0]]
    return tuple(axes)


_RULES = {
    "transpose": _transposed, "squeeze": _squeezed, "broadcast_in_dim": _broadcast, "reshape": _reshaped, "gather": _gathered,
    "dot_general": _multiplied, "conv_general_dilated": _convolved,
}  # fmt: skip
