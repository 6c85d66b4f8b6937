"""The changes of real images are what their names say."""

import numpy as np

from sdit_jax.metrics.yardsticks import GREY_LEVELS, YARDSTICKS, blurred, noisy, shifted

GREY = np.full((50, 28, 28, 1), 128, np.uint8)


def test_noise_has_the_standard_deviation_that_is_said():
    for level in GREY_LEVELS:
        changed = YARDSTICKS[f"Gaussian noise of {level} grey levels"](GREY).astype(float)
        np.testing.assert_allclose(changed.std(), (level**2 + 1 / 12) ** 0.5, rtol=0.02)  # Rounding adds 1/12.
        np.testing.assert_allclose(changed.mean(), 128, atol=0.3)
    np.testing.assert_array_equal(noisy(GREY, 8), noisy(GREY, 8))


def test_noise_stays_within_the_grey_levels():
    assert noisy(np.zeros_like(GREY), 16).max() < 100 and noisy(GREY * 0 + 255, 16).min() > 150


def test_a_shift_moves_every_column_by_one():
    images = np.random.default_rng(0).integers(0, 256, (3, 6, 5, 3), np.uint8)
    np.testing.assert_array_equal(shifted(images)[:, :, 1:], images[:, :, :-1])
    np.testing.assert_array_equal(shifted(images)[:, :, 0], images[:, :, 0])


def test_a_blur_is_a_gaussian_of_half_a_pixel():
    image = np.zeros((1, 9, 9, 1), np.uint8)
    image[0, 4, 4] = 255
    weights = np.exp(-np.square(np.arange(-2, 3)) / (2 * 0.5**2))
    weights /= weights.sum()
    np.testing.assert_array_equal(blurred(image)[0, 2:7, 2:7, 0], np.round(255 * np.outer(weights, weights)))
    np.testing.assert_array_equal(blurred(GREY), GREY)


def test_channels_are_not_mixed():
    image = np.zeros((1, 8, 8, 3), np.uint8)
    image[..., 1] = np.random.default_rng(0).integers(0, 256, (8, 8))
    for change in (shifted, blurred):
        assert not change(image)[..., [0, 2]].any()
    np.testing.assert_array_equal(YARDSTICKS["as they are"](image), image)
