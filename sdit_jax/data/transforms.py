"""Images in the size and channels that a network takes, and the crops and flips of a batch."""

import numpy as np
from PIL import Image

from sdit_jax.data.order import BatchSpec
from sdit_jax.errors import InputError

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
    """uint8 (H, W, C) as (size, size, channels): the largest centred square, resized; grey is repeated to 3 channels.

    None keeps the size or the channels. Filters are Pillow's on 8-bit images, which average when they shrink (the release
    resizes CIFAR-10 from 32 to 28 bilinearly). Raises InputError for channels that cannot fit and a filter not in FILTERS.
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
    """Raises InputError for a filter not in FILTERS."""
    if resize not in FILTERS:
        raise InputError(f"config.data.resize: found {resize!r}, allowed are {', '.join(FILTERS)}")


def to_channels(images: np.ndarray, channels: int | None, *, average: bool = False) -> np.ndarray:
    """uint8 (..., C) with grey repeated to 3 channels and, with `average`, colour averaged to grey.

    None keeps the channels. Raises InputError for any other change.
    """
    found = images.shape[-1]
    if channels in (None, found):
        return images
    if (found, channels) == (1, 3):
        return np.repeat(images, channels, -1)
    if (found, channels) == (3, 1) and average:
        return np.round(images.mean(-1, keepdims=True)).astype(np.uint8)
    allowed = "1 or 3, the images are grey" if found == 1 else f"{found}, as the images have"
    raise InputError(f"config.model.channels: found {channels}, must be {allowed}")


def crops(images_NHWC: np.ndarray, spec: BatchSpec, margin: int) -> np.ndarray:
    """The images of a batch spec, (b, H - margin, W - margin, C), cropped at their corners and mirrored where `flip_B`."""
    if margin:
        _, H, W, _ = images_NHWC.shape
        views = np.lib.stride_tricks.sliding_window_view(images_NHWC, (H - margin, W - margin), (1, 2))
        rows, columns = spec.corner_B2.T  # Views are (N, margin + 1, margin + 1, C, H - margin, W - margin).
        pixels = np.moveaxis(views[spec.index_B, rows, columns], 1, -1)
    else:
        pixels = images_NHWC[spec.index_B]
    if spec.flip_B.any():
        pixels = np.where(spec.flip_B[:, None, None, None], pixels[:, :, ::-1], pixels)
    return np.ascontiguousarray(pixels)
