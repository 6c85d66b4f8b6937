"""References: real images by split, their feature statistics memoized on disk, and checks against them."""

import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from sdit_jax.data import cache, sources
from sdit_jax.data.datasets import Images
from sdit_jax.errors import InputError, NoSuchSplit
from sdit_jax.metrics.features import FeatureExtractor, batches, channels_for
from sdit_jax.metrics.frechet import Moments
from sdit_jax.sharding.agreement import all_of

FORMAT = 2  # Of memoized arrays: raise it whenever scores, yardsticks or features change.
KEPT = 10_000  # At most so many features are kept, for the scores other than the Frechet distance.
log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Reference:
    """A split's mean and covariance over all n images, and the features of at most KEPT, evenly spaced."""

    source: str
    split: str
    n: int
    sha256: str  # Of pixels and labels.
    size: tuple[int, ...]
    mean_D: np.ndarray
    covariance_DD: np.ndarray
    kept_MD: np.ndarray

    def facts(self) -> dict:
        """Its entry in a protocol."""
        return {"source": self.source, "split": self.split, "n": self.n, "sha256": self.sha256, "size": list(self.size)}


def load_references(name: str, directory: str, splits: Iterable[str], size: int, resize: str = "bilinear") -> dict[str, Images]:
    """Real images of a size by split. Raises InputError without the first split; others that are absent give a warning."""
    found = {}
    for split in dict.fromkeys(splits):
        try:
            found[split] = sources.load(name, split, directory, size, None, resize)
        except NoSuchSplit as error:
            if not found:
                raise
            log.warning("%s %s: not compared with (%s)", name, split, error)
    return found


def make_reference(
    extractor: FeatureExtractor, images: Images, source: str, split: str, progress: Callable = iter
) -> Reference:
    """Statistics of a split, memoized by images and extractor. Raises InputError for too few images."""
    check_enough(extractor, len(images), f"{source} {split}")

    def make():
        moments, kept, chosen = Moments(extractor.dimensions), [], spaced(len(images), KEPT)
        for found in batches(extractor, images.images, progress):
            start = moments.n
            moments.add(found.features_ND)
            kept.append(found.features_ND[chosen[(start <= chosen) & (chosen < moments.n)] - start])
        return {"mean": moments.mean_D, "covariance": moments.covariance_DD, "kept": np.concatenate(kept)}

    arrays = cache.memoized("statistics", cache_key(extractor, images.fingerprint), make, all_of)
    size = images.images.shape[1:]
    return Reference(source, split, len(images), images.fingerprint, size, arrays["mean"], arrays["covariance"], arrays["kept"])


def check_enough(extractor: FeatureExtractor, n: int, field: str) -> None:
    """Raises InputError where n images are too few for a covariance of full rank."""
    if n <= extractor.dimensions:
        raise InputError(f"{field}: found {n} images, {extractor.distance} needs at least {extractor.dimensions + 1}")


def check_comparable(
    extractors: Sequence[FeatureExtractor], n: int, field: str, channels: int, references: Mapping[str, Images], source: str
) -> None:
    """Raises InputError where n samples, or the references, are too few or have channels that an extractor does not take."""
    for extractor in extractors:
        check_enough(extractor, n, field)
        channels_for(extractor, np.zeros((1, 2, 2, channels), np.uint8))
        for split, images in references.items():
            check_enough(extractor, len(images), f"{source} {split}")
            channels_for(extractor, images.images[:1])


def spaced(n: int, most: int) -> np.ndarray:
    """At most `most` of 0..n-1, evenly spaced, so that a split sorted by class is covered."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int))


def cache_key(extractor: FeatureExtractor, *more: object) -> tuple:
    """Key of memoized numbers: the format, the extractor and `more`."""
    return (FORMAT, extractor.distance, extractor.facts, *more)
