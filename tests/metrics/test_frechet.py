"""The Frechet distance against scipy's matrix root and closed forms; streamed moments against those of all at once."""

import numpy as np
import pytest
from scipy import linalg

from sdit_jax.metrics.frechet import Moments, frechet_distance


def cloud(n, d, seed=0, offset=0.0):
    """Correlated features with scales from 1e-3 to 1 around an offset."""
    rng = np.random.default_rng(seed)
    return offset + rng.normal(size=(n, d)) * np.logspace(-3, 0, d) @ linalg.qr(rng.normal(size=(d, d)))[0]


def moments(features):
    found = Moments(features.shape[1])
    found.add(features)
    return found.mean_D, found.covariance_DD


@pytest.mark.parametrize("d", [2, 48, 128])
def test_the_distance_is_that_of_the_matrix_root(d):
    (mu1, cov1), (mu2, cov2) = moments(cloud(500, d)), moments(cloud(700, d, seed=1, offset=0.1))
    expected = np.square(mu1 - mu2).sum() + np.trace(cov1 + cov2 - 2 * linalg.sqrtm(cov1 @ cov2).real)
    np.testing.assert_allclose(frechet_distance(mu1, cov1, mu2, cov2), expected, rtol=1e-6)


def test_diagonal_covariances_have_a_closed_form():
    a, b = np.array([1.0, 4.0, 9.0]), np.array([4.0, 0.25, 9.0])
    found = frechet_distance(np.zeros(3), np.diag(a), np.array([0.0, 3.0, 4.0]), np.diag(b))
    np.testing.assert_allclose(found, 25 + np.square(np.sqrt(a) - np.sqrt(b)).sum(), rtol=1e-12)


def test_a_cloud_is_at_no_distance_from_itself_also_where_its_covariance_is_singular():
    mu, cov = moments(cloud(20, 64))  # Rank 19.
    assert np.linalg.matrix_rank(cov) == 19
    assert frechet_distance(mu, cov, mu, cov) < 1e-6 * np.trace(cov)
    np.testing.assert_allclose(frechet_distance(mu, cov, mu + 2, cov), 4 * 64, rtol=1e-6)


def test_singular_covariances_give_the_distance_of_the_planes():
    """Where the matrix root of the product is defective: two lines at a right angle."""
    found = frechet_distance(np.zeros(2), np.diag([1.0, 0.0]), np.zeros(2), np.diag([0.0, 1.0]))
    np.testing.assert_allclose(found, 2.0, atol=1e-12)


@pytest.mark.parametrize("sizes", [[1000], [1, 999], [250] * 4, [3, 0, 500, 497]])
def test_streamed_moments_are_those_of_all_features(sizes):
    features = cloud(1000, 16, offset=1e4).astype(np.float32)
    found, start = Moments(16), 0
    for size in sizes:
        found.add(features[start : start + size])
        start += size
    exact = features.astype(np.float64)
    assert found.n == 1000
    np.testing.assert_allclose(found.mean_D, exact.mean(0), rtol=1e-14)
    np.testing.assert_allclose(found.covariance_DD, np.cov(exact, rowvar=False), rtol=1e-9, atol=1e-15)


def test_what_is_not_finite_or_does_not_match_is_refused():
    bad = np.zeros((4, 3))
    bad[2, 1] = np.nan
    with pytest.raises(ValueError, match="1 of 4 images"):
        Moments(3).add(bad)
    with pytest.raises(ValueError, match=r"\(4, 3\).*5"):
        Moments(5).add(bad)
    one = Moments(3)
    one.add(np.zeros((1, 3)))
    with pytest.raises(ValueError, match="found 1 images"):
        _ = one.covariance_DD
    with pytest.raises(ValueError, match="do not match"):
        frechet_distance(np.zeros(2), np.eye(2), np.zeros(3), np.eye(3))
    with pytest.raises(ValueError, match="not finite"):
        frechet_distance(np.zeros(2), np.eye(2), np.zeros(2), np.full((2, 2), np.inf))
