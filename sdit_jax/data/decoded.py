"""Examples decoded into memory, once: the fitted images are cached on disk."""

import functools
import hashlib
import inspect
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import PIL

from sdit_jax.data import cache, pictures, transforms
from sdit_jax.data.datasets import CHUNK, Examples, Images
from sdit_jax.data.transforms import fit_one, to_channels
from sdit_jax.errors import InputError
from sdit_jax.progress import progress


def decoded(examples: Examples, size: int | None = None, channels: int | None = None, resize: str = "bilinear") -> Images:
    """All examples, each fitted by `transforms.fit_one`.

    Raises BrokenImage for one that cannot be decoded and, without a size, InputError for images of different shapes.
    """
    words = (examples.fingerprint, size, resize, PIL.__version__, code())
    images = cache.memoized("images", words, lambda: {"images": _decode(examples, size, resize)})["images"]
    return Images(to_channels(images, channels), examples.labels, examples.num_classes)


@functools.cache
def code() -> str:
    """sha256 of the source that decodes and fits images: a cache that was made by other code is made again."""
    return hashlib.sha256("".join(map(inspect.getsource, (pictures, transforms))).encode()).hexdigest()


def _decode(examples, size, resize):
    """uint8 (N, H, W, C)."""
    one = lambda stored: fit_one(examples.decode(stored), size, resize=resize)
    images = np.zeros((0, 0, 0, 1), np.uint8)
    with ThreadPoolExecutor() as pool:
        places = range(len(examples))
        found = (image for i in places[::CHUNK] for image in pool.map(one, examples.fetch(places[i : i + CHUNK])))
        for i, image in enumerate(progress(found, examples.name, len(examples), "images")):
            if i == 0:
                images = np.empty((len(examples), *image.shape), np.uint8)
            if image.shape != images.shape[1:]:
                raise InputError(
                    f"{examples.name}: found an image of {image.shape} after one of {images.shape[1:]}; without "
                    "resizing, all must share one shape"
                )
            images[i] = image
    return images
