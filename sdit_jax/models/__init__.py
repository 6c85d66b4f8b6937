"""Networks: a model configuration becomes a flax module by `build`; `config.model.name` chooses the file of this room.

A new network is one new file here that exports `FAMILY` (see `network`); a network outside of the package is `register`ed.
"""

import functools
import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from sdit_jax.errors import InputError
from sdit_jax.models.network import SOWN, Family, Network

DEFAULT = "sdit"  # Of configurations that name no network.
_registered: dict[str, Family] = {}


def register(name: str, family: Family) -> None:
    """Makes a network of your own known as `config.model.name`, for as long as the program runs."""
    _registered[name] = family


def unregister(name: str) -> None:
    """Takes back `register`."""
    del _registered[name]


def families() -> dict[str, Family]:
    """All networks by name: the files of this room that export FAMILY, and registered ones."""
    modules = (importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__))
    shipped = {module.__name__.rpartition(".")[2]: module.FAMILY for module in modules if hasattr(module, "FAMILY")}
    return shipped | _registered


def find(name: str) -> Family:
    """The network called `name`. Raises InputError where there is none."""
    known = families()
    if name not in list(known):  # Not by its hash, which a value of a wrong type may not have.
        raise InputError(f"config.model.name: found {name!r}, allowed are {', '.join(known)}")
    return known[name]


def build(model_config: Mapping[str, Any]) -> Network:
    """The network of a model configuration: `name`, and the fields of that network; missing ones take their defaults.

    Raises InputError that names the field for an unknown network or field, a wrong type, or a value out of range.
    """
    values = dict(model_config)
    return find(values.pop("name", DEFAULT)).build(values)


def defaults(name: str = DEFAULT) -> dict[str, Any]:
    """The model configuration of a network at its defaults."""
    return {"name": name} | {field.name: field.default for field in find(name).fields.values()}


def preset(name: str, **changes: Any) -> Any:
    """The whole model configuration (a ConfigDict) of a preset of any network, changed. KeyError for an unknown preset."""
    for network, family in families().items():
        if name in family.presets:
            return ml_collections.ConfigDict(defaults(network) | dict(family.presets[name]) | changes)
    raise KeyError(f"{name}: no such preset; there are {', '.join(presets())}")


def presets() -> list[str]:
    """The names of all presets."""
    return [name for family in families().values() for name in family.presets]


@functools.partial(jax.jit, static_argnums=(0, 1), inline=True)  # Compiled as one program, not operation by operation.
def initial_variables(model: Network, seed: int) -> dict[str, Any]:
    """Parameters, and running statistics where the network has them, before the first step."""
    x_BHWC = jnp.zeros((1, model.image_size, model.image_size, model.channels))
    variables = model.init(jax.random.key(seed), x_BHWC, jnp.zeros(1), jnp.zeros(1, jnp.int32))
    return {collection: tree for collection, tree in variables.items() if collection not in SOWN}


def cast(model: Network, variables: Mapping[str, Any]) -> dict[str, Any]:
    """The variables with those weights rounded that products round to `model.dtype`: once, for many passes."""

    def rounded(path, leaf):
        return leaf.astype(model.dtype) if model.is_rounded(jax.tree_util.keystr(path, simple=True, separator="/")) else leaf

    return {**variables, "params": jax.tree_util.tree_map_with_path(rounded, variables["params"])}


__all__ = [
    "Family", "Network", "build", "cast", "defaults", "families", "find", "initial_variables", "preset", "presets", "register",
    "unregister",
]  # fmt: skip
