"""The mesh: all devices of all processes along three axes, "data", "fsdp" and "tensor", and batches split over it.

| axis | splits | costs |
|---|---|---|
| `data` | batches | a sum of gradients |
| `fsdp` | batches, and every large array of the state (`layout`) | also a gather of the weights before their use |
| `tensor` | the inner channels of products (`layout`) | also a sum of the products' results |

Between slices of devices, which a slow network joins, only `data` is split.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from sdit_jax.errors import InputError

AXES = ("data", "fsdp", "tensor")
BATCH = ("data", "fsdp")  # The axes that batches are split over.


def make_mesh(sizes: Mapping[str, int] | None = None, devices: Sequence[Any] | None = None) -> Mesh:
    """The mesh of config.mesh; all devices along "data" by default.

    Raises InputError where the sizes do not multiply to the devices, or `data` does not divide over the slices.
    """
    devices = jax.devices() if devices is None else devices
    shape = resolved(sizes or {}, len(devices))
    return Mesh(arranged(shape, devices), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def resolved(sizes: Mapping[str, int], devices: int) -> tuple[int, ...]:
    """Sizes of data, fsdp and tensor that multiply to the number of devices: one may be -1, for all that are left."""
    shape = [sizes.get(axis, -1 if axis == "data" else 1) for axis in AXES]
    given = " x ".join(f"{axis} {size}" for axis, size in zip(AXES, shape, strict=True))
    for axis, size in zip(AXES, shape, strict=True):
        if size < 1 and size != -1:
            raise InputError(f"config.mesh.{axis}: found {size}, must be at least 1, or -1 for all devices that are left")
    if shape.count(-1) > 1:
        raise InputError(f"config.mesh: found {given}, only one may be -1")
    known = int(np.prod([size for size in shape if size != -1]))
    if devices % known or (-1 not in shape and known != devices):
        raise InputError(f"config.mesh: found {given}, must multiply to the {devices} devices")
    return tuple(devices // known if size == -1 else size for size in shape)


def arranged(shape: Sequence[int], devices: Sequence[Any]) -> np.ndarray:
    """The devices as an array of that shape, neighbours near each other, slices one after the other along `data`."""
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if slices == 1:
        return mesh_utils.create_device_mesh(tuple(shape), devices, allow_split_physical_axes=True)
    data, *rest = shape
    if data % slices:
        raise InputError(
            f"config.mesh.data: found {data}, must be divisible by the {slices} slices, which no other axis crosses"
        )
    inside, across = (data // slices, *rest), (slices, *[1] * len(rest))
    return mesh_utils.create_hybrid_device_mesh(inside, across, devices, allow_split_physical_axes=True)


def replicated(mesh: Mesh | AbstractMesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh | AbstractMesh, axes: Sequence[str] = BATCH) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec(tuple(axes)))


def check_batch_size(batch_size: int, microbatches: int, mesh: Mesh | AbstractMesh) -> None:
    """Raises InputError where a batch does not divide over `data` and `fsdp`, or into as many microbatches."""
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch_size % parts:
        over = f"{parts} devices" if mesh.size == parts else f"data {mesh.shape['data']} x fsdp {mesh.shape['fsdp']} = {parts}"
        raise InputError(f"config.batch_size: found {batch_size}, must be divisible by the {over}")
    if batch_size % (microbatches * parts):
        raise InputError(
            f"config.microbatches: found {microbatches}, must divide the {batch_size // parts} images of each device"
        )


def local(tree: Any, mesh: Mesh) -> Any:
    """The arrays as this process can use them alone: with several processes, copied whole into its memory."""
    if jax.process_count() == 1:
        return tree
    return jax.device_get(jax.jit(lambda tree: tree, out_shardings=replicated(mesh))(tree))


def rows(mesh: Mesh, batch_size: int) -> np.ndarray:
    """The rows of a global batch on the devices of this process, ascending; other processes may hold some of them too."""
    found = batch_sharding(mesh).addressable_devices_indices_map((batch_size,)).values()
    return np.unique(np.concatenate([np.arange(batch_size)[index] for index in found]))


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh, batch_size: int) -> dict[str, jax.Array]:
    """The global batch, from the `rows` of each process."""

    def put(array):
        shape = (batch_size, *array.shape[1:])
        return jax.make_array_from_process_local_data(batch_sharding(mesh), array, shape)

    return {name: put(array) for name, array in batch.items()}
