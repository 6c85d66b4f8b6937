"""Functions that each device computes from its own part of activations, since the compiler cannot divide them: kernels.

It divides every operation of XLA by itself, but refuses a program in which an axis of the mesh is left to it around a kernel.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import AbstractMesh, AxisType, PartitionSpec


def on_parts(function: Callable, arguments: tuple[Any, ...], names: Mapping[int, tuple[str, ...]]) -> Any:
    """function(*arguments) on each device's part of them, on the mesh of `on_mesh`; without one, of the whole.

    `names` are those of the axes of an array, arguments and results alike, by their number; they lie on the mesh as activations
    do (`layout.ACTIVATIONS`), but whole where they do not divide. The parts of a result are those of its named axes: an axis
    that is not split must have its results on all devices alike.
    """
    mesh = jax.sharding.get_abstract_mesh()
    free = {axis for axis, kind in zip(mesh.axis_names, mesh.axis_types, strict=True) if kind != AxisType.Manual}
    if not free:
        return function(*arguments)
    sizes = _sizes(arguments, names)
    split = {name: _axes(mesh, free, name, size) for name, size in sizes.items()}
    spec = lambda x: PartitionSpec(*(split[name] for name in names[x.ndim]))
    call = jax.shard_map(
        function,
        mesh=mesh,
        in_specs=jax.tree.map(spec, arguments),
        out_specs=jax.tree.map(spec, jax.eval_shape(function, *arguments)),
        axis_names=free,
        check_vma=False,
    )
    return call(*arguments)


def _sizes(arguments, names) -> dict[str, int]:
    """The greatest common divisor of the sizes of each named axis."""
    found: dict[str, int] = {}
    for x in jax.tree.leaves(arguments):
        for name, size in zip(names[x.ndim], x.shape, strict=True):
            found[name] = math.gcd(found.get(name, 0), size)
    return found


def _axes(mesh: AbstractMesh, free: set[Any], name: str, size: int) -> Any:
    """The axes of the mesh that split a named axis of that size; None where they do not divide it."""
    (axes,) = nn.logical_to_mesh_axes((name,)) or (None,)  # pyright: ignore[reportPrivateImportUsage]
    axes = tuple(axis for axis in (axes if isinstance(axes, tuple) else (axes,)) if axis in free)
    return axes if axes and size % math.prod(mesh.shape[axis] for axis in axes) == 0 else None
