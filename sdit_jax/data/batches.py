"""Batches as a pure function of (seed, step, shard): nothing to save, nothing to rewind."""

import functools

import numpy as np

from sdit_jax.data.sources import Images


class Batches:
    """`batches(step)` is the shard's part of the global batch of a step, whatever was asked before.

    The data are an endless row of epochs, each a permutation drawn from (seed, epoch); step s is the s-th run of `batch_size`
    images in that row, so that a batch may span two epochs and every epoch shows each image once.
    """

    def __init__(self, images: Images, *, batch_size: int, seed: int, shard: int = 0, shards: int = 1):
        if batch_size % shards:
            raise ValueError(f"batch size {batch_size} does not divide over {shards} shards")
        self.images, self.batch_size, self.seed = images, batch_size, seed
        self.local = slice(shard * batch_size // shards, (shard + 1) * batch_size // shards)
        self._permutation = functools.lru_cache(maxsize=2)(self._draw)

    def _draw(self, epoch: int) -> np.ndarray:
        return np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, epoch]))).permutation(len(self.images))

    def indices(self, step: int) -> np.ndarray:
        """Which images the shard shows at a step."""
        row = np.arange(step * self.batch_size, (step + 1) * self.batch_size)[self.local]
        epochs, places = np.divmod(row, len(self.images))
        return np.array([self._permutation(int(e))[p] for e, p in zip(epochs, places, strict=True)])

    def __call__(self, step: int) -> dict[str, np.ndarray]:
        """{"image": uint8 (b, H, W, C), "label": int32 (b,)}."""
        index = self.indices(step)
        return {"image": self.images.images[index], "label": self.images.labels[index]}
