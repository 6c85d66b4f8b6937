"""Nearest training images: against scikit-learn and by hand."""

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from sdit_jax.errors import InputError
from sdit_jax.metrics import neighbours

GENERATOR = np.random.default_rng(0)
TRAIN = GENERATOR.integers(0, 256, (300, 6, 5, 3), np.uint8)
SAMPLES = GENERATOR.integers(0, 256, (17, 6, 5, 3), np.uint8)


@pytest.mark.parametrize("block", [1, 90 * 7, 2**22])  # One image, seven, and all at a time.
@pytest.mark.parametrize("k", [1, 5, 300])
def test_they_are_those_that_scikit_learn_finds(monkeypatch, block, k):
    monkeypatch.setattr(neighbours, "BLOCK", block)
    indices, distances = neighbours.nearest(SAMPLES, TRAIN, k)
    flat = lambda images: images.reshape(len(images), -1).astype(np.float64)
    expected, where = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(flat(TRAIN)).kneighbors(flat(SAMPLES))
    np.testing.assert_allclose(distances, expected / np.sqrt(90), rtol=1e-12)
    if k < 300:  # Farther ones may be equally far.
        np.testing.assert_array_equal(indices, where)


def test_the_distance_is_a_root_mean_square_in_grey_levels():
    image = np.full((1, 4, 4, 1), 100, np.uint8)
    train = np.concatenate([image + 50, image - 7, image])
    train[2, 0, 0] = 112  # One pixel of 16 differs by 12: sqrt(144 / 16).
    indices, distances = neighbours.nearest(image, train, 3)
    np.testing.assert_array_equal(indices, [[2, 1, 0]])
    np.testing.assert_array_equal(distances, [[3, 7, 50]])


def test_one_grey_level_in_a_bright_image_is_not_lost():
    """float32 cannot tell 255^2 * 3072 from 255^2 * 3072 + 1."""
    image = np.full((1, 32, 32, 3), 255, np.uint8)
    train = image.repeat(3, 0)
    train[0, 0, 0, 0], train[1, 5, 5, 1] = 253, 254
    indices, distances = neighbours.nearest(image, train, 3)
    np.testing.assert_array_equal(indices, [[2, 1, 0]])
    np.testing.assert_allclose(distances**2 * 3072, [[0, 1, 4]], rtol=1e-12)


def test_equally_near_images_come_by_index(monkeypatch):
    monkeypatch.setattr(neighbours, "BLOCK", 16)
    train = np.array([9, 3, 5, 3, 5, 4], np.uint8).reshape(6, 1, 1, 1).repeat(4, 1).repeat(4, 2)
    indices, distances = neighbours.nearest(train[5:], train, 4)
    np.testing.assert_array_equal(indices, [[5, 1, 2, 3]])
    np.testing.assert_array_equal(distances, [[0, 1, 1, 1]])


def test_copies_stand_out():
    real = GENERATOR.integers(0, 256, (200, 6, 5, 3), np.uint8)
    nearly = (TRAIN[[41, 7]] // 2 * 2) ^ np.array([1, 2], np.uint8)[:, None, None, None]  # At most 1 and 3 levels away.
    samples = np.concatenate([SAMPLES, nearly[::-1], TRAIN[[3]]])
    found = neighbours.compare(samples, TRAIN, real, k=2, shown=6)
    assert found.closest == 3
    np.testing.assert_array_equal(found.samples_SHWC, samples[[19, 18, 17, 0, 1, 2]])
    np.testing.assert_array_equal(found.nearest_SKHWC[:3, 0], TRAIN[[3, 41, 7]])
    np.testing.assert_array_equal(found.samples_N, neighbours.nearest(samples, TRAIN)[1][:, 0])
    np.testing.assert_array_equal(found.real_M, neighbours.nearest(real, TRAIN)[1][:, 0])
    assert found.distances_SK[0, 0] == 0 < found.distances_SK[1, 0] <= 1 < found.distances_SK[2, 0] <= 3
    assert 3 / 20 <= found.suspicious < 5 / 20
    assert neighbours.compare(real, TRAIN, real).suspicious == 0.01
    assert neighbours.compare(SAMPLES, TRAIN).suspicious is None


@pytest.mark.parametrize(
    "samples, k, text",
    [
        (SAMPLES[:, :5], 1, r"samples are \(5, 5, 3\), the training images \(6, 5, 3\)"),
        (SAMPLES, 301, "k = 301, allowed are 1..300"),
    ],
)
def test_what_cannot_be_compared_is_said(samples, k, text):
    with pytest.raises(InputError, match=text):
        neighbours.nearest(samples, TRAIN, k)
