"""Batches of images in host memory."""

import jax
import numpy as np
from jax.sharding import Mesh

from sdit_jax import sharding
from sdit_jax.data.datasets import Images
from sdit_jax.data.order import Order
from sdit_jax.data.transforms import crops


def host_batch(images: Images, order: Order, step: int) -> dict[str, np.ndarray]:
    """{"image": uint8 (b, H, W, C), "label": int32 (b,)}: the rows of a step's batch that this process holds."""
    spec = order(step)
    return {"image": crops(images.images, spec, order.margin), "label": images.labels[spec.index_B]}


class InMemoryLoader:
    """Gathers every batch on the host and sends it to the devices."""

    def __init__(self, images: Images, order: Order, mesh: Mesh):
        self.images, self.order, self.mesh = images, order, mesh
        self.num_images = len(images)

    def __call__(self, step: int) -> dict[str, jax.Array]:
        return sharding.put_batch(host_batch(self.images, self.order, step), self.mesh, self.order.batch_size)

    def close(self) -> None:
        """Holds nothing to release."""

    def describe(self) -> str:
        return f"{self.num_images:,} images of {self.images.images.shape[1:]}, in memory"
