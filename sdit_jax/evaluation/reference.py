"""Real images as what samples are measured against: moments of all, features of some, kept on disk."""

import dataclasses
from collections.abc import Callable

import numpy as np

from sdit_jax.config import InputError
from sdit_jax.data import cache
from sdit_jax.data.datasets import Images
from sdit_jax.evaluation.features import Features, extract
from sdit_jax.evaluation.frechet import Moments

FORMAT = 2  # Of what is kept on disk: raise it whenever scores, yardsticks or features change.
KEPT = 10_000  # Images whose features are kept, for the scores that need points.


@dataclasses.dataclass(frozen=True)
class Reference:
    """A split's mean and covariance over all n images, and the features of at most KEPT, evenly spaced."""

    source: str
    split: str
    n: int
    sha256: str  # Of pixels and labels, as they were compared.
    size: tuple[int, ...]
    mean_D: np.ndarray
    covariance_DD: np.ndarray
    kept_MD: np.ndarray

    def facts(self) -> dict:
        """What a protocol says of it."""
        return {"source": self.source, "split": self.split, "n": self.n, "sha256": self.sha256, "size": list(self.size)}


def make_reference(features: Features, images: Images, source: str, split: str, progress: Callable = iter) -> Reference:
    """Statistics of a split, from the cache where the same images were seen by the same network.

    Raises InputError where there are too few images.
    """
    check_enough(features, len(images), f"{source} {split}")

    def make():
        moments, kept, chosen = Moments(features.dimensions), [], spaced(len(images), KEPT)
        for start in progress(range(0, len(images), features.batch_size)):
            stop = start + features.batch_size
            found = extract(features, images.images[start:stop]).features_ND
            moments.add(found)
            kept.append(found[chosen[(start <= chosen) & (chosen < stop)] - start])
        return {"mean": moments.mean_D, "covariance": moments.covariance_DD, "kept": np.concatenate(kept)}

    arrays = cache.kept("statistics", cache_words(features, images.fingerprint), make)
    size = images.images.shape[1:]
    return Reference(source, split, len(images), images.fingerprint, size, arrays["mean"], arrays["covariance"], arrays["kept"])


def check_enough(features: Features, n: int, what: str) -> None:
    """Raises InputError where n images are too few for a covariance of full rank."""
    if n <= features.dimensions:
        raise InputError(f"{what}: found {n} images, {features.distance} needs at least {features.dimensions + 1}")


def spaced(n: int, most: int) -> np.ndarray:
    """At most `most` of 0..n-1, evenly spaced, so that a split sorted by class is seen whole."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int))


def cache_words(features: Features, *words: object) -> tuple:
    """What a kept number depends on: the network, and the words given."""
    return (FORMAT, features.distance, features.facts, *words)
