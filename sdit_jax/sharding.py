"""Where arrays live: a mesh of all devices with one axis, "data"; batches are split over it, everything else is replicated."""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from sdit_jax.config import InputError


def data_mesh() -> Mesh:
    """All devices of all processes along "data"."""
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec("data"))


def check_batch_size(batch_size: int, microbatches: int, mesh: Mesh) -> None:
    """Raises InputError where a batch does not divide over the devices, or into as many microbatches."""
    if batch_size % mesh.size:
        raise InputError(f"config.batch_size: found {batch_size}, must be divisible by the {mesh.size} devices")
    if batch_size % (microbatches * mesh.size):
        raise InputError(
            f"config.microbatches: found {microbatches}, must divide the {batch_size // mesh.size} images of each device"
        )


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """The global batch, of which each process brings its shard."""
    return {name: jax.make_array_from_process_local_data(batch_sharding(mesh), array) for name, array in batch.items()}
