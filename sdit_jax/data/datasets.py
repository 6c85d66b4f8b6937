"""A data set: images in memory, or examples decoded one at a time."""

import abc
import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from sdit_jax.errors import InputError

CHUNK = 512  # Examples fetched at once where all are read.


@dataclasses.dataclass(frozen=True)
class Images:
    """images: uint8 (N, H, W, C); labels: int32 (N,) in 0..num_classes-1."""

    images: np.ndarray
    labels: np.ndarray
    num_classes: int = 10

    def __len__(self) -> int:
        return len(self.images)

    @property
    def contents(self) -> str:
        """The same: it depends on nothing else."""
        return self.fingerprint

    @functools.cached_property
    def fingerprint(self) -> str:
        """sha256 over shape, pixels, labels and num_classes."""
        digest = hashlib.sha256(f"{self.images.shape} {self.num_classes}".encode())
        digest.update(np.ascontiguousarray(self.images).data)
        digest.update(np.ascontiguousarray(self.labels).data)
        return digest.hexdigest()


class Examples(abc.ABC):
    """Labelled images of any size, decoded on demand from any thread.

    `fingerprint` changes with the files and with the place where they lie, `contents` only with what is in them: a hash of
    names, sizes and labels in the first line, of bytes in the second.
    """

    name: str  # For messages.
    labels: np.ndarray  # int32 (N,) in 0..num_classes-1.
    num_classes: int
    fingerprint: str
    contents: str

    def __len__(self) -> int:
        return len(self.labels)

    @abc.abstractmethod
    def fetch(self, places: Sequence[int]) -> list[Any]:
        """The encoded images at some places, faster for many at once. Raises InputError where the whole data set is damaged."""

    @abc.abstractmethod
    def decode(self, stored: Any) -> np.ndarray:
        """One fetched image as uint8 (H, W, C). Raises BrokenImage."""

    def example(self, i: int) -> np.ndarray:
        """Image i as uint8 (H, W, C)."""
        return self.decode(self.fetch([i])[0])


def checked_labels(labels: np.ndarray, path: object, num_classes: int) -> np.ndarray:
    """Labels as int32. Raises InputError for one outside 0..num_classes-1."""
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(wrong):
        raise InputError(f"{path}: found label {labels[wrong[0]]} at image {wrong[0]}, must be in 0..{num_classes - 1}")
    return labels.astype(np.int32)
