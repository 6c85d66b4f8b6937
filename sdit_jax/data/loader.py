"""The loader of a data set: batches on the devices as a function of the step."""

import dataclasses
from typing import Any, Protocol

import jax
from jax.sharding import Mesh

from sdit_jax import sharding
from sdit_jax.data.datasets import Examples, Images
from sdit_jax.data.decoded import decoded
from sdit_jax.data.in_memory import InMemoryLoader
from sdit_jax.data.on_device import OnDeviceLoader
from sdit_jax.data.order import Order
from sdit_jax.data.streaming import StreamingLoader
from sdit_jax.data.transforms import check_filter, fit
from sdit_jax.errors import InputError

RESIDENT = ("auto", "always", "never")
AUTO_PARTS = 5  # "auto" puts images on an accelerator where they take at most one part in five of its memory.
GiB = 2**30


class Loader(Protocol):
    """`loader(step)` is the global batch of a step, the same for every implementation."""

    num_images: int  # In the data set.

    def __call__(self, step: int) -> dict[str, jax.Array]:
        """{"image": uint8 (B, H, W, C), "label": int32 (B,)}, arrays split over the mesh."""
        ...

    def close(self) -> None:
        """Stops what runs in the background."""
        ...

    def describe(self) -> str:
        """Number and shape of the images, before crops, and where they are: a line for a log."""
        ...


def make_loader(
    data: Images | Examples, fields: Any, mesh: Mesh, *, size: int, channels: int, batch_size: int, seed: int
) -> Loader:
    """The loader of a data set whose batches are (batch_size, size, size, channels); `fields` is config.data.

    Examples larger than `memory_GiB`, once fitted, are decoded while training runs, smaller ones now. Images in memory are put
    on the devices as `resident` asks. Raises InputError for a wrong field, fields that contradict each other, and images that
    cannot be read or fitted.
    """
    check_filter(fields.resize)
    if fields.resident not in RESIDENT:
        raise InputError(f"config.data.resident: found {fields.resident!r}, allowed are {', '.join(RESIDENT)}")
    side, rows = size + fields.margin, sharding.rows(mesh, batch_size)
    nbytes = len(data) * side * side * channels

    def order(length):
        return Order(length, batch_size=batch_size, seed=seed, flip=fields.flip, margin=fields.margin, rows=rows)

    if isinstance(data, Images):
        images = dataclasses.replace(data, images=fit(data.images, side, channels, fields.resize))
    elif nbytes <= fields.memory_GiB * GiB:
        images = decoded(data, side, channels, fields.resize)
    elif fields.resident == "always":
        raise InputError(
            f"config.data.resident: found 'always', but the images take {nbytes / GiB:.3g} GiB, "
            f"and config.data.memory_GiB is {fields.memory_GiB:g}"
        )
    else:
        return StreamingLoader(data, order(len(data)), mesh, size=side, channels=channels, resize=fields.resize)
    fits = nbytes * AUTO_PARTS <= _accelerator_memory()
    if fields.resident == "always" or (fields.resident == "auto" and fits):
        return OnDeviceLoader(images, order(len(images)), mesh)
    return InMemoryLoader(images, order(len(images)), mesh)


def _accelerator_memory() -> int:
    """Bytes of one device; 0 on a CPU and where the device does not report them."""
    if jax.default_backend() == "cpu":
        return 0
    return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", 0)
