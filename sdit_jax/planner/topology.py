"""TPU slices that are not at hand, as devices that programs can be compiled for: `devices("v5e:4x4", slices=2)`.

The compiler is that of the package libtpu, which knows chips by name and needs none of them.
"""

import importlib.metadata
import importlib.util
from typing import Any

import jax
from jax.experimental import topologies

from sdit_jax.analysis import chips
from sdit_jax.analysis.chips import Chip
from sdit_jax.errors import InputError
from sdit_jax.sharding import processes

# v4 is left out: without chips, libtpu knows its cores, each with half of the memory, and not the chip of both.
NAMES = ("v5e", "v5p", "v6e")


def is_installed() -> bool:
    return importlib.util.find_spec("libtpu") is not None


def version() -> str:
    """libtpu's."""
    return importlib.metadata.version("libtpu")


def devices(name: str, slices: int = 1, field: str = "topology") -> tuple[Chip, list[Any]]:
    """The chip, and the devices of so many slices of this topology, such as v5e:4x4 or v5p:2x2x2; they can compile only.

    The process keeps to its CPU from then on. Raises InputError without libtpu, and for a topology that libtpu does not know.
    """
    if not is_installed():
        raise InputError(f"{field}: found {name!r}, needs the package libtpu: pip install 'sdit_jax[tpu]' (Linux, x86-64)")
    kind, _, shape = name.partition(":")
    allowed = f"allowed are {', '.join(NAMES)} with a shape, as in v5e:4x4 and v5p:2x2x2"
    if kind not in NAMES or not shape:
        raise InputError(f"{field}: found {name!r}, {allowed}")
    processes.expect_no_tpu(compiling=True)
    jax.config.update("jax_platforms", "cpu")
    arguments: dict[str, Any] = {"num_slices": slices} if slices > 1 else {}
    if set(shape) <= {"1", "x"}:  # A host has four chips elsewhere.
        arguments["chips_per_host_bounds"] = (1, 1, 1)
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=name, **arguments).devices
    except jax.errors.JaxRuntimeError as error:
        said = str(error).splitlines()[0].partition(": ")[2]
        raise InputError(f"{field}: found {name!r}, {allowed} (libtpu: {said})") from None
    chip = chips.find(kind)
    if len(found) > slices * chip.domain:
        raise InputError(f"{field}: found {name!r}, must have at most {chip.domain} chips")
    return chip, list(found)
