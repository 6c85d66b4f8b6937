"""Encoded images as uint8 arrays, from any palette, transparency or bit depth."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from sdit_jax.errors import BrokenImage

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def is_colour(data: bytes, name: object) -> bool:
    """Whether an image has colour, by its header and palette. Raises BrokenImage where any part of it cannot be read."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            if image.mode.startswith("P"):
                palette = np.reshape(image.getpalette("RGB") or [], (-1, 3))
                return bool((palette != palette[:, :1]).any())
            return not image.mode.startswith(("1", "L", "I"))
    except Exception as error:  # Pillow's decoders raise many kinds.
        raise _broken(name, error) from None


def decode(data: Path | bytes, channels: int, name: object = None) -> np.ndarray:
    """Decodes an image to uint8 (H, W, channels), 1 channel for grey or 3 for RGB, with its EXIF orientation applied.

    Transparent pixels are composited onto black; 16-bit values keep their high byte. Raises BrokenImage, with
    the file or `name`.
    """
    try:
        with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data) as image:
            image = ImageOps.exif_transpose(image)
            if image.mode.startswith("I"):
                image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
            if image.has_transparency_data:
                image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image.convert("RGBA"))
            pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    except Exception as error:
        raise _broken(name or data, error) from None
    return pixels.reshape(*pixels.shape[:2], channels)


def _broken(name, error):
    what = f"{type(error).__name__}: {error}".replace("\n", " ")
    return BrokenImage(f"{name}: not a picture that can be read ({what})")
