"""How arrays lie on a mesh: weights, averages and moments by the name of the parameter, activations by what their axes are.

A network's `Layout` names what is split over `tensor`, as in Shoeybi et al. 2019 (arXiv 1909.08053): the products that enter a
layer split their outputs and the one that leaves it its inputs, so that what is between stays on its device. Over `fsdp` every
array of at least `LARGE` elements is split, along its largest axis that divides (Rajbhandari et al. 2020, arXiv 1910.02054).
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from sdit_jax.sharding.mesh import BATCH

LARGE = 2**14
# Name of an activation's axis -> mesh axes.
ACTIVATIONS = (("batch", BATCH), ("tokens", None), ("channels", None), ("inner", "tensor"))


@dataclasses.dataclass(frozen=True)
class Layout:
    """How the parameters of a network lie on a mesh.

    `split` pairs a pattern of the end of a parameter's path with the mesh axis of each of its last axes. `stacked` is a pattern
    of paths whose first axis counts blocks, which run one after the other: that axis is never split.
    """

    split: tuple[tuple[str, tuple[str | None, ...]], ...] = ()
    stacked: str | None = None

    def axes(self, name: str) -> tuple[str | None, ...]:
        """The mesh axis of each of the last axes of a parameter; () where nothing is said of it."""
        return next((axes for pattern, axes in self.split if re.search(rf"(^|/){pattern}$", name)), ())

    def is_stacked(self, name: str) -> bool:
        return self.stacked is not None and re.search(self.stacked, name) is not None


def shardings(mesh: Mesh | AbstractMesh, tree: Any, layout: Layout) -> Any:
    """The sharding of every leaf of a state (arrays, or their shapes), by path and shape."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: NamedSharding(mesh, spec(mesh, _name(path), leaf.shape, layout)), tree
    )


def spec(mesh: Mesh | AbstractMesh, name: str, shape: Sequence[int], layout: Layout) -> PartitionSpec:
    """The mesh axis of every axis of an array; an axis that does not divide stays whole."""
    axes: list[str | None] = [None] * len(shape)
    divides = lambda place, axis: mesh.shape[axis] > 1 and shape[place] % mesh.shape[axis] == 0
    named = layout.axes(name)
    if len(named) <= len(shape):
        for place, axis in enumerate(named, len(shape) - len(named)):
            axes[place] = axis if axis and divides(place, axis) else None
    unstacked = range(1 if layout.is_stacked(name) else 0, len(shape))
    free = [place for place in unstacked if axes[place] is None and divides(place, "fsdp")]
    if free and math.prod(shape) >= LARGE:
        axes[max(free, key=lambda place: shape[place])] = "fsdp"
    return PartitionSpec(*axes)


def _name(path):
    return "/".join(str(getattr(entry, "key", getattr(entry, "name", getattr(entry, "idx", "")))) for entry in path)


@contextmanager
def on_mesh(mesh: Mesh) -> Iterator[None]:
    """While a function is traced, `constrained` lays activations on this mesh; on one device it does nothing."""
    if mesh.size == 1:
        yield
        return
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh), nn.logical_axis_rules(ACTIVATIONS):
        yield


def constrained(x: jax.Array, *axes: str) -> jax.Array:
    """An activation with these axes (names in ACTIVATIONS), laid out on the mesh of `on_mesh` where there is one."""
    return nn.with_logical_constraint(x, axes)  # pyright: ignore[reportPrivateImportUsage]


def describe(mesh: Mesh | AbstractMesh, tree: Any, layout: Layout) -> str:
    """A table: every array, its split over the mesh, and the bytes of it on one device."""
    rows = [("array", "shape", "split", "bytes per device")]
    total = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        where = spec(mesh, _name(path), leaf.shape, layout)
        nbytes = leaf.dtype.itemsize * math.prod(NamedSharding(mesh, where).shard_shape(leaf.shape))
        total += nbytes
        split = " ".join(axis or "-" for axis in where) if any(where) else "whole"
        rows.append((_name(path), "x".join(map(str, leaf.shape)) or "scalar", split, f"{nbytes:,}"))
    rows.append(("total", "", "", f"{total:,}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in rows)
