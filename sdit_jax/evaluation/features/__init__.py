"""What images are compared by: a network's features and class probabilities, with a name for their distance."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sdit_jax.config import InputError
from sdit_jax.evaluation.features import classifier, inception_weights
from sdit_jax.evaluation.features.inception import FEATURES, Inception


@dataclasses.dataclass(frozen=True)
class Features:
    """`apply(images_BHWC)` -> (features_BD, probabilities_BK), for uint8 images of the network's own number of channels.

    `distance` is what the Frechet distance between such features is called; `facts` say which network it was, weights included.
    """

    distance: str
    suffix: str  # Of the other scores: "_classifier", or "" where Inception gives them their known names.
    dimensions: int
    channels: int
    apply: Callable[[jax.Array], tuple[jax.Array, jax.Array]]
    facts: dict
    classes: tuple[int, ...] | None = None  # What labels the probabilities stand for; None for labels of another data set.
    batch_size: int = 500

    def reads(self, source: str) -> bool:
        """Whether its classes are those of a source."""
        return self.facts["network"] == f"classifier of {classifier_of(source)}"


@dataclasses.dataclass(frozen=True)
class Extracted:
    """Features and class probabilities of N images, float32."""

    features_ND: np.ndarray
    probabilities_NK: np.ndarray


def classifier_features(name: str) -> Features:
    """Features of a small classifier (`evaluation.features.classifier`): a shipped one by its data set's name, or a file."""
    trained = classifier.load(name)
    size = trained.image_size

    def apply(images_BHWC):
        B, H, _, C = images_BHWC.shape
        if H != size:
            images_BHWC = jax.image.resize(images_BHWC.astype(jnp.float32), (B, size, size, C), "linear")
        with jax.default_matmul_precision("highest"):  # The same numbers on every device.
            found: Any = trained.model.apply(trained.variables, images_BHWC)
        features, logits = found
        return features, jax.nn.softmax(logits)

    facts = {"network": f"classifier of {name}", "sha256": trained.sha256, "test_accuracy": trained.facts.get("test_accuracy")}
    dimensions, classes = trained.model.widths[-1], tuple(range(trained.model.num_classes))
    return Features("fd_classifier", "_classifier", dimensions, trained.channels, jax.jit(apply), facts, classes)


def inception_features(path: str | Path = "") -> Features:
    """Features of the Inception network of FID: weights from a file, or fetched where none is named."""
    variables, sha256 = inception_weights.load(path or inception_weights.fetch())

    def apply(images_BHWC):
        found: Any = Inception().apply(variables, images_BHWC)
        features, logits = found
        return features, jax.nn.softmax(logits)

    facts = {"network": "Inception of FID", "sha256": sha256, "published_weights": sha256 == inception_weights.SHA256}
    return Features("fid", "", FEATURES, 3, jax.jit(apply), facts, batch_size=50)


def extract(features: Features, images_NHWC: np.ndarray, progress: Callable = iter) -> Extracted:
    """Features of all images, in batches of one compiled size; `progress` wraps the list of batches."""
    fitted = channels_for(features, images_NHWC)
    found, chances = [], []
    for start in progress(range(0, len(fitted), features.batch_size)):
        batch = fitted[start : start + features.batch_size]
        missing = features.batch_size - len(batch)
        f, p = features.apply(jnp.asarray(np.pad(batch, ((0, missing), (0, 0), (0, 0), (0, 0)))))
        found.append(np.asarray(f)[: len(batch)])
        chances.append(np.asarray(p)[: len(batch)])
    return Extracted(np.concatenate(found), np.concatenate(chances))


def classifier_of(source: str) -> str | None:
    """The shipped classifier for a source, whichever road its images take: "tfds:mnist:3.0.1" is read by that of "mnist"."""
    name = source.removeprefix("tfds:").partition(":")[0].partition("/")[0]
    return name if name in classifier.SHIPPED else None


def channels_for(features: Features, images_NHWC: np.ndarray) -> np.ndarray:
    """Images in a network's number of channels (see `match_channels`). Raises InputError where that cannot be."""
    try:
        return match_channels(images_NHWC, features.channels)
    except ValueError:
        raise InputError(
            f"images: found {images_NHWC.shape[-1]} channels, {features.facts['network']} takes {features.channels}"
        ) from None


def match_channels(images_NHWC: np.ndarray, channels: int) -> np.ndarray:
    """Grey repeated to three channels, three channels averaged to one. Raises ValueError for other changes."""
    found = images_NHWC.shape[-1]
    if found == channels:
        return images_NHWC
    if (found, channels) == (1, 3):
        return np.repeat(images_NHWC, 3, -1)
    if (found, channels) == (3, 1):
        return np.round(images_NHWC.mean(-1, keepdims=True)).astype(np.uint8)
    raise ValueError(f"images: found {found} channels, need {channels}")
