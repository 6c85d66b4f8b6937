"""Examples decoded into memory, once: the fitted images are cached on disk."""

import functools
import hashlib
import inspect
import logging
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import PIL
from tqdm import tqdm

from sdit_jax.data import cache, transforms
from sdit_jax.data.datasets import CHUNK, Examples, Images
from sdit_jax.data.sources import pictures
from sdit_jax.data.transforms import fit_one, to_channels
from sdit_jax.errors import BrokenImage, InputError

log = logging.getLogger(__name__)


def decoded(examples: Examples, size: int | None = None, channels: int | None = None, resize: str = "bilinear") -> Images:
    """All examples, each fitted by `transforms.fit_one`. Broken images are logged and left out.

    Raises InputError where none is left and, without a size, for images of different shapes.
    """
    words = (examples.fingerprint, size, resize, PIL.__version__, code())
    arrays = cache.memoized("images", words, lambda: _decode(examples, size, resize))
    kept = arrays["kept"]
    warn_skipped(examples, len(examples) - len(kept))
    if not len(kept):
        raise InputError(f"{examples.name}: no image is left")
    return Images(to_channels(arrays["images"], channels), examples.labels[kept], examples.num_classes)


@functools.cache
def code() -> str:
    """sha256 of the source that decodes and fits images: a cache that was made by other code is made again."""
    return hashlib.sha256("".join(map(inspect.getsource, (pictures, transforms))).encode()).hexdigest()


def warn_skipped(examples: Examples, broken: int = 0) -> None:
    """Logs the number of files that are left out, if any."""
    if examples.skipped + broken:
        total = len(examples) + examples.skipped
        log.warning("%s: %d of %d files are left out, they cannot be read", examples.name, examples.skipped + broken, total)


def _decode(examples, size, resize):
    """{"images": uint8 (n, H, W, C), "kept": int64 (n,)}, the indices of the examples that can be decoded."""

    def one(stored):
        try:
            return fit_one(examples.decode(stored), size, resize=resize)
        except BrokenImage as error:
            log.warning("%s", error)
            return None

    images, kept = np.zeros((0, 0, 0, 1), np.uint8), []
    with ThreadPoolExecutor() as pool:
        places = range(len(examples))
        found = (image for i in places[::CHUNK] for image in pool.map(one, examples.fetch(places[i : i + CHUNK])))
        for i, image in enumerate(tqdm(found, examples.name, len(examples), unit=" images", disable=None)):
            if image is None:
                continue
            if not kept:
                images = np.empty((len(examples), *image.shape), np.uint8)
            if image.shape != images.shape[1:]:
                raise InputError(
                    f"{examples.name}: found an image of {image.shape} after one of {images.shape[1:]}; without "
                    "resizing, all must share one shape"
                )
            images[len(kept)] = image
            kept.append(i)
    return {"images": images[: len(kept)], "kept": np.array(kept, np.int64)}
