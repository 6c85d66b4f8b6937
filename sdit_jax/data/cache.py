"""Memoized arrays: files in the cache directory, named by a hash of all that their arrays depend on."""

import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sdit_jax import files

log = logging.getLogger(__name__)
Arrays = dict[str, np.ndarray]


def memoized(kind: str, words: tuple, make: Callable[[], Arrays], agree: Callable[[bool], bool] = bool) -> Arrays:
    """`make()`, or what it returned for the same kind and words before.

    A damaged file is logged and made again; a file that cannot be written is logged. `agree` decides by whether there is one:
    `sharding.agreement.all_of` where all processes `make` together.
    """
    name = hashlib.sha256(json.dumps([kind, *words]).encode()).hexdigest()[:32]
    path = files.cache_dir() / "data" / f"{kind}-{name}.npz"
    arrays = read_arrays(path)
    if not agree(arrays is not None) or arrays is None:
        arrays = make()
        try:
            write_arrays(path, arrays)
        except OSError as error:
            log.warning("%s: cannot be written (%s), so that this will be done again", path, error.strerror)
    return arrays


def read_arrays(path: Path) -> Arrays | None:
    """The arrays of a file, checksums verified; None where there is none or, with a warning, a damaged one."""
    if not path.exists():
        return None
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except Exception as error:  # numpy, zipfile and zlib raise many kinds for a damaged file.
        log.warning("%s: damaged (%s), made again", path, type(error).__name__)
        return None


def write_arrays(path: Path, arrays: Arrays) -> None:
    """Writes a file atomically, also where several processes write it at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.atomic_write(path) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
