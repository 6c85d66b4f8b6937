"""Kernel distance, Inception Score, precision and recall."""

import numpy as np

BLOCK = 2_000
SUBSET = 1_000  # Images in one subset of the kernel distance.


def kernel_distance(
    features_ND: np.ndarray, reference_MD: np.ndarray, *, subsets: int = 100, size: int = SUBSET, seed: int = 0
) -> tuple[float, float]:
    """KID, mean and standard deviation over subsets: the unbiased squared maximum mean discrepancy under (x.y / D + 1)^3.

    Each subset holds min(size, N, M) of both, drawn without replacement from the seed. May be negative.
    Source: Binkowski et al. 2018 (arXiv 1801.01401).
    """
    generator = np.random.default_rng(seed)
    m = min(size, len(features_ND), len(reference_MD))
    values = []
    for _ in range(subsets):
        x = features_ND[generator.choice(len(features_ND), m, replace=False)].astype(np.float64)
        y = reference_MD[generator.choice(len(reference_MD), m, replace=False)].astype(np.float64)
        values.append(_off_diagonal_mean(_kernel(x, x)) + _off_diagonal_mean(_kernel(y, y)) - 2 * _kernel(x, y).mean())
    return float(np.mean(values)), float(np.std(values))


def _kernel(x, y):
    K = x @ y.T / x.shape[1] + 1
    return K * K * K  # Ten times as fast as K**3.


def _off_diagonal_mean(K):
    m = len(K)
    return (K.sum() - np.trace(K)) / (m * (m - 1))


def inception_score(probabilities_NK: np.ndarray, *, splits: int = 10, seed: int = 0) -> tuple[float, float]:
    """exp(mean KL(p(y|x) || p(y))), mean and standard deviation over splits; between 1 and K.

    The images are shuffled by the seed, since files are often sorted by class; at most N splits.
    Source: Salimans et al. 2016 (arXiv 1606.03498).
    """
    scores = []
    shuffled_NK = np.random.default_rng(seed).permutation(np.asarray(probabilities_NK, np.float64))
    for p in np.array_split(shuffled_NK, min(splits, len(shuffled_NK))):
        log = lambda q: np.log(np.maximum(q, 1e-16))
        scores.append(np.exp((p * (log(p) - log(p.mean(0)))).sum(1).mean()))
    return float(np.mean(scores)), float(np.std(scores))


def precision_recall(features_ND: np.ndarray, reference_MD: np.ndarray, *, k: int = 3) -> tuple[float, float]:
    """The fraction of samples within the reference's manifold, and of the reference within that of the samples.

    A manifold is the union of balls around its points, each with the distance to the k-th nearest neighbour as radius.
    Source: Kynkaanniemi et al. 2019 (arXiv 1904.06991).
    """
    centre = reference_MD.mean(0)  # Translation keeps the distances and loses fewer digits.
    x, y = (np.asarray(features - centre, np.float32) for features in (features_ND, reference_MD))
    radii_x, radii_y = _radii(x, k), _radii(y, k)
    precision, recall = [], np.zeros(len(y), bool)
    for start in range(0, len(x), BLOCK):
        squared = _squared_distances(x[start : start + BLOCK], y)
        precision.append((squared <= radii_y).any(1))
        recall |= (squared <= radii_x[start : start + BLOCK, None]).any(0)
    return float(np.concatenate(precision).mean()), float(recall.mean())


def _radii(x, k):
    """Squared distance of each point to its k-th nearest other point."""
    blocks = (_squared_distances(x[start : start + BLOCK], x) for start in range(0, len(x), BLOCK))
    return np.concatenate([np.partition(block, k, 1)[:, k] for block in blocks])


def _squared_distances(x, y):
    return np.maximum(np.square(x).sum(1)[:, None] + np.square(y).sum(1) - 2 * x @ y.T, 0)
