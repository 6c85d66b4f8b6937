"""A person's own pictures, in a folder or one folder per class."""

import hashlib
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from sdit_jax.config import InputError
from sdit_jax.data import cache, pictures
from sdit_jax.data.datasets import BrokenImage, Examples

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
        splits = _subfolders(root)
        if not {"train", "test"} <= set(splits):
            splits = ["train"]
            part = train = root
        else:
            part, train = root / split, root / "train"
        if split not in splits:
            raise InputError(f"config.data.split: found {split!r}, {root} has {', '.join(splits)}")
        self.name = str(part)
        classes, found = _subfolders(train), _subfolders(part)
        unknown = sorted(set(found) - set(classes))
        if unknown:
            raise InputError(f"{part / unknown[0]}: a class that is not in {train}; there are {', '.join(classes) or 'none'}")
        files, labels = [], []
        for label, place in enumerate(part / name for name in classes) if classes else [(0, part)]:
            here = _pictures(place)
            files += here
            labels += [label] * len(here)
        stray = next((path for path in _files(part) if classes), None)
        if stray:
            raise InputError(f"{stray}: beside the folders of classes ({', '.join(classes)}), must be in one of them")
        if not files:
            raise InputError(f"{part}: holds no images ({', '.join(pictures.SUFFIXES)})")
        self.num_classes = max(1, len(classes))
        self.fingerprint = _fingerprint(part, files, labels)

        kinds = cache.kept("scan", (self.fingerprint,), lambda: {"kinds": _kinds(files)})["kinds"]
        for i in np.flatnonzero(kinds == BROKEN):
            log.warning("%s: not a picture that can be read", files[i])
        sound = np.flatnonzero(kinds != BROKEN)
        if not len(sound):
            raise InputError(f"{part}: none of its {len(files)} images can be read")
        self.skipped = len(files) - len(sound)
        self._files, self._labels = [files[i] for i in sound], np.array(labels, np.int32)[sound]
        self._channels = 3 if (kinds == COLOUR).any() else 1

    @property
    def labels(self) -> np.ndarray:
        return self._labels

    def __len__(self) -> int:
        return len(self._files)

    def fetch(self, places: Sequence[int]) -> list[Path]:
        return [self._files[i] for i in places]

    def decode(self, stored: Path) -> np.ndarray:
        return pictures.decode(stored, self._channels)


def _subfolders(folder):
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))


def _files(folder):
    """The pictures that lie in a folder itself."""
    names = (entry.name for entry in os.scandir(folder) if entry.is_file())
    return sorted(Path(folder, name) for name in names if _is_picture(name))


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
    digest = hashlib.sha256()
    for path, label in zip(files, labels, strict=True):
        stat = path.stat()
        digest.update(f"{path.relative_to(root)} {label} {stat.st_size} {stat.st_mtime_ns}\n".encode())
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
