"""Floor 2, networks: a model configuration becomes a flax module by `build`."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from sdit_jax.config import InputError
from sdit_jax.layers.spiking import NEURONS
from sdit_jax.models.presets import defaults
from sdit_jax.models.sdit import REMAT, SDiT
from sdit_jax.ops.surrogate import DERIVATIVES
from sdit_jax.ops.wkv import IMPLEMENTATIONS

CHOICES = {
    "condition": ("token", "every_token", "modulation"),
    "neuron": NEURONS,
    "reset": ("hard", "soft"),
    "surrogate": tuple(DERIVATIVES),
    "token_shift": ("1d", "2d"),
    "gate_init": ("random", "identity"),
    "smooth_init": ("random", "identity"),
    "wkv": IMPLEMENTATIONS,
    "dtype": ("float32", "bfloat16"),
    "remat": tuple(REMAT),
}
MINIMUM = {
    "image_size": 1,
    "channels": 1,
    "patch_size": 1,
    "width": 2,
    "depth": 2,
    "num_classes": 0,
    "timesteps": 1,
    "tau": 1,
    "label_dropout": 0,
}


def build(model_config: Mapping) -> SDiT:
    """The network of a model configuration: a mapping of SDiT's fields; those left out take their default.

    Raises InputError that names the field for an unknown field, a wrong type or a value outside its range.
    """
    fields = defaults()
    for name, value in model_config.items():
        field = f"config.model.{name}"
        if name not in fields:
            raise InputError(f"{field}: unknown field; there are {', '.join(sorted(fields))}")
        expected = type(fields[name])
        if type(value) is not expected and not (expected is float and type(value) is int):
            raise InputError(f"{field}: found {value!r}, must be of type {expected.__name__}")
        if name in CHOICES and value not in CHOICES[name]:
            raise InputError(f"{field}: found {value!r}, allowed are {', '.join(CHOICES[name])}")
        if expected is float and not math.isfinite(value):
            raise InputError(f"{field}: found {value}, must be finite")
        if name in MINIMUM and value < MINIMUM[name]:
            raise InputError(f"{field}: found {value}, must be at least {MINIMUM[name]}")
        if name in ("threshold", "surrogate_slope") and value <= 0:
            raise InputError(f"{field}: found {value}, must be positive")
    fields |= dict(model_config)
    if fields["depth"] % 2:
        raise InputError(f"config.model.depth: found {fields['depth']}, must be even (half before, half after the middle)")
    if fields["label_dropout"] >= 1:
        raise InputError(f"config.model.label_dropout: found {fields['label_dropout']}, must be below 1")
    if fields["learned_decay"] and not fields["leak"]:
        raise InputError("config.model.learned_decay: found True, there is no decay with config.model.leak False")
    if fields["learned_decay"] and fields["tau"] == 1:
        raise InputError("config.model.tau: found 1, must be above 1 with config.model.learned_decay")
    if fields["image_size"] % fields["patch_size"]:
        raise InputError(
            f"config.model.image_size: found {fields['image_size']}, must be divisible by "
            f"config.model.patch_size {fields['patch_size']}"
        )
    return SDiT(**fields)


def initial_params(model: SDiT, seed: int) -> Any:
    """Parameters before the first step."""
    x_BHWC = jnp.zeros((1, model.image_size, model.image_size, model.channels))
    return model.init(jax.random.key(seed), x_BHWC, jnp.zeros(1), jnp.zeros(1, jnp.int32))["params"]


def cast_weights(model: SDiT, params: Any) -> Any:
    """The parameters with those weights rounded that products round to `model.dtype`: once, for many passes."""
    blocks = ("in_blocks", "mid_block", "out_blocks")
    rounded = lambda path: path[0].key in blocks and path[-1].key == "kernel"  # noqa: E731
    return jax.tree_util.tree_map_with_path(lambda path, leaf: leaf.astype(model.dtype) if rounded(path) else leaf, params)


__all__ = ["SDiT", "build", "cast_weights", "initial_params"]
