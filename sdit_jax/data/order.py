"""Which images a step shows, and how, as a pure function of (seed, step): nothing to save, nothing to rewind."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

AUGMENTATION = 1  # The third word of the seeds of flips and windows; permutations have two words.


class Showing(NamedTuple):
    """A batch, or some rows of it: which images, which of them mirrored, and the upper left corners of their windows."""

    index_B: np.ndarray  # int64, into the data set.
    flip_B: np.ndarray  # bool.
    corner_B2: np.ndarray  # int64 (row, column) in 0..margin.


class Order:
    """`order(step)` is the batch of a step, or those `rows` of it that this process holds, whatever was asked before.

    The data are an endless row of epochs, each a permutation drawn from (seed, epoch); step s is the s-th run of `batch_size`
    images in that row, so that a batch may span two epochs and every epoch shows each image once. Flips and windows are drawn
    from (seed, step).
    """

    def __init__(
        self, length: int, *, batch_size: int, seed: int, flip: bool = False, margin: int = 0, rows: Sequence[int] | None = None
    ):
        self.length, self.batch_size, self.seed, self.flip, self.margin = length, batch_size, seed, flip, margin
        self.rows = np.arange(batch_size) if rows is None else np.asarray(rows)
        self._permutation = functools.lru_cache(maxsize=2)(self._draw)

    def _draw(self, epoch: int) -> np.ndarray:
        return _generator(self.seed, epoch).permutation(self.length)

    def __call__(self, step: int) -> Showing:
        epochs, places = np.divmod(step * self.batch_size + self.rows, self.length)
        index = np.empty_like(places)
        for epoch in np.unique(epochs):
            index[epochs == epoch] = self._permutation(int(epoch))[places[epochs == epoch]]
        flip, corner = np.zeros(len(index), bool), np.zeros((len(index), 2), np.int64)
        if self.flip or self.margin:
            generator = _generator(self.seed, step, AUGMENTATION)
            coins = generator.integers(0, 2, self.batch_size).astype(bool)
            corners = generator.integers(0, self.margin + 1, (self.batch_size, 2))
            flip, corner = (coins if self.flip else np.zeros_like(coins))[self.rows], corners[self.rows]
        return Showing(index, flip, corner)


def _generator(*words):
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(words)))
