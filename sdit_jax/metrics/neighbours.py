"""Nearest training images of samples in pixel space, which show whether samples are copies."""

import dataclasses

import numpy as np

from sdit_jax.errors import InputError

BLOCK = 2**22  # Pixels of training images at a time: 32 MiB.


@dataclasses.dataclass(frozen=True)
class Neighbours:
    """S of N samples with their K nearest training images, and the distances of all N, in grey levels.

    The first `closest` of the S have the smallest distances of all, the others come in the order of the samples.
    """

    samples_SHWC: np.ndarray
    nearest_SKHWC: np.ndarray
    distances_SK: np.ndarray
    closest: int
    samples_N: np.ndarray  # Every sample to its nearest training image.
    real_M: np.ndarray | None  # The same for held-out real images; None without any.

    @property
    def suspicious(self) -> float | None:
        """The fraction of samples nearer to a training image than 99 % of held-out real images are; about 0.01 is usual."""
        return None if self.real_M is None else float((self.samples_N < np.percentile(self.real_M, 1)).mean())


def nearest(samples_NHWC: np.ndarray, train_MHWC: np.ndarray, k: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """(indices_NK, distances_NK) of the k nearest training images, nearest first, ties by index.

    The distance of uint8 images is sqrt(mean (x - y)^2), in grey levels of 0..255, from |x|^2 + |y|^2 - 2 x.y with exact
    integers in float64. Raises InputError for images of different shapes and for fewer than k training images.
    """
    if samples_NHWC.shape[1:] != train_MHWC.shape[1:]:
        raise InputError(f"neighbours: samples are {samples_NHWC.shape[1:]}, the training images {train_MHWC.shape[1:]}")
    M, pixels = len(train_MHWC), int(np.prod(train_MHWC.shape[1:]))
    if not 1 <= k <= M:
        raise InputError(f"neighbours: found k = {k}, allowed are 1..{M}, the number of training images")
    x = samples_NHWC.reshape(-1, pixels).astype(np.float64)
    x_squared = np.square(x).sum(1)[:, None]
    best = np.empty((len(x), 0), np.int64)  # Squared distance * M + index, which sorts by both.
    block = max(1, BLOCK // pixels)
    for start in range(0, M, block):
        y = train_MHWC[start : start + block].reshape(-1, pixels).astype(np.float64)
        squared = x_squared + np.square(y).sum(1) - 2 * (x @ y.T)
        keys = np.concatenate([best, squared.astype(np.int64) * M + np.arange(start, start + len(y))], 1)
        best = np.partition(keys, k - 1, 1)[:, :k] if keys.shape[1] > k else keys
    best.sort(1)
    return best % M, np.sqrt(best // M / pixels)


def compare(
    samples_NHWC: np.ndarray, train_MHWC: np.ndarray, real_RHWC: np.ndarray | None = None, *, k: int = 4, shown: int = 12
) -> Neighbours:
    """Neighbours of samples, and distances of held-out real images. Raises InputError as `nearest` does."""
    indices_NK, distances_NK = nearest(samples_NHWC, train_MHWC, k)
    closest = np.argsort(distances_NK[:, 0], kind="stable")[: -(-shown // 2)]
    drawn = np.setdiff1d(np.arange(len(samples_NHWC)), closest)[: shown - len(closest)]
    S = np.concatenate([closest, drawn])
    real_M = None if real_RHWC is None else nearest(real_RHWC, train_MHWC)[1][:, 0]
    return Neighbours(
        samples_NHWC[S], train_MHWC[indices_NK[S]], distances_NK[S], len(closest), distances_NK[:, 0], real_M
    )  # fmt: skip
