"""Batches of examples that are decoded while training runs."""

import functools
import os
import sys

import numpy as np

from sdit_jax.data.datasets import Examples
from sdit_jax.data.order import Order
from sdit_jax.data.transforms import fit_one, windows

MOST_THREADS = 16


class Streamed:
    """`streamed(step)` is what `Batches` gives of the same images, fitted to (size, channels) when they are shown.

    grain's threads decode the next steps, a batch each. Steps that follow each other find their batch decoded; any other step
    starts the threads anew, so that there is nothing to save. `close()` ends the threads. Raises InputError for an image
    that is broken.
    """

    def __init__(
        self,
        examples: Examples,
        order: Order,
        size: int | None,
        channels: int | None,
        resize: str = "bilinear",
        threads: int = 0,
    ):
        self.examples, self.order = examples, order
        self._fit = functools.partial(fit_one, size=size, channels=channels, resize=resize)
        self._threads = threads or min(MOST_THREADS, os.cpu_count() or 1)
        self._iterator = None
        self._step, self._batch = -1, {}  # What was served last.

    def __call__(self, step: int) -> dict[str, np.ndarray]:
        """{"image": uint8 (b, H, W, C), "label": int32 (b,)}."""
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
        """The batch of a step, in this thread."""
        showing = self.order(step)
        stored = self.examples.fetch(showing.index_B.tolist())
        pixels = np.stack([self._fit(self.examples.decode(one)) for one in stored])
        here = showing._replace(index_B=np.arange(len(stored)))
        return {"image": windows(pixels, here, self.order.margin), "label": self.examples.labels[showing.index_B]}

    def close(self) -> None:
        """Ends the threads; a later step starts new ones."""
        if self._iterator is not None:
            self._iterator.close()
        self._iterator, self._step = None, -1

    def _start(self, step):
        import grain  # A second, which only those who use it pay.

        options = grain.ReadOptions(num_threads=self._threads, prefetch_buffer_size=self._threads)
        return iter(grain.MapDataset.source(_Row(self, step)).to_iter_dataset(options))


class _Row:
    """The endless row of batches from a step on, as grain reads it: from any thread."""

    def __init__(self, streamed: Streamed, first_step: int):
        self._streamed, self._first_step = streamed, first_step

    def __len__(self):
        return sys.maxsize

    def __getitem__(self, index):
        return self._streamed.decode(self._first_step + int(index))

    def __repr__(self):
        return f"{self._streamed.examples.name} from step {self._first_step}"
