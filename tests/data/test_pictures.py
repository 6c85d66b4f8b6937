"""Every kind of picture file becomes the uint8 pixels that it shows."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from sdit_jax.data.pictures import decode, is_colour
from sdit_jax.errors import BrokenImage

RNG = np.random.default_rng(0)
GREY, RGB = RNG.integers(0, 256, (5, 7), np.uint8), RNG.integers(0, 256, (5, 7, 3), np.uint8)
ALPHA = RNG.integers(0, 256, (5, 7, 1), np.uint8)


def saved(path, picture, **options):
    picture.save(path, **options)
    return path


def assert_shows(path, expected, tolerance=0):
    """The file shows these pixels, both as a file and as bytes."""
    for data in (path, path.read_bytes()):
        found = decode(data, expected.shape[-1])
        assert found.dtype == np.uint8 and found.shape == expected.shape
        assert np.abs(found.astype(int) - expected).max() <= tolerance
    assert is_colour(path.read_bytes(), path) == (expected.shape[-1] == 3)


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_colour_is_kept_to_the_bit(tmp_path, suffix):
    assert_shows(saved(tmp_path / f"a.{suffix}", Image.fromarray(RGB), lossless=True), RGB)


def test_grey_is_one_channel_and_repeated_among_colour(tmp_path):
    path = saved(tmp_path / "a.png", Image.fromarray(GREY))
    assert_shows(path, GREY[..., None])
    np.testing.assert_array_equal(decode(path, 3), np.repeat(GREY[..., None], 3, -1))


def test_jpeg_is_what_pillow_decodes(tmp_path):
    path = saved(tmp_path / "a.jpg", Image.fromarray(RGB))
    assert_shows(path, np.asarray(Image.open(path)))
    cmyk = saved(tmp_path / "b.jpg", Image.fromarray(RGB).convert("CMYK"))
    assert_shows(cmyk, np.asarray(Image.open(cmyk).convert("RGB")))


def test_palettes_are_looked_up(tmp_path):
    picture = Image.frombytes("P", (7, 5), (GREY % 4).tobytes())
    colours = RNG.integers(0, 256, (4, 3), np.uint8)
    picture.putpalette(colours.tobytes())
    assert_shows(saved(tmp_path / "a.png", picture), colours[GREY % 4])
    greys = np.uint8([9, 99, 0, 255])
    picture.putpalette(np.repeat(greys[:, None], 3, 1).tobytes())
    assert_shows(saved(tmp_path / "b.png", picture), greys[GREY % 4][..., None])


def test_what_is_transparent_is_laid_on_black(tmp_path):
    rgba = Image.fromarray(np.concatenate([RGB, ALPHA], -1))
    assert_shows(saved(tmp_path / "a.png", rgba), RGB.astype(float) * ALPHA / 255, tolerance=0.51)
    la = Image.fromarray(np.concatenate([GREY[..., None], ALPHA], -1))
    assert_shows(saved(tmp_path / "b.png", la), GREY[..., None].astype(float) * ALPHA / 255, tolerance=0.51)
    palette = Image.frombytes("P", (7, 5), (GREY % 2).tobytes())
    palette.putpalette([200, 10, 20, 250, 240, 230])
    found = saved(tmp_path / "c.png", palette, transparency=0)
    assert_shows(found, np.uint8([[0, 0, 0], [250, 240, 230]])[GREY % 2])
    keyed = saved(tmp_path / "d.png", Image.fromarray(np.uint8([[3, 7]])), transparency=7)
    assert_shows(keyed, np.uint8([[[3], [0]]]))


def test_of_16_bits_the_high_byte_is_kept(tmp_path):
    deep = RNG.integers(0, 2**16, (5, 7), np.uint16)
    assert_shows(saved(tmp_path / "a.png", Image.fromarray(deep)), (deep // 256).astype(np.uint8)[..., None])


def test_one_bit_is_black_or_white(tmp_path):
    path = saved(tmp_path / "a.png", Image.fromarray(GREY > 127))
    assert_shows(path, np.where(GREY > 127, 255, 0)[..., None])


def test_a_picture_is_turned_as_its_camera_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # Turned a quarter to the left when it was taken.
    assert_shows(saved(tmp_path / "a.png", Image.fromarray(RGB), exif=exif), np.rot90(RGB, -1))


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", "cut", "flipped"])
def test_a_broken_file_is_named_in_one_line(tmp_path, content):
    good = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (40, 40, 3), np.uint8)).save(good, "PNG")
    good = good.getvalue()
    bad = {"cut": good[:2000], "flipped": good[:99] + bytes([good[99] ^ 255]) + good[100:]}.get(content, content)
    (tmp_path / "a.png").write_bytes(bad)
    with pytest.raises(BrokenImage, match=f"^{re.escape(str(tmp_path / 'a.png'))}: not a picture") as error:
        decode(tmp_path / "a.png", 3)
    assert "\n" not in str(error.value)
    with pytest.raises(BrokenImage, match="^image 7 of x: not a picture"):
        decode(bad, 3, "image 7 of x")
