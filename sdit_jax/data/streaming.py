"""Batches of examples decoded while training runs."""

import os
import sys

import jax
import numpy as np
from jax.sharding import Mesh

from sdit_jax import sharding
from sdit_jax.data.datasets import Examples
from sdit_jax.data.order import Order
from sdit_jax.data.transforms import crops, fit_one

MAX_THREADS = 16


class StreamingLoader:
    """Decodes batches in grain's threads, one batch per thread, ahead of the steps that use them.

    Examples are fitted to (size, size, channels) as they are decoded; batches equal those of `InMemoryLoader` to the bit. A
    step that does not follow the last one restarts the threads, so that there is no state to save. Raises InputError for a
    broken image.
    """

    def __init__(
        self,
        examples: Examples,
        order: Order,
        mesh: Mesh,
        *,
        size: int,
        channels: int,
        resize: str = "bilinear",
        threads: int = 0,
    ):
        self.examples, self.order, self.mesh, self.num_images = examples, order, mesh, len(examples)
        self.size, self.channels, self.resize = size, channels, resize
        self._threads = threads or min(MAX_THREADS, os.cpu_count() or 1)
        self._iterator = None
        self._step, self._batch = -1, {}  # The last step served.

    def __call__(self, step: int) -> dict[str, jax.Array]:
        return sharding.put_batch(self.host_batch(step), self.mesh, self.order.batch_size)

    def host_batch(self, step: int) -> dict[str, np.ndarray]:
        """{"image": uint8 (b, H, W, C), "label": int32 (b,)}: the rows of a step's batch that this process holds."""
        if step == self._step:
            return self._batch
        if self._iterator is None or step != self._step + 1:
            self.close()
            self._iterator = self._start(step)
        try:
            self._batch, self._step = next(self._iterator), step
        except BaseException:
            self.close()
            raise
        return self._batch

    def decode(self, step: int) -> dict[str, np.ndarray]:
        """`host_batch`, decoded in the calling thread."""
        spec = self.order(step)
        stored = self.examples.fetch(spec.index_B.tolist())
        pixels = np.stack([fit_one(self.examples.decode(one), self.size, self.channels, self.resize) for one in stored])
        fetched = spec._replace(index_B=np.arange(len(stored)))
        return {"image": crops(pixels, fetched, self.order.margin), "label": self.examples.labels[spec.index_B]}

    def close(self) -> None:
        """Stops the threads; a later step starts new ones."""
        if self._iterator is not None:
            self._iterator.close()
        self._iterator, self._step = None, -1

    def describe(self) -> str:
        return f"{self.num_images:,} images of {(self.size, self.size, self.channels)}, decoded while training"

    def _start(self, step):
        import grain  # Takes about a second; only streaming needs it.

        options = grain.ReadOptions(num_threads=self._threads, prefetch_buffer_size=self._threads)
        return iter(grain.MapDataset.source(_Source(self, step)).to_iter_dataset(options))


class _Source:
    """The batches from a step on as a grain source, read from any thread."""

    def __init__(self, loader: StreamingLoader, first_step: int):
        self._loader, self._first_step = loader, first_step

    def __len__(self):
        return sys.maxsize

    def __getitem__(self, index):
        return self._loader.decode(self._first_step + int(index))

    def __repr__(self):
        return f"{self._loader.examples.name} from step {self._first_step}"
