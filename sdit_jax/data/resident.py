"""Batches of images that live on the devices."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from sdit_jax import sharding
from sdit_jax.data.datasets import Images
from sdit_jax.data.order import Order


class Resident:
    """`resident(step)` is what `Batches` gives of all rows together, on the devices.

    Pixels and labels are put there once, on every device; a step sends the places, flips and corners that its order names, and
    one compiled program gathers windows and mirrors them.
    """

    def __init__(self, images: Images, order: Order, mesh: Mesh):
        self.order, self._mesh = order, mesh
        batch, replicated = sharding.batch_sharding(mesh), sharding.replicated(mesh)
        put = lambda array: jax.make_array_from_process_local_data(replicated, array, array.shape)
        self._pixels, self._labels = put(images.images), put(images.labels)
        _, H, W, C = images.images.shape
        window = (1, H - order.margin, W - order.margin, C)

        def show(pixels_NHWC, labels_N, index_B, flip_B, corner_B2):
            cut = lambda i, corner: lax.dynamic_slice(pixels_NHWC, (i, corner[0], corner[1], 0), window)[0]
            image = jax.vmap(cut)(index_B, corner_B2)
            image = jnp.where(flip_B[:, None, None, None], image[:, :, ::-1], image)
            return {"image": image, "label": labels_N[index_B]}

        self._show = jax.jit(
            show, in_shardings=(replicated, replicated, batch, batch, batch), out_shardings={"image": batch, "label": batch}
        )

    def __call__(self, step: int) -> dict[str, jax.Array]:
        """{"image": uint8 (B, H, W, C), "label": int32 (B,)}, global arrays."""
        index_B, flip_B, corner_B2 = self.order(step)
        sent = {"index": index_B.astype(np.int32), "flip": flip_B, "corner": corner_B2.astype(np.int32)}
        sent = sharding.put_batch(sent, self._mesh, self.order.batch_size)
        return self._show(self._pixels, self._labels, *sent.values())
