"""Feature extractors: networks whose features and class probabilities images are compared by."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sdit_jax import sharding
from sdit_jax.data.transforms import to_channels
from sdit_jax.errors import InputError
from sdit_jax.metrics.features import classifier as classifiers
from sdit_jax.metrics.features import inception_weights
from sdit_jax.metrics.features.inception import FEATURES, Inception

DISTANCES = ("fd_classifier", "fid")


@dataclasses.dataclass(frozen=True)
class FeatureExtractor:
    """`apply(images_BHWC)` -> (features_BD, probabilities_BK), for uint8 images with the network's number of channels.

    `distance` is the name of the Frechet distance between its features; `facts` identify the network and its weights.
    """

    distance: str
    suffix: str  # Of the names of the other scores: "_classifier", or "" for Inception.
    dimensions: int
    channels: int
    apply: Callable[[jax.Array], tuple[jax.Array, jax.Array]]
    facts: dict
    classes: tuple[int, ...] | None = None  # The labels of the probabilities; None for Inception.
    batch_size: int = 500  # Of each device.

    @functools.cached_property
    def on_all_devices(self) -> Callable[[np.ndarray], tuple[jax.Array, jax.Array]]:
        """`apply`, to a batch for each of the devices of all processes."""
        return sharding.by_rows(self.apply, sharding.make_mesh(), [0])

    def has_classes_of(self, source: str) -> bool:
        """Whether its classes are the labels of a data source."""
        return self.facts["network"] == f"classifier of {classifier_of(source)}"


@dataclasses.dataclass(frozen=True)
class Extracted:
    """Features and class probabilities of N images, float32."""

    features_ND: np.ndarray
    probabilities_NK: np.ndarray


def make_extractor(
    distance: str, source: str, *, inception: str = "", classifier: str = "", prefix: str = ""
) -> FeatureExtractor:
    """The feature extractor of "fd_classifier" (a given classifier, else that of the source's data set) or "fid".

    Raises InputError where a source has no classifier or weights are missing; `prefix` precedes the name of the field.
    """
    if distance == "fid":
        return inception_features(inception, f"{prefix}inception")
    name = classifier or classifier_of(source)
    if name is None:
        raise InputError(
            f"fd_classifier: no classifier for {source!r}, there are {', '.join(classifiers.SHIPPED)}; use fid, or train one: "
            "sdit fit_classifier"
        )
    return classifier_features(name, f"{prefix}classifier")


def classifier_features(name: str, field: str = "classifier") -> FeatureExtractor:
    """A small classifier (`metrics.features.classifier`) as extractor: a shipped one by its data set's name, or a file."""
    trained = classifiers.load(name, field)
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
    return FeatureExtractor("fd_classifier", "_classifier", dimensions, trained.channels, jax.jit(apply), facts, classes)


def inception_features(path: str | Path = "", field: str = "inception") -> FeatureExtractor:
    """The Inception network of FID as extractor, with weights from a file, or downloaded if `path` is empty."""
    variables, sha256 = inception_weights.load(path or inception_weights.fetch(field))

    def apply(images_BHWC):
        found: Any = Inception().apply(variables, images_BHWC)
        features, logits = found
        return features, jax.nn.softmax(logits)

    facts = {"network": "Inception of FID", "sha256": sha256, "published_weights": sha256 == inception_weights.SHA256}
    return FeatureExtractor("fid", "", FEATURES, 3, jax.jit(apply), facts, batch_size=50)


def extract(extractor: FeatureExtractor, images_NHWC: np.ndarray, progress: Callable = iter) -> Extracted:
    """Features of all images, as `batches` gives them."""
    found = list(batches(extractor, images_NHWC, progress))
    features, probabilities = ([each.features_ND for each in found], [each.probabilities_NK for each in found])
    return Extracted(np.concatenate(features), np.concatenate(probabilities))


def batches(extractor: FeatureExtractor, images_NHWC: np.ndarray, progress: Callable = iter) -> Iterator[Extracted]:
    """Features of one batch of `extractor.batch_size` images after the other, the last one smaller, the same on any devices.

    The devices of all processes work on a batch each; every process gets all features. `progress` wraps the list of rounds.
    """
    size, devices = extractor.batch_size, jax.device_count()
    for start in progress(range(0, len(images_NHWC), size * devices)):
        some = channels_for(extractor, images_NHWC[start : start + size * devices])
        missing = size * devices - len(some)
        features, probabilities = extractor.on_all_devices(np.pad(some, ((0, missing), (0, 0), (0, 0), (0, 0))))
        features, probabilities = np.asarray(features), np.asarray(probabilities)
        for row in range(0, len(some), size):
            rows = slice(row, min(row + size, len(some)))
            yield Extracted(features[rows], probabilities[rows])


def classifier_of(source: str) -> str | None:
    """The shipped classifier of a source's data set, None where there is none: "mnist" for "tfds:mnist:3.0.1"."""
    name = source.removeprefix("tfds:").partition(":")[0].partition("/")[0]
    return name if name in classifiers.SHIPPED else None


def channels_for(extractor: FeatureExtractor, images_NHWC: np.ndarray) -> np.ndarray:
    """Images with the channels of the extractor (see `to_channels`). Raises InputError if it cannot be converted."""
    try:
        return to_channels(images_NHWC, extractor.channels, average=True)
    except InputError:
        raise InputError(
            f"images: found {images_NHWC.shape[-1]} channels, {extractor.facts['network']} takes {extractor.channels}"
        ) from None
