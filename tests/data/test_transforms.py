"""Images are brought to the size and channels that a model takes."""

import numpy as np
import pytest
from PIL import Image

from sdit_jax.config import InputError
from sdit_jax.data.transforms import fit


def pixels(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def test_images_that_fit_are_left_alone():
    images = pixels(3, 8, 8, 3)
    assert fit(images, 8, 3) is images


def test_grey_is_repeated():
    images = pixels(3, 8, 8, 1)
    np.testing.assert_array_equal(fit(images, 8, 3), np.concatenate([images] * 3, -1))


@pytest.mark.parametrize("side, size", [(32, 28), (28, 32), (8, 5)])
@pytest.mark.parametrize("channels", [1, 3])
def test_other_sizes_are_resized_as_pillow_does(side, size, channels):
    images = pixels(4, side, side, channels)
    found = fit(images, size, channels)
    assert found.dtype == np.uint8
    for image, ours in zip(images, found, strict=True):
        for channel in range(channels):
            theirs = Image.fromarray(image[..., channel]).resize((size, size), Image.Resampling.BILINEAR)
            np.testing.assert_array_equal(ours[..., channel], np.asarray(theirs))


def test_shrinking_averages_rather_than_skips():
    stripes = np.tile(np.uint8([0, 255]), (1, 16, 8))[..., None]
    found = fit(stripes, 4, 1)[:, :, 1:-1]
    assert abs(found.astype(int) - 127).max() <= 20


def test_grey_images_are_resized_and_repeated():
    found = fit(pixels(2, 32, 32, 1), 28, 3)
    np.testing.assert_array_equal(found, np.repeat(fit(pixels(2, 32, 32, 1), 28, 1), 3, -1))


@pytest.mark.parametrize("found, wanted", [(3, 1), (3, 4)])
def test_channels_that_cannot_fit_are_refused(found, wanted):
    with pytest.raises(InputError, match=f"config.model.channels: found {wanted}, must be {found}"):
        fit(pixels(1, 8, 8, found), 8, wanted)
