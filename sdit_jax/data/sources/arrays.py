"""Images saved as arrays in a .npz file, such as this package's `samples.npz`."""

from pathlib import Path

import numpy as np

from sdit_jax.data.datasets import Images, checked_labels
from sdit_jax.errors import InputError

NAMES = ("arr_0", "images")
MOST_CLASSES = 2**20


def read(path: Path) -> Images:
    """Reads uint8 (N, H, W, C) or (N, H, W) under one of NAMES, and integers (N,) under "labels"; without labels, one class.

    Raises InputError for a missing or damaged file and arrays of another type, shape or length.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
            arrays = {name: found[name] for name in (*NAMES, "labels") if name in found.files}
            names = found.files
    except Exception as error:  # numpy, zipfile and zlib raise many kinds for a damaged file.
        raise InputError(f"{path}: not a .npz file of arrays, or damaged ({type(error).__name__}: {error})") from None
    name = next((name for name in NAMES if name in arrays), None)
    if name is None:
        raise InputError(f"{path}: found {', '.join(names) or 'nothing'}, must hold {' or '.join(NAMES)}")
    images = arrays[name]
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or 0 in images.shape:
        raise InputError(f"{path}: found {name} of {images.dtype} {images.shape}, must be uint8 (N, H, W, C) or (N, H, W)")
    images = images if images.ndim == 4 else images[..., None]
    if images.shape[-1] not in (1, 3):
        raise InputError(f"{path}: found {images.shape[-1]} channels, must be 1 or 3")
    labels = arrays.get("labels", np.zeros(len(images), np.int32))
    if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"{path}: found labels of {labels.dtype} {labels.shape}, must be integers ({len(images)},)")
    if labels.max() >= MOST_CLASSES:
        raise InputError(f"{path}: found label {labels.max()}, must be below {MOST_CLASSES}")
    num_classes = int(labels.max()) + 1
    return Images(images, checked_labels(labels, path, max(1, num_classes)), max(1, num_classes))
