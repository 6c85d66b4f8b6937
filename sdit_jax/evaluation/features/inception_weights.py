"""The weights of the Inception network of FID: fetched once, or a file of the user's, read into our variables."""

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
import pooch
from flax.traverse_util import flatten_dict, unflatten_dict

from sdit_jax import files
from sdit_jax.config import InputError
from sdit_jax.evaluation.features.inception import SIZE, Inception

URL = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
# Ours -> pytorch-fid's, the last part of a name.
LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def fetch() -> Path:
    """The file of pytorch-fid in the cache folder, downloaded (91 MB) where it is not there; its sha256 is always checked.

    Raises InputError where that fails, as it does offline.
    """
    folder = files.cache_dir() / "weights"
    files.make_folder(folder)
    try:
        return Path(pooch.retrieve(URL, f"sha256:{SHA256}", URL.rpartition("/")[2], folder, progressbar=True))
    except (OSError, ValueError) as error:
        reason = type(error).__name__ if isinstance(error, OSError) else f"found another file, its sha256 is not {SHA256}"
        raise InputError(f"--inception: empty, and {URL} cannot be fetched ({reason}); use --inception=FILE") from None


def load(path: str | Path) -> tuple[dict, str]:
    """(variables, sha256) of the weights in a file, ready for `Inception().apply(variables, images)`.

    Reads pytorch-fid's `.pth` (needs the `torch` extra) and `.npz` with the same names. Files with another sum than SHA256 are
    read too: the sum belongs to the protocol of every number made with them. Raises InputError that names the file.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    readers = {".npz": _read_npz, ".pth": _read_pth, ".pt": _read_pth}
    if path.suffix not in readers:
        raise InputError(f"{path}: found suffix {path.suffix!r}, allowed are {', '.join(readers)}")
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        state = readers[path.suffix](path)
    except InputError:
        raise
    except Exception as error:  # Every library raises its own kind for a damaged file.
        raise InputError(f"{path}: damaged or not weights ({type(error).__name__})") from None  # Theirs advise to unpickle.
    try:
        return convert(state), digest
    except InputError as error:
        raise InputError(f"{path}: not the Inception network of FID, {error}") from None


def _read_npz(path):
    with path.open("rb") as stream, np.load(stream) as file:
        return {name: file[name] for name in file.files}


def _read_pth(path):
    try:
        import torch
    except ImportError:
        raise InputError(f"{path}: reading PyTorch files needs the torch extra: pip install 'sdit_jax[torch]'") from None
    stored = torch.load(path, map_location="cpu", weights_only=True)
    return {name: tensor.float().numpy() for name, tensor in stored.items()}


def convert(state_dict: Mapping[str, np.ndarray]) -> dict:
    """Arrays under pytorch-fid's names as the variables of `Inception`, float32; names beyond those are left out.

    Raises InputError that names the array which is missing, has another shape, or is not all finite numbers.
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
