"""Paths on this machine and on a store, folders, locks, atomic writes, the cache folder, and files of weights."""

import errno
import fcntl
import hashlib
import importlib.util
import json
import logging
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

ADDRESS = re.compile(r"([A-Za-z][\w+.-]+):/+(.*)")
LOCKLESS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
log = logging.getLogger(__name__)


def cache_dir() -> Path:
    """The folder of downloads, compiled programs and memoized arrays: $SDIT_JAX_CACHE, by default ~/.cache/sdit_jax."""
    return Path(os.environ.get("SDIT_JAX_CACHE") or "~/.cache/sdit_jax").expanduser()


def as_path(place: str | Path, field: str = "folder") -> Path:
    """A path of this machine, or of a bucket for gs://BUCKET/FOLDER, the one kind of store that Orbax writes checkpoints to.

    The latter is an `epath.Path`, which has the methods of a `Path` that this package uses. Raises InputError, with the name of
    the field, for an address of another kind, and where the gcs extra is missing.
    """
    address = ADDRESS.match(str(place))
    if address is None:
        return Path(place)
    scheme, name = address.groups()
    if scheme != "gs" or not name:
        raise InputError(f"{field}: found {str(place)!r}, must be a path or gs://BUCKET/FOLDER; mount other stores as folders")
    if importlib.util.find_spec("gcsfs") is None:
        raise InputError(f"{field}: found {str(place)!r}, which needs the gcs extra: pip install 'sdit_jax[gcs]'")
    from etils import epath
    from fsspec.config import conf

    conf.setdefault("gcs", {})["use_listings_cache"] = False  # Tensorstore and other processes write there too.
    path: Any = epath.Path(f"gs://{name}")
    return path


def on_store(path: Path) -> bool:
    """Whether a path is one of a bucket."""
    return "://" in str(path)


def check_local(place: str | Path, field: str) -> None:
    """Raises InputError for an address such as gs://bucket/run, also where `Path` has dropped a slash of it."""
    if ADDRESS.match(str(place)):
        raise InputError(f"{field}: found {str(place)!r}, must be a path; mount the bucket, see docs/clusters.md")


def make_folder(path: Path) -> None:
    """Makes a folder unless it exists. Raises InputError where it cannot be written."""
    probe = path / f".{uuid.uuid4().hex}"
    try:
        if not on_store(path):  # Folders there are parts of names, and gcsfs would make a bucket that is missing.
            check_local(path, "folder")
            path.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except InputError:
        raise
    except Exception as error:  # Those of a store are of many kinds.
        raise InputError(f"{path}: the folder cannot be written ({_reason(error)})") from None


def _reason(error):
    return getattr(error, "strerror", None) or f"{type(error).__name__}: {error}".splitlines()[0]


@contextmanager
def exclusive(folder: Path, does: str) -> Iterator[None]:
    """Locks a folder for this process. Raises InputError if another process has the lock; `does` is the verb of its message.

    The operating system releases the lock when the process ends, also when it is killed. A store has no such locks: there it
    keeps out only the processes of this machine. A file system without locks is logged.
    """
    path = folder / ".lock"
    if on_store(folder):
        path = cache_dir() / "locks" / hashlib.sha256(str(folder).encode()).hexdigest()
        path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{folder}: another process {does}") from None
        except OSError as error:  # Some network file systems.
            if error.errno not in LOCKLESS:
                raise
            log.warning("%s: its file system has no locks (%s); see that no other process %s", folder, error.strerror, does)
        yield


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a temporary path to write to, and renames it to `path` at the end. After an error `path` is as it was before.

    The temporary path is one of this machine, from which an object is sent to a store at once: there it has all of its bytes
    or does not exist. An error of the operating system, such as a full disk, names `path`.
    """
    if on_store(path):
        with tempfile.TemporaryDirectory() as folder:
            yield (partial := Path(folder, path.name))
            path.write_bytes(partial.read_bytes())
        return
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        number = error.errno or errno.ENOSPC  # numpy has no number for a write that fell short.
        raise OSError(number, os.strerror(number), str(path)) from None
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def local_copy(path: Path) -> Iterator[Path]:
    """Yields the path itself, or for one of a store that of a temporary copy, for readers that take no other file."""
    if not on_store(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, path.name)
        copy.write_bytes(path.read_bytes())
        yield copy


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically. Raises InputError where the file cannot be written."""
    try:
        with atomic_write(path) as partial:
            partial.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({_reason(error)})") from None


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
