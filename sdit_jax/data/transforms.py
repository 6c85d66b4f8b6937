"""From a data set's images to those that a model takes: size and channels, once, in uint8."""

import numpy as np
from PIL import Image

from sdit_jax.config import InputError


def fit(images: np.ndarray, size: int, channels: int) -> np.ndarray:
    """uint8 (N, H, W, C) as (N, size, size, channels).

    Images of another size are resized, bilinear with antialiasing, as Pillow and torchvision do on 8-bit images (the release
    brings CIFAR-10 from 32 to 28); grey is repeated to 3 channels. Raises InputError where channels cannot be made to fit.
    """
    found = images.shape[-1]
    if channels != found and (found, channels) != (1, 3):
        allowed = "1 or 3, the images are grey" if found == 1 else f"{found}, as the images have"
        raise InputError(f"config.model.channels: found {channels}, must be {allowed}")
    if images.shape[1:3] != (size, size):
        resized = [_resize(image, size) for image in images]
        images = np.stack(resized).reshape(len(images), size, size, found)
    return np.repeat(images, channels, -1) if channels != found else images


def _resize(image, size):
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    return np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR))
