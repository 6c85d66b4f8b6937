"""From a data set's images to those that a model takes: size and channels, once; windows and flips at each showing."""

import numpy as np
from PIL import Image

from sdit_jax.config import InputError
from sdit_jax.data.order import Showing

FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "nearest": Image.Resampling.NEAREST,
}


def fit(images: np.ndarray, size: int | None = None, channels: int | None = None, resize: str = "bilinear") -> np.ndarray:
    """uint8 (N, H, W, C) as (N, size, size, channels); see `fit_one`."""
    if size is None or images.shape[1:3] == (size, size):
        return to_channels(images, channels)
    return np.stack([fit_one(image, size, channels, resize) for image in images])


def fit_one(image: np.ndarray, size: int | None = None, channels: int | None = None, resize: str = "bilinear") -> np.ndarray:
    """uint8 (H, W, C) as (size, size, channels): the greatest square at its centre, resized; grey is repeated to 3 channels.

    None leaves size or channels as they are. Filters are Pillow's on 8-bit images, which average when they shrink (the release
    brings CIFAR-10 from 32 to 28 bilinearly). Raises InputError where channels cannot be made to fit, and for a filter that is
    not in FILTERS.
    """
    image = to_channels(image, channels)
    H, W, C = image.shape
    if size is None or (H, W) == (size, size):
        return image
    check_filter(resize)
    side = min(H, W)
    top, left = (H - side) // 2, (W - side) // 2
    square = image[top : top + side, left : left + side]
    picture = Image.fromarray(square[..., 0] if C == 1 else square)
    return np.asarray(picture.resize((size, size), FILTERS[resize])).reshape(size, size, C)


def check_filter(resize: str) -> None:
    """Raises InputError for a filter that is not in FILTERS."""
    if resize not in FILTERS:
        raise InputError(f"config.data.resize: found {resize!r}, allowed are {', '.join(FILTERS)}")


def to_channels(images: np.ndarray, channels: int | None) -> np.ndarray:
    """uint8 (..., C) with grey repeated to 3 channels. Raises InputError for any other change."""
    found = images.shape[-1]
    if channels in (None, found):
        return images
    if (found, channels) != (1, 3):
        allowed = "1 or 3, the images are grey" if found == 1 else f"{found}, as the images have"
        raise InputError(f"config.model.channels: found {channels}, must be {allowed}")
    return np.repeat(images, channels, -1)


def windows(images_NHWC: np.ndarray, showing: Showing, margin: int) -> np.ndarray:
    """The images that a showing names, each cut by `margin` pixels at its corner's choice, some mirrored left to right."""
    if margin:
        N, H, W, C = images_NHWC.shape
        sides = (H - margin, W - margin)
        views = np.lib.stride_tricks.sliding_window_view(images_NHWC, sides, (1, 2))  # (N, margin + 1, margin + 1, C, h, w)
        rows, columns = showing.corner_B2.T
        pixels = np.moveaxis(views[showing.index_B, rows, columns], 1, -1)
    else:
        pixels = images_NHWC[showing.index_B]
    if showing.flip_B.any():
        pixels = np.where(showing.flip_B[:, None, None, None], pixels[:, :, ::-1], pixels)
    return np.ascontiguousarray(pixels)
