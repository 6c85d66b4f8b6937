"""How a network draws images in few calls, by their number: {"4": {"sampler": "ddim", "levels": [999, ...], ...}, ...} as JSON.

`sdit tune` finds it. It lies in few_calls.json of a run folder, or in the header of a file of weights.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from sdit_jax.errors import InputError
from sdit_jax.files import write_json
from sdit_jax.sampling.how import Sampling

FILE = "few_calls.json"


def to_json(found: Mapping[int, Sampling]) -> str:
    """The text, the same for the same content."""
    return json.dumps({str(calls): found[calls].to_dict() for calls in sorted(found)}, sort_keys=True)


def from_json(text: str, path: Path) -> dict[int, Sampling]:
    """The inverse of `to_json`. Raises InputError that names the file where the text is damaged."""
    try:
        stored = {int(calls): Sampling.from_dict(how) for calls, how in json.loads(text).items()}
        for how in stored.values():
            _check_types(how)
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: damaged, not ways to draw in few calls ({error})") from None
    return dict(sorted(stored.items()))


def _check_types(how):
    """Raises TypeError for a field of another type than its default."""
    numbers = {int: int, float: (int, float)}
    for name, default in dataclasses.asdict(Sampling()).items():
        value = getattr(how, name)
        if not isinstance(value, numbers.get(type(default), type(default))):
            raise TypeError(f"{name} is {value!r}")
        if isinstance(value, tuple) and not all(isinstance(t, int) for t in value):
            raise TypeError(f"{name} is {value!r}")


def read(path: Path) -> dict[int, Sampling]:
    """The content of a file; nothing where there is none."""
    return from_json(path.read_text(), path) if path.exists() else {}


def write(path: Path, found: Mapping[int, Sampling]) -> None:
    """Writes the file."""
    write_json(path, json.loads(to_json(found)))
