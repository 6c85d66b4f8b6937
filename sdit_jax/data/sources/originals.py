"""Data sets from their original files.

| source | files in the folder |
|---|---|
| `digits` | none: the 1,797 8x8 handwritten digits of scikit-learn (UCI, CC BY 4.0) are part of the package |
| `mnist`, `fashion_mnist` | `train-images-idx3-ubyte.gz` and its three companions, with or without `.gz` |
| `cifar10` | `data_batch_1.bin` to `data_batch_5.bin` and `test_batch.bin`, from `cifar-10-batches-bin/` |
"""

import gzip
import math
import zlib
from importlib import resources
from pathlib import Path

import numpy as np

from sdit_jax.data.datasets import Images, checked_labels
from sdit_jax.errors import InputError

SPLITS = ("train", "test")
IDX_FILES = {"train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", 60_000),
             "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte", 10_000)}  # fmt: skip
CIFAR_FILES = {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]}
CIFAR_IMAGES, CIFAR_RECORD = 10_000, 1 + 3 * 32 * 32


def digits(split: str) -> Images:
    """The digits of the package; every fifth belongs to the test split."""
    with resources.files("sdit_jax.data.sources").joinpath("digits.npz").open("rb") as file, np.load(file) as arrays:
        grey = np.round(arrays["images"] * (255 / 16)).astype(np.uint8)  # 17 grey levels
        chosen = (np.arange(len(grey)) % 5 == 4) == (split == "test")
        return Images(grey[chosen, ..., None], arrays["labels"][chosen].astype(np.int32))


def idx_pair(split: str, directory: Path) -> Images:
    """A split of MNIST or Fashion-MNIST. Raises InputError for a missing, short or damaged file."""
    images_name, labels_name, count = IDX_FILES[split]
    images = _idx(directory, images_name, (count, 28, 28))
    labels = _idx(directory, labels_name, (count,))
    return Images(images[..., None], checked_labels(labels, directory / labels_name, 10))


def _idx(directory, name, shape):
    """An idx file: two zero bytes, type (8: unsigned byte), number of axes, the axes as big-endian int32, then the data."""
    path = directory / f"{name}.gz"
    path = path if path.is_file() else directory / name
    if not path.is_file():
        raise InputError(f"{directory / name}.gz: no such file (nor without .gz)")
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path}: damaged or cut short, cannot be decompressed ({error})") from None
    header = 4 + 4 * len(shape)
    expected = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">i4").tobytes()
    if raw[:header] != expected:
        raise InputError(f"{path}: found header {raw[:header].hex()}, expected {expected.hex()} (idx, shape {shape})")
    if len(raw) != header + math.prod(shape):
        raise InputError(f"{path}: found {len(raw):,} bytes, expected {header + math.prod(shape):,}")
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)


def cifar10(split: str, directory: Path) -> Images:
    """A split of CIFAR-10: records of a label byte and 3 x 32 x 32 pixels. Raises InputError as `idx_pair` does."""
    size = CIFAR_IMAGES * CIFAR_RECORD
    batches, labels = [], []
    for name in CIFAR_FILES[split]:
        path = directory / name
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        raw = path.read_bytes()
        if len(raw) != size:
            raise InputError(f"{path}: found {len(raw):,} bytes, expected {size:,}")
        records = np.frombuffer(raw, np.uint8).reshape(CIFAR_IMAGES, CIFAR_RECORD)
        batches.append(records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        labels.append(checked_labels(records[:, 0], path, 10))
    return Images(np.concatenate(batches), np.concatenate(labels))
