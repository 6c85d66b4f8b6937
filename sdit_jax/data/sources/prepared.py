"""Data sets prepared by tensorflow-datasets as array_record files, read without TensorFlow."""

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sdit_jax.data import cache, pictures
from sdit_jax.data.datasets import CHUNK, Examples, checked_labels
from sdit_jax.errors import InputError

OFFLINE = ("mnist", "fashion_mnist", "cifar10")  # Made by `sdit prepare`.
SAMPLES, BLOCK = 256, 4096  # Of a file, and bytes of each: all of a small one, a little of one of gigabytes.


class Prepared(Examples):
    """A split of NAME[/CONFIG][:VERSION] in a tensorflow-datasets folder, or a part such as `train[:1000]`.

    Reads the feature "image", encoded or uint8, and "label" if it is a class or an integer; without it there is one class.
    Raises InputError for a data set that is not prepared there, prepared in another format, or damaged.
    """

    def __init__(self, name: str, split: str, directory: str = ""):
        import tensorflow_datasets as tfds  # Takes about a second; only this source needs it.

        folder = find(name, directory)
        self.name = f"tfds:{name} {split}"
        self._folder = folder
        try:
            builder: Any = tfds.builder_from_directory(folder)
        except Exception as error:  # A damaged or old folder raises many kinds.
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
                "prepare it with the file format array_record"
            ) from None
        except Exception as error:
            splits = ", ".join(builder.info.splits)
            raise InputError(
                f"config.data.split: found {split!r}, tfds:{name} has {splits}, and parts such as train[:1000] ({_line(error)})"
            ) from None
        self._channels = 1 if features["image"].shape[-1:] == (1,) else 3
        self.fingerprint, self.contents = _fingerprint(folder, split), _contents(folder, split)
        label = features["label"] if "label" in features else None  # noqa: SIM401 (a FeaturesDict has no get.)
        raw = np.zeros(len(self._source), np.int64)
        if label is not None and label.shape == () and np.issubdtype(label.np_dtype, np.integer):
            raw = cache.memoized("labels", (self.fingerprint,), self._read_labels)["labels"]
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
            records = self._source.__getitems__(list(places))  # Much faster than one by one.
        except Exception as error:  # array_record raises a RuntimeError, protocol buffers their own.
            raise InputError(f"{self._folder}: damaged ({_line(error)})") from None
        if any(record["image"] is None for record in records):  # A truncated file can give these.
            raise InputError(f"{self._folder}: damaged (records are empty)")
        return records


def find(name: str, directory: str | Path) -> Path:
    """The folder of NAME[/CONFIG][:VERSION], by default its newest version, in a tensorflow-datasets folder.

    An empty `directory` stands for `default_root`. Raises InputError for a data set that is not prepared.
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
        how = f"sdit prepare {path} makes it" + (f", with output folder {directory}" if str(directory) else "")
    else:
        how = "prepare it there with tensorflow-datasets in the file format array_record"
    raise InputError(f"config.data.name: tfds:{name} is not prepared in {root}; {how}")


def default_root() -> Path:
    """The folder of tensorflow-datasets: TFDS_DATA_DIR, or ~/tensorflow_datasets."""
    return Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def _fingerprint(folder, split):
    digest = hashlib.sha256(f"{folder.resolve()} {split}".encode())
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        stat = path.stat()
        digest.update(f"{path.name} {stat.st_size} {stat.st_mtime_ns} {stat.st_ino}\n".encode())
    return digest.hexdigest()


def _contents(folder, split):
    """Of the files of all splits, as a split may be a part of one: a line for names and sizes, and one for samples of bytes."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    sizes, samples = hashlib.sha256(split.encode()), hashlib.sha256()
    for path in files:
        size = path.stat().st_size
        sizes.update(f"\n{path.name} {size}".encode())
        with path.open("rb") as file:
            for start in range(0, size, max(BLOCK, size // SAMPLES)):
                file.seek(start)
                samples.update(file.read(BLOCK))
    return f"{sizes.hexdigest()}\n{samples.hexdigest()}"


def _line(error):
    return f"{type(error).__name__}: {error}".splitlines()[0]
