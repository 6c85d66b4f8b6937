"""Samples against real images: every score, and beside it the same scores of real images changed a little."""

import dataclasses
from collections.abc import Callable

import numpy as np

from sdit_jax.data import cache
from sdit_jax.data.datasets import Images
from sdit_jax.evaluation.features import Extracted, Features, extract
from sdit_jax.evaluation.frechet import Moments, frechet_distance
from sdit_jax.evaluation.reference import KEPT, Reference, cache_words, check_enough, spaced
from sdit_jax.evaluation.scores import SUBSET, inception_score, kernel_distance, precision_recall
from sdit_jax.evaluation.yardsticks import YARDSTICKS


@dataclasses.dataclass(frozen=True)
class Yardstick:
    """What real images of a split score against a reference once they are changed as `change` says."""

    split: str
    change: str
    n: int
    reference: str
    scores: dict[str, float]


def score(features: Features, extracted: Extracted, reference: Reference) -> dict[str, float]:
    """Distances of images to a reference: Frechet (all images), kernel distance, precision and recall (at most KEPT)."""
    check_enough(features, len(extracted.features_ND), "samples")
    moments = Moments(features.dimensions)
    moments.add(extracted.features_ND)
    kept_ND = extracted.features_ND[spaced(moments.n, KEPT)]
    kid, kid_std = kernel_distance(kept_ND, reference.kept_MD)
    precision, recall = precision_recall(kept_ND, reference.kept_MD)
    s = features.suffix
    drawn = (
        min(len(kept_ND), len(reference.kept_MD)) > SUBSET
    )  # Else every subset is all of one side, and their spread means little.
    return {
        features.distance: frechet_distance(
            moments.mean_D, moments.covariance_DD, reference.mean_D, reference.covariance_DD
        ),
        f"kid{s}": kid, **({f"kid{s}_std": kid_std} if drawn else {}), f"precision{s}": precision, f"recall{s}": recall,
    }  # fmt: skip


def score_alone(features: Features, extracted: Extracted, labels_N: np.ndarray | None) -> dict[str, float]:
    """What needs no reference: the Inception Score, and how often the network reads the label that was asked for."""
    value, std = inception_score(extracted.probabilities_NK)
    scores = {f"is{features.suffix}": value, f"is{features.suffix}_std": std}
    if labels_N is not None and features.classes is not None and set(np.unique(labels_N)) <= set(features.classes):
        scores[f"accuracy{features.suffix}"] = float((extracted.probabilities_NK.argmax(-1) == labels_N).mean())
    return scores


def yardsticks(
    features: Features, images: Images, split: str, n: int, reference: Reference, progress: Callable = iter
) -> list[Yardstick]:
    """Scores of n real images (all, where there are fewer) as they are and changed, from the cache where they are known.

    `images` are of another split than the reference's where there is one: as they are, they give the floor.
    """
    chosen = spaced(len(images), n)
    real, labels = images.images[chosen], images.labels[chosen]
    found = []
    for change, apply in progress(YARDSTICKS.items()):
        words = cache_words(features, images.fingerprint, reference.sha256, len(chosen), change)
        scores = cache.kept("yardsticks", words, lambda apply=apply: _scores(features, apply(real), labels, reference))
        found.append(Yardstick(split, change, len(chosen), reference.split, {name: float(v) for name, v in scores.items()}))
    return found


def _scores(features, images, labels, reference):
    extracted = extract(features, images)
    scores = score(features, extracted, reference) | score_alone(features, extracted, labels)
    return {name: np.asarray(value) for name, value in scores.items()}
