"""Weights in one safetensors file: arrays under their flax names, and in the header what they are weights of.

| metadata | |
|---|---|
| `format` | "sdit_jax 1" |
| `config` | the resolved configuration as JSON, `portable` |
| `weights` | "ema" or "raw" |
| `step` | of training |

The file format: https://huggingface.co/docs/safetensors
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict
from safetensors import safe_open
from safetensors.numpy import save

from sdit_jax import config as fields
from sdit_jax.config import Config, InputError
from sdit_jax.data.sources import without_place
from sdit_jax.files import whole
from sdit_jax.models import build, initial_params

FORMAT = "sdit_jax 1"
SUFFIX = ".safetensors"
DTYPES = ("float32", "bfloat16", "float16")
PRETRAINED = Path(__file__).parents[1] / "pretrained"


def find(place: str | Path) -> Path | None:
    """The file meant by `pretrained:NAME`, shipped in the package, or by a path that ends in .safetensors; None for others.

    Raises InputError for a name that is not shipped.
    """
    kind, colon, name = str(place).partition(":")
    if kind + colon != "pretrained:":
        return Path(place) if str(place).endswith(SUFFIX) else None
    shipped = sorted(path.stem for path in PRETRAINED.glob(f"*{SUFFIX}"))
    if name not in shipped:
        allowed = ", ".join(f"pretrained:{name}" for name in shipped)
        raise InputError(f"--workdir: found {place!r}, " + (f"allowed are {allowed}" if allowed else "none are shipped yet"))
    return PRETRAINED / f"{name}{SUFFIX}"


def portable(config: Config) -> Config:
    """The configuration without the places of one machine, which say nothing of the network."""
    config = ConfigDict(config.to_dict())
    config.data.name = without_place(config.data.name)
    config.data.dir = config.evaluation.classifier = config.evaluation.inception = ""
    return config


def write(path: Path, config: Config, params: Any, *, weights: str, step: int, dtype: str) -> None:
    """Writes weights rounded to one of DTYPES, whole or not at all; the same weights give the same bytes.

    Raises InputError for a number that is not finite in that type.
    """
    arrays = {name: _rounded(np.asarray(leaf), name, dtype) for name, leaf in flatten_dict(params, sep="/").items()}
    text = json.dumps(portable(config).to_dict(), sort_keys=True)
    file = save(arrays, {"config": text, "format": FORMAT, "step": str(step), "weights": weights})
    with whole(path) as partial:
        partial.write_bytes(_in_order(file))


def _rounded(array, name, dtype):
    with np.errstate(over="ignore"):
        rounded = array.astype(jnp.dtype(dtype), order="C")
    if not np.isfinite(rounded).all():
        raise InputError(f"--dtype: found {dtype}, in which {name} is not finite (up to {np.abs(array).max():.3g})")
    return rounded


def _in_order(file: bytes) -> bytes:
    """The same file with its metadata in the order of the alphabet; the library's is another at every call."""
    end = 8 + int.from_bytes(file[:8], "little")
    header = json.loads(file[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + file[end:]


def read(path: Path, weights: str | None = None) -> tuple[Config, str, int, Any]:
    """(configuration, "ema" or "raw", step, float32 parameters) of a file, which may be older than some fields.

    Raises InputError for a file that is not there, is damaged, was not written here, holds arrays that do not fit its network,
    or other weights than were asked for.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with safe_open(path, "np") as file:
            told, arrays = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # The library raises many kinds, for a damaged file and for types that numpy does not have.
        raise InputError(f"{path}: damaged or not safetensors ({error})") from None
    if told.get("format") != FORMAT:
        raise InputError(f"{path}: found format {told.get('format')!r}, must be {FORMAT!r}, as sdit_jax.export writes it")
    which, step = told.get("weights"), told.get("step", "")
    if which not in ("ema", "raw") or not (step.isascii() and step.isdigit()):
        raise InputError(f"{path}: damaged, found {which!r} weights of step {step!r}")
    if weights not in (None, which):
        raise InputError(f"--weights: found {weights!r}, but {path} holds {which!r}")
    config = fields.with_defaults(fields.from_json(told.get("config", ""), path))
    try:
        fields.validate(config)
        model = build(config.model)
        params = _fitted(arrays, jax.eval_shape(lambda: initial_params(model, 0)))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return config, which, int(step), params


def _fitted(arrays: Mapping[str, np.ndarray], like: Any) -> Any:
    """The arrays as parameters laid out as `like`. Raises InputError for one that is missing, left over, or does not fit."""
    wanted = dict[str, Any](flatten_dict(like, sep="/"))
    for name in sorted({*wanted, *arrays}):
        if name not in wanted or name not in arrays:
            raise InputError(f"{name}: " + ("missing" if name in wanted else "the network has no such array"))
        found, shape = arrays[name], wanted[name].shape
        if found.shape != shape or found.dtype.name not in DTYPES:
            raise InputError(f"{name}: found {found.dtype} of {found.shape}, must be one of {', '.join(DTYPES)} of {shape}")
        if not np.isfinite(found).all():
            raise InputError(f"{name}: found a number that is not finite")
    return unflatten_dict({name: jnp.asarray(array, jnp.float32) for name, array in arrays.items()}, sep="/")
