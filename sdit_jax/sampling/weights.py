"""Weights in one safetensors file: arrays under their flax names, and in the header the run that they are of.

| metadata | |
|---|---|
| `format` | "sdit_jax 1" |
| `config` | the configuration as JSON, `portable` |
| `weights` | "ema" or "raw" |
| `step` | of training |
| `few_calls` | how to draw images in few network calls, as JSON (see `sampling.few_calls`), where that is known |
| `sha256` | of all else in the file; one that was written before there were hashes has none |

Parameters are named by their path, "head/kernel"; running statistics by their collection too, "batch_stats/norm/mean".
The file format: https://huggingface.co/docs/safetensors
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict
from safetensors import safe_open
from safetensors.numpy import save

from sdit_jax import config as fields
from sdit_jax.config import Config
from sdit_jax.data.sources import without_place
from sdit_jax.errors import InputError
from sdit_jax.files import as_path, atomic_write, local_copy
from sdit_jax.models import build, initial_variables
from sdit_jax.sampling import few_calls as few
from sdit_jax.sampling.how import Sampling

FORMAT = "sdit_jax 1"
METADATA = {"config", "few_calls", "format", "step", "weights"}  # And the hash of these and the arrays.
SUFFIX = ".safetensors"
DTYPES = ("float32", "bfloat16", "float16")
PRETRAINED = Path(__file__).parents[1] / "pretrained"
RENAMED = {"mnist_spike_driven": "mnist", "fashion_mnist_spike_driven": "fashion_mnist"}  # In the configurations of older runs.


def find(place: str | Path) -> Path | None:
    """The file of `pretrained:NAME`, shipped in the package, or of a path that ends in .safetensors; None for other places.

    Raises InputError for a name that is not shipped.
    """
    kind, colon, name = str(place).partition(":")
    if kind + colon != "pretrained:":
        return as_path(place) if str(place).endswith(SUFFIX) else None
    name, shipped = RENAMED.get(name, name), sorted(path.stem for path in PRETRAINED.glob(f"*{SUFFIX}"))
    if name not in shipped:
        allowed = ", ".join(f"pretrained:{name}" for name in shipped)
        raise InputError(f"{place}: not shipped, allowed are {allowed}")
    return PRETRAINED / f"{name}{SUFFIX}"


def portable(config: Config) -> Config:
    """The configuration without the paths of one machine."""
    config = ConfigDict(config.to_dict())
    config.data.name = without_place(config.data.name)
    config.data.dir = config.evaluation.classifier = config.evaluation.inception = ""
    config.init, config.distillation.teacher = Path(config.init).name, Path(config.distillation.teacher).name
    return config


def write(
    path: Path, config: Config, variables: Any, *, weights: str, step: int, dtype: str,
    few_calls: Mapping[int, Sampling] | None = None, field: str = "dtype",
) -> bytes:  # fmt: skip
    """Writes weights rounded to one of DTYPES, atomically, and returns the bytes written; the same weights give the same ones.

    Raises InputError, with `field` as the name of `dtype`, for a number that is not finite in that type.
    """
    arrays = {name: _rounded(np.asarray(leaf), name, dtype, field) for name, leaf in flat(variables).items()}
    text = json.dumps(portable(config).to_dict(), sort_keys=True)
    header = {"config": text, "format": FORMAT, "step": str(step), "weights": weights}
    if few_calls:
        header["few_calls"] = few.to_json(few_calls)
    file = _in_order(save(arrays, header | {"sha256": _sha256(header, arrays)}))
    with atomic_write(path) as partial:
        partial.write_bytes(file)
    return file


def flat(variables: Any) -> dict[str, Any]:
    """Variables by the names they have in a file."""
    others = {collection: tree for collection, tree in variables.items() if collection != "params"}
    return {**flatten_dict(variables["params"], sep="/"), **flatten_dict(others, sep="/")}


def _rounded(array, name, dtype, field):
    with np.errstate(over="ignore"):
        rounded = array.astype(jnp.dtype(dtype), order="C")
    if not np.isfinite(rounded).all():
        raise InputError(f"{field}: found {dtype}, in which {name} is not finite (up to {np.abs(array).max():.3g})")
    return rounded


def _sha256(header, arrays):
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _in_order(file: bytes) -> bytes:
    """The same file with its metadata sorted; the library's order changes from call to call."""
    end = 8 + int.from_bytes(file[:8], "little")
    header = json.loads(file[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + file[end:]


class Stored(NamedTuple):
    """What a file or a run folder holds of a network: `weights` are "ema" or "raw", `variables` float32."""

    config: Config
    weights: str
    step: int
    variables: Any
    few_calls: dict[int, Sampling]


def read(path: Path, weights: str | None = None, step: int | None = None, prefix: str = "") -> Stored:
    """What a file holds, also one that is older than some fields.

    Raises InputError for a file that is missing, damaged, or not of this format, whose arrays do not fit its network, and, with
    `prefix` before the names of `weights` and `step`, for one that holds others.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with local_copy(path) as local, safe_open(local, "np") as file:
            header, arrays = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # The library raises many kinds, for a damaged file and for types that numpy does not have.
        raise InputError(f"{path}: damaged or not safetensors ({error})") from None
    if header.get("format") != FORMAT:
        raise InputError(f"{path}: found format {header.get('format')!r}, must be {FORMAT!r}, as `sdit export` writes it")
    sha256 = header.pop("sha256", None)
    if header.keys() - METADATA or sha256 not in (None, _sha256(header, arrays)):
        raise InputError(f"{path}: damaged, it differs from its hash")
    which, at = header.get("weights"), header.get("step", "")
    if which not in ("ema", "raw") or not (at.isascii() and at.isdigit()):
        raise InputError(f"{path}: damaged, found {which!r} weights of step {at!r}")
    for name, wanted, there in (("weights", weights, which), ("step", step, int(at))):
        if wanted not in (None, there):
            raise InputError(f"{prefix}{name}: found {wanted!r}, but {path} holds {there!r}")
    config = fields.from_json(header.get("config", ""), path)
    try:
        fields.validate(config)
        model = build(config.model)
        variables = _fitted(arrays, jax.eval_shape(lambda: initial_variables(model, 0)))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return Stored(config, which, int(at), variables, few.from_json(header.get("few_calls", "{}"), path))


def _fitted(arrays: Mapping[str, np.ndarray], like: Any) -> Any:
    """The arrays as variables laid out as `like`. Raises InputError for one that is missing, left over, or does not fit."""
    expected = flat(like)
    for name in sorted({*expected, *arrays}):
        if name not in expected or name not in arrays:
            raise InputError(f"{name}: " + ("missing" if name in expected else "the network has no such array"))
        found, shape = arrays[name], expected[name].shape
        if found.shape != shape or found.dtype.name not in DTYPES:
            raise InputError(f"{name}: found {found.dtype} of {found.shape}, must be one of {', '.join(DTYPES)} of {shape}")
        if not np.isfinite(found).all():
            raise InputError(f"{name}: found a number that is not finite")
    names = {id(leaf): name for name, leaf in expected.items()}
    return jax.tree.map(lambda leaf: jnp.asarray(arrays[names[id(leaf)]], jnp.float32), like)
