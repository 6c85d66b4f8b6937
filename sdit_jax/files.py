"""Folders that can be written, files that are there whole or not at all, and where what can be made again is kept."""

import fcntl
import json
import math
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sdit_jax.config import InputError


def cache_dir() -> Path:
    """Where what can be made again is kept: $SDIT_JAX_CACHE, by default ~/.cache/sdit_jax."""
    return Path(os.environ.get("SDIT_JAX_CACHE") or "~/.cache/sdit_jax").expanduser()


def make_folder(path: Path) -> None:
    """Makes the folder where it is missing. Raises InputError where it cannot be written."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise InputError(f"{path}: the folder cannot be written ({error.strerror})") from None


@contextmanager
def only_user(folder: Path, does: str) -> Iterator[None]:
    """Holds a folder for this process. Raises InputError where another one, which `does` something there, holds it."""
    path = folder / ".lock"
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{folder}: another process {does}") from None
        yield


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of `path` at the end; of a failure nothing is left, and `path` is as before."""
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text, whole or not at all. Raises InputError where the file cannot be written."""
    try:
        with whole(path) as partial:
            partial.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None


def write_json(path: Path, value: Any) -> None:
    """Writes plain values as JSON, which knows no number that is not finite: those are null. Raises as `write_text` does."""
    write_text(path, json.dumps(_finite(value), indent=2, allow_nan=False) + "\n")


def _finite(value):
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
