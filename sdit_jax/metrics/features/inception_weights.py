"""Weights of the Inception network of FID: downloaded once or read from a file, and converted to flax variables."""

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
import pooch
from flax.traverse_util import flatten_dict, unflatten_dict

from sdit_jax import files
from sdit_jax.errors import InputError
from sdit_jax.metrics.features.inception import SIZE, Inception

URL = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
# Last part of a name: flax -> pytorch-fid.
LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def fetch(field: str = "inception") -> Path:
    """The path of pytorch-fid's file (91 MB) in the cache folder, downloaded if absent; its sha256 is always checked.

    Raises InputError, with `field` in the message, if the download fails.
    """
    folder = files.cache_dir() / "weights"
    files.make_folder(folder)
    try:
        return Path(pooch.retrieve(URL, f"sha256:{SHA256}", URL.rpartition("/")[2], folder, progressbar=True))
    except (OSError, ValueError) as error:
        reason = type(error).__name__ if isinstance(error, OSError) else f"found another file, its sha256 is not {SHA256}"
        raise InputError(f"{field}: empty, and {URL} cannot be fetched ({reason}); set it to a file") from None


def load(path: str | Path) -> tuple[dict, str]:
    """(variables, sha256) of the weights in a file, for `Inception().apply(variables, images)`.

    Reads pytorch-fid's `.pth` (needs the `torch` extra) and `.npz` with the same names. Files with another sha256 than SHA256
    are read too: every result carries the sha256 of its weights. Raises InputError that names the file.
    """
    path = Path(path)
    state = files.read_state_dict(path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    try:
        return convert(state), digest
    except InputError as error:
        raise InputError(f"{path}: not the Inception network of FID, {error}") from None


def convert(state_dict: Mapping[str, np.ndarray]) -> dict:
    """Variables of `Inception`, float32, from arrays with pytorch-fid's names; other names are ignored.

    Raises InputError that names an array which is missing, has another shape, or is not finite.
    """
    variables = {}
    for path, shape in _shapes().items():
        *parents, leaf = path[1:]
        name = ".".join((*parents, LEAVES[leaf]))
        if name not in state_dict:
            raise InputError(f"{name} is missing")
        array = np.asarray(state_dict[name])
        expected = shape if leaf != "kernel" else (*shape[:-3:-1], *shape[:-2])  # (out, in, h, w) for (h, w, in, out).
        if array.shape != expected or array.dtype.kind != "f":
            raise InputError(f"{name}: found {array.dtype} of shape {array.shape}, expected floats of {expected}")
        if not np.isfinite(array).all():
            raise InputError(f"{name} is not finite")
        array = array if leaf != "kernel" else np.moveaxis(array, (1, 0), (-2, -1))
        variables[path] = np.ascontiguousarray(array, np.float32)
    return unflatten_dict(variables)


@functools.cache
def _shapes():
    image = np.zeros((1, SIZE, SIZE, 3), np.float32)
    variables = jax.eval_shape(lambda: Inception().init(jax.random.key(0), image))
    return {path: leaf.shape for path, leaf in flatten_dict(variables).items()}  # pyright: ignore[reportAttributeAccessIssue]
