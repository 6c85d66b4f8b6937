"""Folders, locks, atomic writes, the cache folder, and files of weights."""

import fcntl
import json
import math
import os
import re
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from sdit_jax.errors import InputError


def cache_dir() -> Path:
    """The folder of downloads, compiled programs and memoized arrays: $SDIT_JAX_CACHE, by default ~/.cache/sdit_jax."""
    return Path(os.environ.get("SDIT_JAX_CACHE") or "~/.cache/sdit_jax").expanduser()


def make_folder(path: Path) -> None:
    """Makes a folder unless it exists. Raises InputError where it cannot be written, and for an address such as gs://bucket."""
    check_local(path, "folder")
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise InputError(f"{path}: the folder cannot be written ({error.strerror})") from None


def check_local(path: str | Path, field: str) -> None:
    """Raises InputError for an address such as gs://bucket/run, also where `Path` has dropped a slash of it."""
    if re.match(r"[A-Za-z][\w+.-]+:/", str(path)):
        raise InputError(f"{field}: found {str(path)!r}, must be a path; mount the bucket, see docs/clusters.md")


@contextmanager
def exclusive(folder: Path, does: str) -> Iterator[None]:
    """Locks a folder for this process. Raises InputError if another process has the lock; `does` is the verb of its message.

    The operating system releases the lock when the process ends, also when it is killed.
    """
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{folder}: another process {does}") from None
        yield


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a temporary path to write to, and renames it to `path` at the end. After an error `path` is as it was before."""
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically. Raises InputError where the file cannot be written."""
    try:
        with atomic_write(path) as partial:
            partial.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None


def write_json(path: Path, value: Any) -> None:
    """Writes plain values as JSON, numbers that are not finite as null. Raises InputError where the file cannot be written."""
    write_text(path, json.dumps(_finite(value), indent=2, allow_nan=False) + "\n")


def _finite(value):
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_state_dict(path: Path, *, prefix: str = "", entry: str = "") -> dict[str, np.ndarray]:
    """Arrays by name in a file of weights: .npz, or PyTorch's .pt and .pth, which need the torch extra.

    Of an .npz file these are the arrays whose names start with `prefix`, under the rest of the name; of a PyTorch file the
    tensors, as float32, of the state dict stored under `entry`, or of the file itself. Objects other than arrays are refused.
    Raises InputError that names the file.
    """
    readers = {".npz": _read_npz, ".pth": _read_torch, ".pt": _read_torch}
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.suffix not in readers:
        raise InputError(f"{path}: found suffix {path.suffix!r}, allowed are {', '.join(readers)}")
    try:
        return readers[path.suffix](path, prefix, entry)
    except ImportError:
        raise InputError(f"{path}: reading PyTorch files needs the torch extra: pip install 'sdit_jax[torch]'") from None
    except Exception as error:  # Exceptions for damaged files differ between libraries.
        raise InputError(f"{path}: damaged or not weights ({type(error).__name__})") from None


def _read_npz(path, prefix, _):
    with path.open("rb") as stream, np.load(stream) as file:
        return {name.removeprefix(prefix): file[name] for name in file.files if name.startswith(prefix)}


def _read_torch(path, _, entry):
    import torch

    stored = torch.load(path, map_location="cpu", weights_only=True)
    return {name: tensor.float().numpy() for name, tensor in (stored[entry] if entry else stored).items()}
