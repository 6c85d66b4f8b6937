"""The weights that a run starts from, where they are those of another run."""

import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sdit_jax.config import Config
from sdit_jax.errors import InputError
from sdit_jax.sampling.run import open_run
from sdit_jax.sampling.weights import flat
from sdit_jax.training.state import TrainState

SHOWN = 3  # Arrays that do not fit.


class Initial(NamedTuple):
    """Weights by their names, {"head/kernel": array, ...}, and a line for a log that says where they are from."""

    weights: dict[str, Any]
    line: str


def read_initial(config: Config, shapes: TrainState) -> Initial | None:
    """The weights of `config.init`, without those of `config.init_new`; None where it is empty.

    Averaged weights, where that run has them. The networks may differ in anything but their arrays, such as the neurons or
    their spiking steps. Raises InputError for a place without weights, a pattern that fits no array of the network, and arrays
    that are missing, left over, or of another shape.
    """
    if not config.init:
        return None
    try:
        run = open_run(config.init)
    except InputError as error:
        raise InputError(f"config.init: {error}") from None
    found, expected = flat(run.variables), flat(shapes.variables)
    anew = set()
    for pattern in filter(None, config.init_new.split(",")):
        try:
            fits = {name for name in found | expected if re.search(pattern, name)}
        except re.error as error:
            raise InputError(f"config.init_new: found {pattern!r}, must be a regular expression ({error})") from None
        if not fits:
            raise InputError(f"config.init_new: found {pattern!r}, which is in no array's name")
        anew |= fits
    shape = lambda arrays, name: arrays[name].shape if name in arrays else "no array"
    differ = [
        f"{name} ({shape(found, name)} there, {shape(expected, name)} here)"
        for name in sorted(found | expected)
        if name not in anew and shape(found, name) != shape(expected, name)
    ]
    if differ:
        more = f" and {len(differ) - SHOWN} more" if len(differ) > SHOWN else ""
        raise InputError(
            f"config.init: {config.init} differs in {', '.join(differ[:SHOWN])}{more}; config.init_new starts anew"
        )
    new = ", ".join(sorted(anew & expected.keys()))
    line = f"starting from {config.init}, {run.describe_weights}" + (f"; new are {new}" if new else "")
    return Initial({name: array for name, array in found.items() if name not in anew}, line)


def started_from(state: TrainState, weights: dict[str, Any]) -> TrainState:
    """A new state with these weights in place of its own, also as the first of their average."""
    names = {id(leaf): name for name, leaf in flat(state.variables).items()}

    def placed(leaf):
        array = weights.get(names[id(leaf)])
        return leaf if array is None else jax.device_put(array.astype(leaf.dtype), leaf.sharding)

    variables = jax.tree.map(placed, state.variables)
    return state.replace(variables=variables, ema=None if state.ema is None else jax.tree.map(jnp.copy, variables))
