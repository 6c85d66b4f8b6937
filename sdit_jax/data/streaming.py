"""Batches of examples that are decoded while training runs."""

import functools
import os
import sys

import numpy as np

from sdit_jax.data.datasets import Examples
from sdit_jax.data.order import Order, Showing
from sdit_jax.data.transforms import fit_one, windows

AHEAD = 2  # Batches that are decoded before they are asked for.


class Streamed:
    """`streamed(step)` is what `Batches` gives of the same images, fitted to (size, channels) when they are shown.

    Examples are fetched by grain's threads. Steps that follow each other find their batch decoded; any other step starts the
    threads anew, so that there is nothing to save. `close()` ends the threads. Raises InputError for an image that is broken.
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
        self._showing = functools.lru_cache(maxsize=AHEAD + 2)(order)
        self._threads = threads or 2 * (os.cpu_count() or 1)
        self._iterator = None
        self._step, self._batch = -1, {}  # The step that was served last.

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

    def show(self, step: int, place: int) -> dict[str, np.ndarray]:
        """The image at a place of this shard's batch, without its axis B."""
        index_B, flip_B, corner_B2 = self._showing(step)
        image = self._fit(self.examples.example(int(index_B[place])))
        here = Showing(np.zeros(1, np.int64), flip_B[place : place + 1], corner_B2[place : place + 1])
        return {"image": windows(image[None], here, self.order.margin)[0], "label": self.examples.labels[index_B[place]]}

    def close(self) -> None:
        """Ends the threads; a later step starts new ones."""
        if self._iterator is not None:
            self._iterator.close()
        self._iterator, self._step = None, -1

    def _start(self, step):
        import grain  # A second, which only those who use it pay.

        batch_size = self.order.local_batch_size
        options = grain.ReadOptions(num_threads=self._threads, prefetch_buffer_size=max(AHEAD * batch_size, self._threads))
        return iter(grain.MapDataset.source(_Row(self, step)).to_iter_dataset(options).batch(batch_size))


class _Row:
    """The endless row of examples that a shard shows from a step on, as grain reads it: one at a time, from any thread."""

    def __init__(self, streamed: Streamed, first_step: int):
        self._streamed, self._first_step = streamed, first_step

    def __len__(self):
        return sys.maxsize

    def __getitem__(self, index):
        step, place = divmod(int(index), self._streamed.order.local_batch_size)
        return self._streamed.show(self._first_step + step, place)

    def __repr__(self):
        return f"{self._streamed.examples.name} from step {self._first_step}"
