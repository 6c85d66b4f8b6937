"""What the instructions of a compiled program do: floating-point operations of products, and bytes of HBM.

An instruction reads its operands and writes its result, in padded tiles; what lies in a chip's own memory (VMEM) is free, and
arrays come and go by copies, which are instructions too. A slice reads what it takes and an update in place writes what it
changes, also as a part of a fusion. A kernel reads and writes each array once, as those of WKV do but for long bidirectional
sequences. Products are counted at the places where the kernel meets the image: those that meet
padding or the zeros between dilated elements, by which the compiler writes batched products, are left out.
"""

import math
import re
from collections.abc import Mapping

from sdit_jax.planner.hlo import HBM, Array, HloProgram, Instruction

FREE = (
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call", "after-all",
    "partition-id", "replica-id", "copy-done", "slice-done", "send-done", "recv-done", "opt-barrier", "iota",
)  # fmt: skip
SLICES = ("dynamic-slice", "slice", "gather", "slice-start")
UPDATE = "dynamic-update-slice"


def is_kernel(each: Instruction) -> bool:
    """Whether it runs a kernel written in Pallas, which the compiler knows nothing of."""
    return each.attribute("custom_call_target") == "tpu_custom_call"


def in_hbm(array: Array) -> bool:
    return array.space == HBM and array.dtype not in ("token", "opaque")


def moved(program: HloProgram, each: Instruction, here: Mapping[str, Instruction]) -> list[tuple[Array, float]]:
    """(array, share of it that crosses HBM) of one execution; `here` are the instructions of its computation by name."""
    if each.opcode in FREE:
        return []
    if each.opcode == "copy-start":  # The result is (destination, source, flag).
        return [(array, 1.0) for array in each.results[:2] if in_hbm(array)]
    operands = [here[name].results[0] if name in here and len(here[name].results) == 1 else None for name in each.operands]
    if each.opcode == "fusion":
        inside = program.computations[each.calls[0]]
        reads = [(array, _read(inside, place)) for place, array in enumerate(operands)]
        writes = _written(each, inside)
    elif each.opcode in SLICES:
        result = each.results[-2] if each.opcode == "slice-start" else each.results[0]
        reads, writes = [(operands[0], _ratio(result, operands[0]))], [(result, 1.0)]
    elif each.opcode == UPDATE:
        reads = [(operands[1], 1.0)]
        writes = [(each.results[0], _ratio(operands[1], each.results[0]))]
    else:
        reads, writes = [(array, 1.0) for array in operands], [(array, 1.0) for array in each.results]
    return [(array, share) for array, share in [*reads, *writes] if array is not None and share and in_hbm(array)]


def _ratio(part: Array | None, whole: Array | None) -> float:
    return min(1.0, part.size / whole.size) if part and whole and whole.size else 1.0


def _read(inside: Mapping[str, Instruction], place: int) -> float:
    """Share of a fusion's operand that it reads: 1 but where only slices are taken of it, or it is updated in place."""
    parameter = next(each for each in inside.values() if each.opcode == "parameter" and each.operands == (str(place),))
    names, taken = [parameter.name], 0.0
    for each in inside.values():
        used = [name for name in names if name in each.operands]
        if not used:
            continue
        if each.opcode == "bitcast":
            names.append(each.name)
        elif each.opcode in SLICES and each.operands[0] in used and used == [each.operands[0]]:
            taken += _ratio(each.results[0], parameter.results[0])
        elif not (each.opcode == UPDATE and each.operands[0] in used):
            return 1.0
    return min(taken, 1.0)


def _written(each: Instruction, inside: Mapping[str, Instruction]) -> list[tuple[Array | None, float]]:
    """The results of a fusion, and the shares of them that it writes."""
    root = list(inside.values())[-1]
    parts = [inside[name] for name in root.operands] if root.opcode == "tuple" else [root]
    found = []
    for array, part in zip(each.results, parts, strict=False):
        while part.opcode == "bitcast":
            part = inside[part.operands[0]]
        update = inside[part.operands[1]].results[0] if part.opcode == UPDATE else None
        found.append((array, _ratio(update, part.results[0]) if update else 1.0))
    return found


def flops(program: HloProgram, each: Instruction, here: Mapping[str, Instruction]) -> float:
    """Two per multiply-accumulate of the products in an instruction, those of its fusion included."""
    if each.opcode in ("convolution", "dot"):
        return 2.0 * math.prod(each.results[0].shape) * _summed(each, [here[name].results[0] for name in each.operands])
    if each.opcode == "fusion":
        inside = program.computations[each.calls[0]]
        return sum(flops(program, inner, inside) for inner in inside.values())
    return 0.0


def _summed(each, operands):
    """Multiply-accumulates per element of the result, on average."""
    if each.opcode == "dot":
        axes = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", each.attributes)
        return math.prod(operands[0].shape[int(axis)] for axis in axes[1].split(",") if axis) if axes else 1
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", each.attributes)
    assert labels, each.name
    image, kernel, out = labels.groups()
    total = operands[1].shape[kernel.index("i")]
    for axis in (str(n) for n in range(len(image) - 2)):
        sizes = [array.shape[labels.index(axis)] for array, labels in zip(operands, (image, kernel), strict=True)]
        result = each.results[0].shape[out.index(axis)]
        total *= _meetings(sizes[0], sizes[1], result, _window(each, int(axis))) / result
    return total


def _window(each, axis):
    """stride, padding before, and the dilations of image and kernel along a spatial axis."""
    text = re.search(r"window=\{([^}]*)\}", each.attributes)
    fields = dict(field.split("=") for field in text[1].split()) if text else {}
    value = lambda name, default: fields[name].split("x")[axis] if name in fields else default
    before = value("pad", "0_0").split("_")[0]
    return int(value("stride", 1)), int(before), int(value("lhs_dilate", 1)), int(value("rhs_dilate", 1))


def _meetings(image: int, kernel: int, result: int, window: tuple[int, int, int, int]) -> int:
    """Pairs of a place of the kernel and one of the result that meet an element of the image."""
    stride, before, spread, apart = window
    places = (at * stride + k * apart - before for at in range(result) for k in range(kernel))
    return sum(0 <= place < (image - 1) * spread + 1 and place % spread == 0 for place in places)
