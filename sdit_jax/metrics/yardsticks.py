"""Perturbed real images that calibrate a metric."""

from collections.abc import Callable

import numpy as np
from scipy import ndimage

GREY_LEVELS = (4, 8, 12, 16)


def noisy(images_NHWC: np.ndarray, grey_levels: float, seed: int = 0) -> np.ndarray:
    """Adds Gaussian noise with a standard deviation in grey levels of 0..255, rounds and clips."""
    noise = np.random.default_rng(seed).standard_normal(images_NHWC.shape, np.float32)
    return np.clip(np.round(images_NHWC + grey_levels * noise), 0, 255).astype(np.uint8)


def shifted(images_NHWC: np.ndarray) -> np.ndarray:
    """Shifts by one pixel to the right; the first column is repeated."""
    return np.concatenate([images_NHWC[:, :, :1], images_NHWC[:, :, :-1]], 2)


def blurred(images_NHWC: np.ndarray, pixels: float = 0.5) -> np.ndarray:
    """Convolves with a Gaussian of a standard deviation in pixels, the border repeated."""
    smooth = ndimage.gaussian_filter(images_NHWC.astype(np.float32), (0, pixels, pixels, 0), mode="nearest")
    return np.clip(np.round(smooth), 0, 255).astype(np.uint8)


YARDSTICKS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as they are": lambda images: images,
    **{f"Gaussian noise of {level} grey levels": lambda images, level=level: noisy(images, level) for level in GREY_LEVELS},
    "shifted by one pixel": shifted,
    "blurred by half a pixel": blurred,
}
