"""Batches of images that are in memory."""

import numpy as np

from sdit_jax.data.datasets import Images
from sdit_jax.data.order import Order
from sdit_jax.data.transforms import windows


class Batches:
    """`batches(step)` shows the images that an order names, each through its window, some mirrored."""

    def __init__(self, images: Images, order: Order):
        self.images, self.order = images, order

    def __call__(self, step: int) -> dict[str, np.ndarray]:
        """{"image": uint8 (b, H, W, C), "label": int32 (b,)}."""
        showing = self.order(step)
        pixels = windows(self.images.images, showing, self.order.margin)
        return {"image": pixels, "label": self.images.labels[showing.index_B]}
