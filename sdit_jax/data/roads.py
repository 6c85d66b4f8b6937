"""How batches reach the devices: from memory, from the devices' own memory, or decoded while training runs."""

import dataclasses
import functools

import jax
from jax.sharding import Mesh

from sdit_jax import sharding
from sdit_jax.config import Config, InputError
from sdit_jax.data.batches import Batches
from sdit_jax.data.datasets import Examples, Images
from sdit_jax.data.decoded import decoded, say_skipped
from sdit_jax.data.order import Order
from sdit_jax.data.resident import Resident
from sdit_jax.data.streaming import Streamed
from sdit_jax.data.transforms import check_filter, fit

RESIDENT = ("auto", "always", "never")
PART = 5  # "auto": on an accelerator, data that take at most a fifth of its memory.
GiB = 2**30


@dataclasses.dataclass(frozen=True)
class Feed:
    """`feed(step)` is the global batch of a step on the devices, whichever road it takes."""

    road: Batches | Streamed | Resident
    mesh: Mesh
    batch_size: int  # Over all processes.
    length: int  # Images in the data set.
    shape: tuple[int, int, int]  # Of an image, as it is fitted: the model's and the margin.

    def __call__(self, step: int) -> dict[str, jax.Array]:
        """{"image": uint8 (B, H, W, C), "label": int32 (B,)}, global arrays."""
        return (
            self.road(step)
            if isinstance(self.road, Resident)
            else sharding.put_batch(self.road(step), self.mesh, self.batch_size)
        )

    def close(self) -> None:
        """Ends what the road has running."""
        if isinstance(self.road, Streamed):
            self.road.close()

    def describe(self) -> str:
        """Number and shape of the images, and their road."""
        road = {Batches: "in memory", Resident: "on the devices", Streamed: "decoded while training"}[type(self.road)]
        return f"{self.length:,} images of {self.shape}, {road}"


def make_batches(
    data: Images | Examples, config: Config, mesh: Mesh, *, size: int, channels: int, batch_size: int, seed: int
) -> Feed:
    """The feed of a data set whose windows are (size, size, channels); `config` holds the fields of config.data.

    Examples that take more than `memory_GiB` when they are fitted are decoded while training runs; others are decoded now.
    Raises InputError for fields that are wrong or contradict each other, and for images that cannot be read or fitted.
    """
    check_filter(config.resize)
    if config.resident not in RESIDENT:
        raise InputError(f"config.data.resident: found {config.resident!r}, allowed are {', '.join(RESIDENT)}")
    side = size + config.margin
    nbytes, limit = len(data) * side * side * channels, config.memory_GiB * GiB
    streams = isinstance(data, Examples) and nbytes > limit
    if streams and config.resident == "always":
        raise InputError(
            f"config.data.resident: found 'always', but the images take {nbytes / GiB:.3g} GiB, "
            f"and config.data.memory_GiB is {config.memory_GiB:g}"
        )
    chosen = {"batch_size": batch_size, "seed": seed, "flip": config.flip, "margin": config.margin}
    order = functools.partial(Order, **chosen, rows=sharding.rows(mesh, batch_size))
    if isinstance(data, Examples) and streams:
        say_skipped(data)
        road = Streamed(data, order(len(data)), side, channels, config.resize)
        return Feed(road, mesh, batch_size, len(data), (side, side, channels))

    if isinstance(data, Examples):
        images = decoded(data, side, channels, config.resize)
    else:
        images = dataclasses.replace(data, images=fit(data.images, side, channels, config.resize))
    if config.resident == "always" or (config.resident == "auto" and nbytes * PART <= _accelerator_memory()):
        road = Resident(images, order(len(images)), mesh)
    else:
        road = Batches(images, order(len(images)))
    return Feed(road, mesh, batch_size, len(images), (side, side, channels))


def _accelerator_memory() -> int:
    """Bytes of one device; 0 on a CPU, and where the device does not tell."""
    if jax.default_backend() == "cpu":
        return 0
    return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", 0)
