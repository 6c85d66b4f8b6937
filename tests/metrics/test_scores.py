"""Kernel distance, Inception Score, precision and recall against their definitions, written out with scikit-learn."""

import numpy as np
import pytest

from sdit_jax.metrics import scores
from sdit_jax.metrics.scores import inception_score, kernel_distance, precision_recall


@pytest.fixture
def clouds():
    rng = np.random.default_rng(0)
    return rng.normal(size=(300, 8)).astype(np.float32), rng.normal(0.3, 1.2, size=(400, 8)).astype(np.float32)


def test_the_kernel_distance_over_all_pairs_is_the_unbiased_discrepancy(clouds):
    kernel = pytest.importorskip("sklearn.metrics.pairwise").polynomial_kernel
    x, y = (cloud[:300].astype(np.float64) for cloud in clouds)
    off = lambda K: (K.sum() - np.trace(K)) / (300 * 299)
    k = lambda a, b: kernel(a, b, degree=3, gamma=1 / 8, coef0=1)
    expected = off(k(x, x)) + off(k(y, y)) - 2 * k(x, y).mean()
    found, std = kernel_distance(x, y, subsets=3, size=1000)  # Every subset is all of them.
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert std < 1e-12


def test_the_kernel_distance_is_a_function_of_its_seed_and_near_zero_for_one_cloud(clouds):
    x, y = clouds
    assert kernel_distance(x, y, subsets=5, size=100) == kernel_distance(x, y, subsets=5, size=100)
    assert kernel_distance(x, y, subsets=5, size=100) != kernel_distance(x, y, subsets=5, size=100, seed=1)
    same, std = kernel_distance(x[:150], x[150:], subsets=50, size=100)
    assert abs(same) < 3 * std and kernel_distance(x, y)[0] > 10 * abs(same)


def test_the_inception_score_is_its_definition():
    p = np.random.default_rng(1).dirichlet(np.ones(5), 40)
    expected = [
        np.exp(np.mean([np.sum(row * np.log(row / part.mean(0))) for row in part]))
        for part in np.random.default_rng(0).permutation(p).reshape(4, 10, 5)
    ]
    found, std = inception_score(p, splits=4)
    np.testing.assert_allclose([found, std], [np.mean(expected), np.std(expected)], rtol=1e-12)


def test_the_inception_score_of_images_sorted_by_class_is_that_of_shuffled_ones():
    sorted_by_class = np.repeat(np.eye(5), 200, 0)
    np.testing.assert_allclose(inception_score(sorted_by_class)[0], 5, rtol=0.05)
    assert np.isfinite(inception_score(np.eye(5)[:3])).all()


@pytest.mark.parametrize(
    "p, expected", [(np.tile(np.eye(4), (25, 1)), 4), (np.full((100, 4), 0.25), 1), (np.eye(4)[[2] * 9], 1)]
)
def test_the_inception_score_goes_from_one_to_the_number_of_classes(p, expected):
    np.testing.assert_allclose(inception_score(p, splits=1)[0], expected, rtol=1e-9)


@pytest.mark.parametrize("block", [7, 1000])
def test_precision_and_recall_are_those_of_nearest_neighbours(clouds, monkeypatch, block):
    neighbors = pytest.importorskip("sklearn.neighbors")
    monkeypatch.setattr(scores, "BLOCK", block)
    fake, real = clouds

    def covered(points, cloud, k=3):
        radii = neighbors.NearestNeighbors(n_neighbors=k + 1).fit(cloud).kneighbors(cloud)[0][:, k]
        distances = np.linalg.norm(points[:, None] - cloud[None], axis=-1)
        return (distances <= radii).any(1).mean()

    np.testing.assert_allclose(precision_recall(fake, real), (covered(fake, real), covered(real, fake)), atol=1e-12)
    assert 0 < covered(real, fake) < covered(fake, real) <= 1


def test_far_clouds_share_nothing_and_a_collapsed_one_has_no_recall():
    rng = np.random.default_rng(2)
    real = rng.normal(size=(200, 4))
    assert precision_recall(real + 100, real) == (0, 0)
    precision, recall = precision_recall(real[0] + 1e-3 * rng.normal(size=(200, 4)), real)
    assert precision == 1 and recall < 0.05
