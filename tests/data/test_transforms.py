"""Images are brought to the size and channels that a model takes."""

import numpy as np
import pytest
from PIL import Image

from sdit_jax.data.order import BatchSpec
from sdit_jax.data.transforms import crops, fit, fit_one, to_channels
from sdit_jax.errors import InputError


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


@pytest.mark.parametrize("shape", [(9, 16, 3), (17, 8, 3), (9, 16, 1)])
def test_the_square_at_the_centre_is_taken(shape):
    image, side = pixels(*shape), min(shape[:2])
    top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
    theirs = (
        Image.fromarray(image.squeeze()).crop((left, top, left + side, top + side)).resize((6, 6), Image.Resampling.LANCZOS)
    )
    np.testing.assert_array_equal(fit_one(image, 6, shape[2], "lanczos").squeeze(), np.asarray(theirs))
    np.testing.assert_array_equal(fit_one(image, side).squeeze(), image[top : top + side, left : left + side].squeeze())


def test_colour_is_averaged_to_grey_only_where_asked():
    images = np.uint8([[[[1, 2, 4], [255, 255, 254]]]])
    np.testing.assert_array_equal(to_channels(images, 1, average=True), [[[[2], [255]]]])
    with pytest.raises(InputError, match="config.model.channels: found 2, must be 3"):
        to_channels(images, 2, average=True)


def test_without_a_size_images_stay_as_they_are():
    image = pixels(5, 7, 1)
    np.testing.assert_array_equal(fit_one(image), image)
    np.testing.assert_array_equal(fit_one(image, None, 3), np.repeat(image, 3, -1))
    images = pixels(2, 5, 7, 1)
    np.testing.assert_array_equal(fit(images), images)


def test_an_unknown_filter_is_refused():
    with pytest.raises(InputError, match="config.data.resize: found 'sinc', allowed are bilinear, bicubic"):
        fit(pixels(1, 8, 8, 3), 4, 3, "sinc")


def test_crops_start_at_their_corners_and_are_mirrored():
    images = pixels(5, 8, 9, 3)
    places, flips = np.array([4, 0, 4, 2]), np.array([True, False, False, True])
    corners = np.array([[0, 0], [2, 1], [1, 2], [2, 2]])
    found = crops(images, BatchSpec(places, flips, corners), 2)
    for i, flip, (row, column), ours in zip(places, flips, corners, found, strict=True):
        cut = images[i][row : row + 6, column : column + 7]
        np.testing.assert_array_equal(ours, cut[:, ::-1] if flip else cut)
    assert found.flags.c_contiguous


def test_without_a_margin_only_flips_are_left():
    images = pixels(3, 4, 4, 1)
    found = crops(images, BatchSpec(np.array([2, 1]), np.array([False, True]), np.zeros((2, 2), int)), 0)
    np.testing.assert_array_equal(found, [images[2], images[1][:, ::-1]])
