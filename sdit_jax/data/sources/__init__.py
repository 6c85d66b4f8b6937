"""Data sets by name, `NAME` or `NAME:REST`; where the name holds no folder or file, `config.data.dir` does.

| source | reads | splits |
|---|---|---|
| `digits` | handwritten digits, part of the package | train, test |
| `mnist[:DIR]`, `fashion_mnist[:DIR]`, `cifar10[:DIR]` | the original files (see `originals`) | train, test |
| `tfds:NAME[/CONFIG][:VERSION]` | array_record files of tensorflow-datasets (see `prepared`) | its own, and `train[:1000]` |
| `folder[:DIR]` | PNG, JPEG and WebP files (see `folder`) | train; the sub-folders where `train` and `test` are among them |
| `npz[:FILE]` | uint8 images as `arr_0` or `images`, with or without `labels` (see `arrays`) | train |
"""

import dataclasses
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from sdit_jax.data import transforms
from sdit_jax.data.datasets import Examples, Images
from sdit_jax.data.decoded import decoded
from sdit_jax.data.sources import arrays, folder, originals, prepared
from sdit_jax.errors import InputError, NoSuchSplit
from sdit_jax.files import as_path, check_local


def open_source(name: str, split: str, directory: str | Path) -> Images | Examples:
    """A split of a data set: Images where the files are arrays, Examples where each image is encoded.

    Raises InputError for an unknown source or split, and a missing, short or damaged file.
    """
    kind, _, rest = name.partition(":")
    if kind not in SOURCES:
        raise InputError(f"config.data.name: found {name!r}, allowed are {ALLOWED}")
    try:
        return SOURCES[kind](name, split, os.path.expanduser(rest), os.path.expanduser(directory))
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be read ({error.strerror})") from None


def load(
    name: str, split: str, directory: str | Path, size: int | None = None, channels: int | None = None, resize: str = "bilinear"
) -> Images:
    """A split of a data set in memory, optionally fitted to a size and channels (see `transforms.fit_one`).

    Raises InputError as `open_source` does, for channels that cannot fit and, without a size, for images of different shapes.
    """
    data = open_source(name, split, directory)
    if isinstance(data, Examples):
        return decoded(data, size, channels, resize)
    return dataclasses.replace(data, images=transforms.fit(data.images, size, channels, resize))


def without_place(name: str) -> str:
    """The name of a data set without the folder or file that it may hold."""
    kind = name.partition(":")[0]
    return name if kind == "tfds" else kind


def _digits(name, split, rest, directory):
    del directory
    if rest:
        raise InputError(f"config.data.name: found {name!r}, digits are part of the package, with nothing after a colon")
    _check_split(name, split)
    return originals.digits(split)


def _original(read, name, split, rest, directory):
    _check_split(name, split)
    return read(split, _place(name, rest, directory, "that holds the original files of " + name))


def _tfds(name, split, rest, directory):
    if not rest:
        raise InputError(f"config.data.name: found {name!r}, must be tfds:NAME, tfds:NAME/CONFIG or tfds:NAME:VERSION")
    _check_local("", directory)
    return prepared.Prepared(rest, split, directory)


def _folder(name, split, rest, directory):
    _check_local(rest, directory)
    return folder.Folder(_place(name, rest, directory, "of pictures"), split)


def _npz(name, split, rest, directory):
    if split != "train":
        raise NoSuchSplit(f"config.data.split: found {split!r}, {name} has train")
    if not (rest or directory):
        raise InputError("config.data.dir: empty; set it to the .npz file, or name that as npz:FILE")
    return arrays.read(as_path(rest or directory, f"config.data.{'name' if rest else 'dir'}"))


def _check_split(name, split):
    if split not in originals.SPLITS:
        raise NoSuchSplit(f"config.data.split: found {split!r}, {name} has {', '.join(originals.SPLITS)}")


def _check_local(rest, directory):
    """Raises InputError for a place in a bucket: these data are read piece by piece while training runs."""
    check_local(rest or directory, f"config.data.{'name' if rest else 'dir'}")


def _place(name, rest, directory, what):
    """The folder in a source's name, else the directory. Raises InputError where it is not a folder."""
    field, found = ("name", rest) if rest else ("dir", directory)
    if not found:
        raise InputError(f"config.data.dir: empty; set it to the folder {what}")
    path = as_path(found, f"config.data.{field}")
    if not path.is_dir():
        raise InputError(f"config.data.{field}: found {name if rest else found!r}, which is not a folder")
    return path


# (whole name, split, text after the colon, directory) -> data set.
SOURCES: dict[str, Callable[[str, str, str, str], Images | Examples]] = {
    "digits": _digits,
    "mnist": partial(_original, originals.idx_pair),
    "fashion_mnist": partial(_original, originals.idx_pair),
    "cifar10": partial(_original, originals.cifar10),
    "tfds": _tfds,
    "folder": _folder,
    "npz": _npz,
}
ALLOWED = "digits, mnist[:DIR], fashion_mnist[:DIR], cifar10[:DIR], tfds:NAME[/CONFIG][:VERSION], folder[:DIR], npz[:FILE]"
