"""The collectives of a compiled step: bytes, the axes of the mesh that they cross, and whether computation runs meanwhile.

The TPU compiler writes them in four ways, each of which is one collective here:

    all-reduce(...)                                synchronous, whatever attribute of an asynchronous origin is left on it
    all-gather-start(...) ... all-gather-done      asynchronous
    a chain of fusions from AsyncCollectiveStart to AsyncCollectiveDone, each with a part of it: asynchronous
    a fusion all-reduce-scatter                    a reduce-scatter
    send(...), recv(...) of the megascale runtime  between slices, asynchronous; recorded as what is sent

Bytes are those of the whole arrays V, of which a device sends a share (`collectives.sent`); of `send`, what it sends.
"""

import collections
import dataclasses
import itertools
import re
from collections.abc import Iterator, Mapping

import numpy as np

from sdit_jax.planner.hlo import HloProgram, Instruction

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
SEND, SLICES = "send", "slices"
# Bytes that a device sends with n devices in a group, of the bytes V of the whole arrays.
SHARES = {
    "all-reduce": lambda n: 2 * (n - 1) / n, "all-gather": lambda n: (n - 1) / n, "reduce-scatter": lambda n: (n - 1) / n,
    "all-to-all": lambda n: (n - 1) / n**2, "collective-permute": lambda n: 1, SEND: lambda n: 1,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Communication:
    """All collectives of one kind over the same axes ("data", "data+fsdp", "slices") in a step.

    `bytes` are those of the whole arrays, `sent` those that a device sends, `calls` the executions.
    """

    kind: str
    axes: str
    overlaps: bool
    calls: int
    bytes: float
    sent: float


def communications(program: HloProgram, sizes: Mapping[str, int]) -> list[Communication]:
    """Of a step on a mesh of these sizes; with several slices, those of the mesh inside of one. The most bytes come first."""
    calls: dict[tuple[str, str, bool], int] = collections.defaultdict(int)
    bytes_, sent = (collections.defaultdict(float) for _ in range(2))
    for kind, each, overlaps, times in _found(program):
        axes, devices = (SLICES, 1) if kind == SEND else _axes(each, sizes)
        if kind != SEND and devices == 1:
            continue
        key = kind, axes, overlaps
        size = _whole(kind, each, devices)
        calls[key] += times
        bytes_[key] += times * size
        sent[key] += times * size * SHARES[kind](devices)
    found = [Communication(*key, calls=calls[key], bytes=bytes_[key], sent=sent[key]) for key in calls]
    return sorted(found, key=lambda each: -each.sent)


def _found(program: HloProgram) -> Iterator[tuple[str, Instruction, bool, int]]:
    """(kind, instruction, whether it overlaps, executions) of every collective."""
    for each, _, times in program.runs:
        kind = each.opcode.removesuffix("-start")
        if kind in KINDS:
            yield kind, each, kind != each.opcode, times
        elif kind == SEND:
            yield SEND, each, True, times
        elif each.opcode == "fusion":
            inside = program.computations[each.calls[0]].values()
            targets = [call.attribute("custom_call_target") for call in inside if call.opcode == "custom-call"]
            scatters = each.calls[0].startswith("all-reduce-scatter")
            for collective in (inner for inner in inside if inner.opcode in KINDS):
                if "AsyncCollectiveStart" in targets:
                    yield collective.opcode, collective, True, times
                elif scatters:
                    yield "reduce-scatter", dataclasses.replace(collective, opcode="all-reduce"), False, times


def _whole(kind: str, each: Instruction, devices: int) -> int:
    """Bytes of the whole arrays."""
    if each.opcode == SEND:
        return each.results[0].size
    arrays = each.results
    if each.opcode in ("all-gather-start", "collective-permute-start"):
        arrays = [array for array in arrays if array.shape]  # Without flags.
        arrays = arrays[len(arrays) // 2 :]  # The operands come first.
    size = sum(array.size for array in arrays)
    return size * devices if kind == each.opcode == "reduce-scatter" else size


def _axes(each: Instruction, sizes: Mapping[str, int]) -> tuple[str, int]:
    """(axes of the mesh that a collective crosses, devices of a group); "mixed" where its groups are those of no axes."""
    groups = replica_groups(each.attributes, int(np.prod(list(sizes.values()))))
    within = {frozenset(group) for group in groups.tolist()}
    split = [axis for axis, size in sizes.items() if size > 1]
    places = np.arange(groups.size).reshape(tuple(sizes.values()))
    for axes in (axes for n in range(len(split) + 1) for axes in itertools.combinations(split, n)):
        last = [list(sizes).index(axis) for axis in axes]
        moved = np.moveaxis(places, last, range(-len(last), 0)) if last else places[..., None]
        rows = moved.reshape(-1, int(np.prod([sizes[axis] for axis in axes])))
        if within == {frozenset(row) for row in rows.tolist()}:
            return "+".join(axes) or "none", rows.shape[1]
    return "mixed", groups.shape[1]


def replica_groups(attributes: str, devices: int) -> np.ndarray:
    """(group, member): the devices that work together, from any of the forms that the text has.

    `{{0,1},{2,3}}` lists them; `[2,4]<=[4,2]T(1,0)` reshapes and transposes a range; `mesh['a'=2,'b'=4] {'b'}` names axes of a
    range, or of `device_ids=([4,2]T(1,0))`. For `source_target_pairs` it is one group of all.
    """
    numbers = lambda text: [int(n) for n in re.findall(r"\d+", text)]
    if found := re.search(
        r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? \{([^}]*)\}", attributes
    ):
        names, shape = re.findall(r"'(\w+)'=", found[1]), numbers("".join(re.findall(r"=\d+", found[1])))
        places = np.arange(devices)
        if found[2]:
            places = places.reshape(numbers(found[2]))
            places = places.transpose(numbers(found[3])) if found[3] else places
        chosen = [names.index(name) for name in re.findall(r"\w+", found[4])]
        order = [axis for axis in range(len(shape)) if axis not in chosen] + chosen
        return places.reshape(shape).transpose(order).reshape(-1, int(np.prod([shape[axis] for axis in chosen])))
    if found := re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", attributes):
        places = np.arange(devices).reshape(numbers(found[2]))
        return (places.transpose(numbers(found[3])) if found[3] else places).reshape(numbers(found[1]))
    if found := re.search(r"replica_groups=\{(\{[\d,{}]*\})\}", attributes):
        return np.array([[int(n) for n in group.split(",")] for group in re.findall(r"\{([\d,]+)\}", found[1])])
    return np.arange(devices)[None]
