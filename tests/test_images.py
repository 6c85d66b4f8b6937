"""Images between floats, bytes and pictures."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from sdit_jax import images


def test_all_grey_levels_survive_the_way_to_float_and_back():
    levels = np.arange(256, dtype=np.uint8)
    floats = images.from_uint8(levels)
    assert floats.dtype == jnp.float32
    np.testing.assert_allclose(floats, np.arange(256) / 127.5 - 1, atol=1e-6)
    assert (floats[0], floats[255]) == (-1, 1)
    np.testing.assert_array_equal(images.to_uint8(floats), levels)


def test_floats_are_clipped_and_rounded_to_the_nearest_level():
    floats = jnp.array([-7.0, -1.0, 10.4 / 127.5 - 1, 10.6 / 127.5 - 1, 1.0, 7.0])
    found = images.to_uint8(floats)
    assert found.dtype == jnp.uint8
    np.testing.assert_array_equal(found, [0, 0, 10, 11, 255, 255])


@pytest.mark.parametrize("channels", [1, 3])
def test_a_grid_shows_every_image_in_its_place(channels):
    pictures = np.random.default_rng(0).integers(0, 200, (5, 4, 4, channels), np.uint8)
    grid = images.grid(pictures, columns=3, min_side=8)  # Zoom 2, cells of 8 with a margin of 2 between them.
    assert grid.shape == (18, 28, 3)
    for i, picture in enumerate(pictures):
        top, left = 10 * (i // 3), 10 * (i % 3)
        np.testing.assert_array_equal(grid[top : top + 8 : 2, left : left + 8 : 2], np.broadcast_to(picture, (4, 4, 3)))
        np.testing.assert_array_equal(grid[top + 1 : top + 8 : 2, left + 1 : left + 8 : 2], np.broadcast_to(picture, (4, 4, 3)))
    assert (grid[8:10] == 255).all() and (grid[:, 8:10] == 255).all() and (grid[10:, 20:] == 255).all()


def test_large_images_are_not_enlarged():
    pictures = np.random.default_rng(0).integers(0, 256, (1, 70, 70, 3), np.uint8)
    np.testing.assert_array_equal(images.grid(pictures, columns=1), pictures[0])


def test_pictures_beside_each_other_keep_their_pixels_and_share_a_middle():
    small, tall = (np.random.default_rng(0).integers(0, 200, shape, np.uint8) for shape in ((4, 5, 3), (10, 6, 3)))
    for left, right in ((small, tall), (tall, small)):
        found = images.beside(left, right, gap=2)
        assert found.shape == (10, 13, 3)
        for one, start in ((left, 0), (right, left.shape[1] + 2)):
            top = (10 - len(one)) // 2
            np.testing.assert_array_equal(found[top : top + len(one), start : start + one.shape[1]], one)
        assert (found == 255).all(-1).sum() == 130 - 20 - 60


def test_a_png_holds_the_picture_and_nothing_is_left_beside_it(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
    (tmp_path / "grid.png").write_bytes(b"an older picture")
    images.save_png(picture, tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as stored:
        assert stored.format == "PNG"
        np.testing.assert_array_equal(np.asarray(stored), picture)
    assert [file.name for file in tmp_path.iterdir()] == ["grid.png"]
