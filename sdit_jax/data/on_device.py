"""Batches of images in the memory of the devices."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from sdit_jax import sharding
from sdit_jax.data.datasets import Images
from sdit_jax.data.order import Order


class OnDeviceLoader:
    """Puts all pixels and labels on every device once; a step sends its batch spec, and one compiled program gathers the batch.

    Batches equal those of `InMemoryLoader` to the bit.
    """

    def __init__(self, images: Images, order: Order, mesh: Mesh):
        self.order, self.mesh, self.num_images = order, mesh, len(images)
        batch, replicated = sharding.batch_sharding(mesh), sharding.replicated(mesh)
        put = lambda array: jax.make_array_from_process_local_data(replicated, array, array.shape)
        self._pixels, self._labels = put(images.images), put(images.labels)
        _, H, W, C = images.images.shape
        crop = (1, H - order.margin, W - order.margin, C)

        def gather(pixels_NHWC, labels_N, index_B, flip_B, corner_B2):
            cut = lambda i, corner: lax.dynamic_slice(pixels_NHWC, (i, corner[0], corner[1], 0), crop)[0]
            image = jax.vmap(cut)(index_B, corner_B2)
            image = jnp.where(flip_B[:, None, None, None], image[:, :, ::-1], image)
            return {"image": image, "label": labels_N[index_B]}

        self._gather = jax.jit(
            gather, in_shardings=(replicated, replicated, batch, batch, batch), out_shardings={"image": batch, "label": batch}
        )

    def __call__(self, step: int) -> dict[str, jax.Array]:
        index_B, flip_B, corner_B2 = self.order(step)
        sent = {"index": index_B.astype(np.int32), "flip": flip_B, "corner": corner_B2.astype(np.int32)}
        sent = sharding.put_batch(sent, self.mesh, self.order.batch_size)
        return self._gather(self._pixels, self._labels, sent["index"], sent["flip"], sent["corner"])

    def close(self) -> None:
        """Holds nothing but arrays, which go with the loader."""

    def describe(self) -> str:
        return f"{self.num_images:,} images of {self._pixels.shape[1:]}, on the devices"
