"""The Frechet distance between Gaussian fits to two sets of features, in float64."""

import numpy as np


class Moments:
    """Mean and covariance of features in batches, in one pass and float64.

    Batches are merged by their means and scatter matrices, sum (x - mean)(x - mean)^T, which avoids cancellation.
    Source: Chan, Golub and LeVeque 1983.
    """

    def __init__(self, dimensions: int):
        self.n = 0
        self.mean_D = np.zeros(dimensions)
        self.scatter_DD = np.zeros((dimensions, dimensions))

    def add(self, features_ND: np.ndarray) -> None:
        """Adds a batch. Raises ValueError for another number of features, or one that is not finite."""
        x = np.asarray(features_ND, np.float64)
        if x.ndim != 2 or x.shape[1] != len(self.mean_D):
            raise ValueError(f"features: found shape {x.shape}, need (N, {len(self.mean_D)})")
        if not np.isfinite(x).all():
            raise ValueError(f"features: {(~np.isfinite(x)).any(1).sum()} of {len(x)} images have one that is not finite")
        if not len(x):
            return
        total, mean = self.n + len(x), x.mean(0)
        centred, gap = x - mean, mean - self.mean_D
        self.scatter_DD += centred.T @ centred + np.outer(gap, gap) * (self.n * len(x) / total)
        self.mean_D = self.mean_D + gap * (len(x) / total)
        self.n = total

    @property
    def covariance_DD(self) -> np.ndarray:
        """The unbiased covariance, scatter / (n - 1). Raises ValueError below two images."""
        if self.n < 2:
            raise ValueError(f"covariance: found {self.n} images, needs at least 2")
        return self.scatter_DD / (self.n - 1)


def frechet_distance(mu1: np.ndarray, cov1: np.ndarray, mu2: np.ndarray, cov2: np.ndarray) -> float:
    """|mu1 - mu2|^2 + tr(cov1 + cov2 - 2 (cov1 cov2)^1/2), at least 0.

    The trace of the root is the sum of the singular values of cov1^1/2 cov2^1/2, so that singular covariances need no special
    case. Raises ValueError for shapes that do not match and for numbers that are not finite.
    Source: Dowson and Landau 1982; Heusel et al. 2017 (arXiv 1706.08500).
    """
    mu1, cov1, mu2, cov2 = (np.asarray(x, np.float64) for x in (mu1, cov1, mu2, cov2))
    if mu1.ndim != 1 or mu1.shape != mu2.shape or cov1.shape != cov2.shape or cov1.shape != (len(mu1), len(mu1)):
        raise ValueError(f"moments: found shapes {mu1.shape}, {cov1.shape} and {mu2.shape}, {cov2.shape}; they do not match")
    if not all(np.isfinite(x).all() for x in (mu1, cov1, mu2, cov2)):
        raise ValueError("moments: not finite")
    root = np.linalg.svd(_root(cov1) @ _root(cov2), compute_uv=False).sum()
    return max(0.0, float(np.square(mu1 - mu2).sum() + np.trace(cov1) + np.trace(cov2) - 2 * root))


def _root(covariance):
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
