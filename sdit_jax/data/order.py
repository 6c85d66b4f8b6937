"""Which images make the batch of a step, and how they are cropped and flipped: pure functions of (seed, step)."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

AUGMENTATION = 1  # Third word of the seeds of flips and crops; the seeds of permutations have two words.


class BatchSpec(NamedTuple):
    """Some rows of a batch: the image of each, whether it is mirrored, and the upper left corner of its crop."""

    index_B: np.ndarray  # int64, into the data set.
    flip_B: np.ndarray  # bool.
    corner_B2: np.ndarray  # int64 (row, column) in 0..margin.


class Order:
    """`order(step)` specifies the batch of a step, or only the `rows` of it that this process holds.

    Every epoch is a permutation drawn from (seed, epoch), and the epochs follow one another without a gap: step s takes images
    s * batch_size to (s + 1) * batch_size - 1 of that endless sequence, so that a batch may span two epochs and every epoch
    shows each image once. Flips and crops are drawn from (seed, step). No state: there is nothing to save or rewind.
    """

    def __init__(
        self,
        length: int,
        *,
        batch_size: int,
        seed: int,
        flip: bool = False,
        margin: int = 0,
        rows: Sequence[int] | np.ndarray | None = None,
    ):
        self.length, self.batch_size, self.seed, self.flip, self.margin = length, batch_size, seed, flip, margin
        self.rows = np.arange(batch_size) if rows is None else np.asarray(rows)
        self._permutation = functools.lru_cache(maxsize=2)(self._draw)

    def _draw(self, epoch: int) -> np.ndarray:
        return _generator(self.seed, epoch).permutation(self.length)

    def __call__(self, step: int) -> BatchSpec:
        epochs, places = np.divmod(step * self.batch_size + self.rows, self.length)
        index = np.empty_like(places)
        for epoch in np.unique(epochs):
            index[epochs == epoch] = self._permutation(int(epoch))[places[epochs == epoch]]
        flip, corner = np.zeros(len(index), bool), np.zeros((len(index), 2), np.int64)
        if self.flip or self.margin:
            generator = _generator(self.seed, step, AUGMENTATION)
            coins = generator.integers(0, 2, self.batch_size).astype(bool)  # Drawn without flips too: crops stay the same.
            corner = generator.integers(0, self.margin + 1, (self.batch_size, 2))[self.rows]
            if self.flip:
                flip = coins[self.rows]
        return BatchSpec(index, flip, corner)


def _generator(*words):
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(words)))
