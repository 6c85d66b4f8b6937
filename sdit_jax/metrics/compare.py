"""Scores of images against one reference, and the same scores of perturbed real images, which calibrate them."""

import dataclasses
from collections.abc import Callable

import numpy as np

from sdit_jax.data import cache
from sdit_jax.data.datasets import Images
from sdit_jax.metrics.features import Extracted, FeatureExtractor, extract
from sdit_jax.metrics.frechet import Moments, frechet_distance
from sdit_jax.metrics.reference import KEPT, Reference, cache_key, check_enough, spaced
from sdit_jax.metrics.scores import SUBSET, inception_score, kernel_distance, precision_recall
from sdit_jax.metrics.yardsticks import YARDSTICKS
from sdit_jax.sharding.agreement import all_of


@dataclasses.dataclass(frozen=True)
class Yardstick:
    """Scores against a reference of n real images of a split, perturbed by `change` (see `YARDSTICKS`)."""

    split: str
    change: str
    n: int
    reference: str
    scores: dict[str, float]


def score(extractor: FeatureExtractor, extracted: Extracted, reference: Reference) -> dict[str, float]:
    """Frechet distance to a reference (all images), and kernel distance, precision and recall (at most KEPT images)."""
    check_enough(extractor, len(extracted.features_ND), "samples")
    moments = Moments(extractor.dimensions)
    moments.add(extracted.features_ND)
    kept_ND = extracted.features_ND[spaced(moments.n, KEPT)]
    kid, kid_std = kernel_distance(kept_ND, reference.kept_MD)
    precision, recall = precision_recall(kept_ND, reference.kept_MD)
    s = extractor.suffix
    fd = frechet_distance(moments.mean_D, moments.covariance_DD, reference.mean_D, reference.covariance_DD)
    scores = {extractor.distance: fd, f"kid{s}": kid}
    if min(len(kept_ND), len(reference.kept_MD)) > SUBSET:  # Otherwise every subset holds all images of one side.
        scores[f"kid{s}_std"] = kid_std
    return scores | {f"precision{s}": precision, f"recall{s}": recall}


def score_alone(extractor: FeatureExtractor, extracted: Extracted, labels_N: np.ndarray | None) -> dict[str, float]:
    """Scores without a reference: the Inception Score, and the accuracy of the extractor's classes on the given labels."""
    value, std = inception_score(extracted.probabilities_NK)
    scores = {f"is{extractor.suffix}": value, f"is{extractor.suffix}_std": std}
    if labels_N is not None and extractor.classes is not None and set(np.unique(labels_N)) <= set(extractor.classes):
        scores[f"accuracy{extractor.suffix}"] = float((extracted.probabilities_NK.argmax(-1) == labels_N).mean())
    return scores


def yardsticks(
    extractor: FeatureExtractor, images: Images, split: str, n: int, reference: Reference, progress: Callable = iter
) -> list[Yardstick]:
    """Scores of n real images (or all, if fewer), unchanged and perturbed, memoized on disk.

    If `images` are of another split than the reference, the unchanged ones give the lowest distance to expect.
    """
    chosen = spaced(len(images), n)
    real, labels = images.images[chosen], images.labels[chosen]
    found = []
    for change, apply in progress(YARDSTICKS.items()):
        key = cache_key(extractor, images.fingerprint, reference.sha256, len(chosen), change)
        scores = cache.memoized(
            "yardsticks", key, lambda apply=apply: _scores(extractor, apply(real), labels, reference), all_of
        )
        found.append(Yardstick(split, change, len(chosen), reference.split, {name: float(v) for name, v in scores.items()}))
    return found


def _scores(extractor, images, labels, reference):
    extracted = extract(extractor, images)
    scores = score(extractor, extracted, reference) | score_alone(extractor, extracted, labels)
    return {name: np.asarray(value) for name, value in scores.items()}
