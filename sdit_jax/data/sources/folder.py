"""A person's own pictures, in a folder or one folder per class."""

import hashlib
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from sdit_jax.config import InputError, NoSuchSplit
from sdit_jax.data import cache
from sdit_jax.data.datasets import BrokenImage, Examples
from sdit_jax.data.sources import pictures

log = logging.getLogger(__name__)
GREY, COLOUR, BROKEN = 0, 1, 2


class Folder(Examples):
    """All PNG, JPEG and WebP files below a folder, in the order of their paths; grey if all are, else RGB.

    Sub-folders are classes in the order of their names; without any there is one class. Where `train` and `test` are both
    sub-folders, sub-folders are splits, and the classes are those of `train`; else there is only the split "train". What
    starts with a dot is not looked at. Raises InputError for another split, for an image beside the folders of classes, and
    where no image can be read; files that cannot be opened are named in a warning and left out.
    """

    def __init__(self, root: Path, split: str):
        part, classes = _split(root, split)
        files, labels = _listed(part, classes)
        self.name, self.num_classes = str(part), max(1, len(classes))
        self.fingerprint = _fingerprint(part, files, labels)
        kinds = cache.kept("scan", (self.fingerprint,), lambda: {"kinds": _kinds(files)})["kinds"]
        for i in np.flatnonzero(kinds == BROKEN):
            log.warning("%s: not a picture that can be read", files[i])
        sound = np.flatnonzero(kinds != BROKEN)
        if not len(sound):
            raise InputError(f"{part}: none of its {len(files)} images can be read")
        self.skipped = len(files) - len(sound)
        self._files, self.labels = [files[i] for i in sound], np.array(labels, np.int32)[sound]
        self._channels = 3 if (kinds == COLOUR).any() else 1

    def fetch(self, places: Sequence[int]) -> list[Path]:
        return [self._files[i] for i in places]

    def decode(self, stored: Path) -> np.ndarray:
        return pictures.decode(stored, self._channels)


def _split(root, split):
    """The folder of a split and the names of the classes."""
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
    """The files of a split, class by class, and their labels."""
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
    """The pictures below a folder, at any depth."""
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


def _kinds(files):
    """GREY, COLOUR or BROKEN for each file, by its header."""

    def kind(path):
        try:
            return COLOUR if pictures.is_colour(path) else GREY
        except BrokenImage:
            return BROKEN

    with ThreadPoolExecutor() as pool:
        return np.fromiter(pool.map(kind, files), np.int8, len(files))
