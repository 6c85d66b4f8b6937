"""Data sets that tensorflow-datasets has prepared as array_record files, read without TensorFlow."""

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sdit_jax.config import InputError
from sdit_jax.data import cache
from sdit_jax.data.datasets import CHUNK, Examples, checked_labels
from sdit_jax.data.sources import pictures

OFFLINE = ("mnist", "fashion_mnist", "cifar10")  # What `python -m sdit_jax.prepare` makes.


class Prepared(Examples):
    """A split, or a part of one such as `train[:1000]`, of NAME[/CONFIG][:VERSION] in a tensorflow-datasets folder.

    The features must hold "image", encoded or as uint8; "label" is read where it is a class or an integer, else all images are
    of one class. Raises InputError for what is not prepared there, prepared in another format, or damaged.
    """

    def __init__(self, name: str, split: str, directory: str = ""):
        import tensorflow_datasets as tfds  # A second, which only those who use it pay.

        folder = find(name, directory)
        self.name = f"tfds:{name} {split}"
        self._folder = folder
        try:
            builder: Any = tfds.builder_from_directory(folder)
        except Exception as error:  # Whatever a damaged or an old folder makes of it.
            raise InputError(f"{folder}: cannot be read ({_line(error)})") from None
        features = builder.info.features
        if "image" not in features:
            raise InputError(f"config.data.name: tfds:{name} has {', '.join(features)}, must have an image")
        encoded = isinstance(features["image"], tfds.features.Image)
        try:
            decoders = {"image": tfds.decode.SkipDecoding()} if encoded else None
            self._source = builder.as_data_source(split=split, decoders=decoders)
        except NotImplementedError:
            raise InputError(
                f"{folder}: prepared as {builder.info.file_format}, which only TensorFlow reads; "
                "prepare it with --file_format=array_record"
            ) from None
        except Exception as error:
            splits = ", ".join(builder.info.splits)
            raise InputError(
                f"config.data.split: found {split!r}, tfds:{name} has {splits}, and parts such as train[:1000] ({_line(error)})"
            ) from None
        self._channels = 1 if features["image"].shape[-1:] == (1,) else 3
        self.fingerprint = _fingerprint(folder, split)
        label = features["label"] if "label" in features else None
        raw = np.zeros(len(self._source), np.int64)
        if label is not None and label.shape == () and np.issubdtype(label.np_dtype, np.integer):
            raw = cache.kept("labels", (self.fingerprint,), self._read_labels)["labels"]
        named = isinstance(label, tfds.features.ClassLabel)
        self.num_classes = label.num_classes if named and label.num_classes else int(raw.max()) + 1
        self.labels = checked_labels(raw, self.name, self.num_classes)

    def _read_labels(self):
        places = range(len(self._source))
        chunks = (places[i : i + CHUNK] for i in places[::CHUNK])
        return {"labels": np.array([record["label"] for chunk in chunks for record in self._records(chunk)], np.int64)}

    def fetch(self, places: Sequence[int]) -> list[tuple[int, bytes | np.ndarray]]:
        return [(i, record["image"]) for i, record in zip(places, self._records(places), strict=True)]

    def decode(self, stored: tuple[int, bytes | np.ndarray]) -> np.ndarray:
        i, image = stored
        if isinstance(image, bytes):
            return pictures.decode(image, self._channels, f"{self._folder}, image {i} of {self.name}")
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] not in (1, 3):
            raise InputError(f"{self._folder}: found images of {image.dtype} {image.shape}, must be uint8 (H, W, 1 or 3)")
        return image

    def _records(self, places):
        try:
            records = self._source.__getitems__(list(places))  # A fraction of the time that one by one takes.
        except Exception as error:  # array_record raises a RuntimeError, protocol buffers their own.
            raise InputError(f"{self._folder}: damaged ({_line(error)})") from None
        if any(record["image"] is None for record in records):  # What a file that is cut short may give.
            raise InputError(f"{self._folder}: damaged (records are empty)")
        return records


def find(name: str, directory: str | Path) -> Path:
    """The folder of the asked or newest version of NAME[/CONFIG][:VERSION] in a tensorflow-datasets folder.

    That is by default TFDS_DATA_DIR or ~/tensorflow_datasets. Raises InputError where it is not prepared.
    """
    root = Path(directory) if str(directory) else default_root()
    if str(directory) and not root.is_dir():
        raise InputError(f"config.data.dir: found {str(directory)!r}, which is not a folder")
    path, _, version = name.partition(":")
    versions = sorted(
        (info.parent for info in (root / path).glob("*/dataset_info.json") if re.fullmatch(r"\d+\.\d+\.\d+", info.parent.name)),
        key=lambda folder: [int(part) for part in folder.name.split(".")],
    )
    found = [folder for folder in versions if version in ("", folder.name)]
    if found:
        return found[-1]
    there = [folder.name for folder in versions] or [
        info.parent.parent.name for info in (root / path).glob("*/*/dataset_info.json")
    ]
    if there:
        raise InputError(f"config.data.name: found 'tfds:{name}', {root / path} has {', '.join(sorted(set(there)))}")
    if path in OFFLINE:
        how = f"python -m sdit_jax.prepare {path}" + (f" --out={directory}" if str(directory) else "") + " makes it"
    else:
        how = "prepare it there with tensorflow-datasets, --file_format=array_record"
    raise InputError(f"config.data.name: tfds:{name} is not prepared in {root}; {how}")


def default_root() -> Path:
    """Where tensorflow-datasets keeps its data: TFDS_DATA_DIR, or ~/tensorflow_datasets."""
    return Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def _fingerprint(folder, split):
    digest = hashlib.sha256(f"{folder.resolve()} {split}".encode())
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        stat = path.stat()
        digest.update(f"{path.name} {stat.st_size} {stat.st_mtime_ns} {stat.st_ino}\n".encode())
    return digest.hexdigest()


def _line(error):
    return f"{type(error).__name__}: {error}".splitlines()[0]
