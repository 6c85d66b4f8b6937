"""Fields of a configuration with the values they allow, checked by `models.build`."""

import dataclasses
import math
from typing import Any

from sdit_jax.errors import InputError


def choice(default: str, *allowed: str) -> Any:
    """A field that takes one of these values."""
    return dataclasses.field(default=default, metadata={"allowed": allowed})


def at_least(least: float, default: Any) -> Any:
    """A field that takes numbers from `least` on."""
    return dataclasses.field(default=default, metadata={"least": least})


def positive(default: float) -> Any:
    """A field that takes numbers above zero."""
    return dataclasses.field(default=default, metadata={"positive": True})


def check(name: str, value: Any, field: dataclasses.Field) -> None:
    """Raises InputError where a value has another type than the field's default, is not finite, or is not allowed."""
    expected, rules = type(field.default), field.metadata
    if type(value) is not expected and not (expected is float and type(value) is int):
        raise InputError(f"{name}: found {value!r}, must be of type {expected.__name__}")
    if expected is float and not math.isfinite(value):
        raise InputError(f"{name}: found {value}, must be finite")
    if "allowed" in rules and value not in rules["allowed"]:
        raise InputError(f"{name}: found {value!r}, allowed are {', '.join(rules['allowed'])}")
    if "least" in rules and value < rules["least"]:
        raise InputError(f"{name}: found {value}, must be at least {rules['least']}")
    if "positive" in rules and value <= 0:
        raise InputError(f"{name}: found {value}, must be positive")
