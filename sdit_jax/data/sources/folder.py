"""Image files in a folder, or in one folder per class."""

import hashlib
import logging
import os
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from sdit_jax.data import cache, pictures
from sdit_jax.data.datasets import Examples
from sdit_jax.errors import BrokenImage, InputError, NoSuchSplit
from sdit_jax.progress import progress

log = logging.getLogger(__name__)
GREY, COLOUR, BROKEN = 0, 1, 2


class Folder(Examples):
    """All PNG, JPEG and WebP files below a folder, ordered by path; grey if all are, else RGB.

    Sub-folders are classes, ordered by name; without any there is one class. If `train` and `test` are among the sub-folders,
    they are splits instead, with the classes of `train`; otherwise the only split is "train". Names that start with a dot are
    ignored. Files that cannot be read are logged and left out. Raises InputError for an unknown split, an image next to class
    folders, and a folder without a readable image.
    """

    def __init__(self, root: Path, split: str):
        part, classes = _split(root, split)
        files, labels = _listed(part, classes)
        self.name, self.num_classes = str(part), max(1, len(classes))
        self.fingerprint = _fingerprint(part, files, labels)
        read = cache.memoized("pictures", (self.fingerprint, "kinds and bytes"), lambda: _read(files, self.name))
        kinds, self.contents = read["kinds"], _contents(part, files, labels, read["bytes"])
        for i in np.flatnonzero(kinds == BROKEN):
            log.warning("%s: not a picture that can be read", files[i])
        sound = np.flatnonzero(kinds != BROKEN)
        if not len(sound):
            raise InputError(f"{part}: none of its {len(files)} images can be read")
        if len(sound) < len(files):
            log.warning("%s: %d of %d files are left out, they cannot be read", part, len(files) - len(sound), len(files))
        self._files, self.labels = [files[i] for i in sound], np.array(labels, np.int32)[sound]
        self._channels = 3 if (kinds == COLOUR).any() else 1

    def fetch(self, places: Sequence[int]) -> list[Path]:
        return [self._files[i] for i in places]

    def decode(self, stored: Path) -> np.ndarray:
        return pictures.decode(stored, self._channels)


def _split(root, split):
    """The folder of a split, and the names of the classes."""
    splits = _subfolders(root)
    if {"train", "test"} <= set(splits):
        part, train = root / split, root / "train"
    else:
        splits, part, train = ["train"], root, root
    if split not in splits:
        raise NoSuchSplit(f"config.data.split: found {split!r}, {root} has {', '.join(splits)}")
    classes = _subfolders(train)
    unknown = next((name for name in _subfolders(part) if name not in classes), None)
    if unknown:
        raise InputError(f"{part / unknown}: a class that is not in {train}; there are {', '.join(classes) or 'none'}")
    return part, classes


def _listed(part, classes):
    """The files of a split, class by class, with their labels."""
    files, labels = [], []
    for label, place in enumerate([part / name for name in classes] or [part]):
        here = _pictures(place)
        files += here
        labels += [label] * len(here)
    stray = sorted(entry.name for entry in os.scandir(part) if entry.is_file() and _is_picture(entry.name)) if classes else []
    if stray:
        raise InputError(f"{part / stray[0]}: beside the folders of classes ({', '.join(classes)}), must be in one of them")
    if not files:
        raise InputError(f"{part}: holds no images ({', '.join(pictures.SUFFIXES)})")
    return files, labels


def _subfolders(folder):
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))


def _pictures(folder):
    """The image files below a folder, at any depth."""
    found = []
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(place, name) for name in names if _is_picture(name)]
    return sorted(found)


def _is_picture(name):
    return name.lower().endswith(pictures.SUFFIXES) and not name.startswith(".")


def _fingerprint(root, files, labels):
    digest = hashlib.sha256(str(root.resolve()).encode())
    for path, label in zip(files, labels, strict=True):
        stat = path.stat()
        digest.update(f"{path.relative_to(root)} {label} {stat.st_size} {stat.st_mtime_ns} {stat.st_ino}\n".encode())
    return digest.hexdigest()


def _contents(root, files, labels, sums):
    """A line for names, sizes and labels, all that runs of earlier versions kept, and one for the bytes."""
    lines = (f"{path.relative_to(root)} {label} {path.stat().st_size}\n" for path, label in zip(files, labels, strict=True))
    return "\n".join(hashlib.sha256(data).hexdigest() for data in ("".join(lines).encode(), sums))


def _read(files, name):
    """GREY, COLOUR or BROKEN for each file, and its checksum. All are read once, so that every loader leaves out the same."""

    def read(path):
        try:
            data = path.read_bytes()
            return zlib.crc32(data), COLOUR if pictures.is_colour(data, path) else GREY
        except (OSError, BrokenImage):
            return 0, BROKEN

    with ThreadPoolExecutor() as pool:
        found = list(progress(pool.map(read, files), f"{name}: reading", len(files), "images"))
    sums, kinds = zip(*found, strict=True)
    return {"kinds": np.array(kinds, np.int8), "bytes": np.array(sums, np.uint32)}
