"""The text of a compiled program (HLO), read into computations, instructions and arrays.

A line of the text is `name = type opcode(operands), attributes`. An array's type is `bf16[8,196,64]{2,1,0:T(8,128)(2,1)S(1)}`:
dtype, shape, axes from the minor one, the tile that its minor axes are padded to, and the memory it lies in, none of which
but dtype and shape need be there. `HloProgram.runs` has every instruction that a device executes, with the number of times.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

HBM, VMEM = 0, 1  # Memory spaces of TPUs; others hold scalars and flags.
BITS = {"pred": 8, "s4": 4, "u4": 4, "bf16": 16, "c64": 64, "c128": 128, "token": 0, "opaque": 0}
ARRAY = re.compile(r"(\w+)\[([\d,]*)\](?:\{([\d,]*)(?::((?:[^{}]|\{[^{}]*\})*))?\})?")
LINE = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = ")
HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
CALLED = re.compile(r"(?:calls|to_apply|body|condition|async_execution_thread)=%?([\w.\-]+)")


@dataclasses.dataclass(frozen=True)
class Array:
    """An array of the program: shape, bits of an element, axes from the minor one, tile, memory space."""

    dtype: str
    shape: tuple[int, ...]
    minor_to_major: tuple[int, ...] = ()
    tile: tuple[int, ...] = ()
    space: int = HBM

    @classmethod
    def all_in(cls, text: str) -> tuple["Array", ...]:
        """The arrays of a type, those of tuples one after the other."""
        return tuple(cls._of(*match.groups()) for match in ARRAY.finditer(text))

    @classmethod
    def _of(cls, dtype, shape, order, layout):
        numbers = lambda text: tuple(int(n) for n in (text or "").split(",") if n.isdigit())
        tile, space = re.search(r"T\(([\d,*]+)\)", layout or ""), re.search(r"S\((\d+)\)", layout or "")
        return cls(dtype, numbers(shape), numbers(order), numbers(tile[1]) if tile else (), int(space[1]) if space else HBM)

    @property
    def bits(self) -> int:
        """Of an element."""
        return BITS[self.dtype] if self.dtype in BITS else int(re.findall(r"\d+", self.dtype)[0])

    @property
    def size(self) -> int:
        """Bytes of the elements."""
        return -(-math.prod(self.shape) * self.bits // 8)

    @property
    def padded(self) -> int:
        """Bytes in memory: the minor axes are rounded up to whole tiles."""
        axes = [self.shape[axis] for axis in self.minor_to_major] or list(self.shape)
        axes += [1] * (len(self.tile) - len(axes))
        for place, tile in enumerate(reversed(self.tile)):
            axes[place] = -(-axes[place] // tile) * tile
        return -(-math.prod(axes) * self.bits // 8)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line: the arrays of its result, the names of its operands, and its attributes as text."""

    name: str
    opcode: str
    results: tuple[Array, ...]
    operands: tuple[str, ...]
    attributes: str

    @property
    def calls(self) -> list[str]:
        """Names of the computations that it applies."""
        branches = re.search(r"branch_computations=\{([^}]*)\}", self.attributes)
        return CALLED.findall(self.attributes) + (re.findall(r"[\w.\-]+", branches[1]) if branches else [])

    @property
    def op_name(self) -> str:
        """Where it is from: scopes of JAX and flax."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found[1] if found else ""

    def attribute(self, name: str) -> str:
        """The word of `name=word`; "" where there is none."""
        found = re.search(rf'\b{name}=["%]?([\w.\-]+)', self.attributes)
        return found[1] if found else ""


@dataclasses.dataclass(frozen=True)
class HloProgram:
    """The computations of a compiled program by name, and the name of the first one."""

    computations: dict[str, dict[str, Instruction]]
    entry: str

    @functools.cached_property
    def runs(self) -> list[tuple[Instruction, dict[str, Instruction], int]]:
        """(instruction, those of its computation by name, times it is executed); bodies of fusions belong to their fusion."""
        return list(self._executed(self.entry, 1))

    @functools.cached_property
    def unknown_loops(self) -> list[str]:
        """Loops of unknown length, which are counted once."""
        return [each.op_name or each.name for each, _, _ in self.runs if each.opcode == "while" and self.trips(each) is None]

    def trips(self, loop: Instruction) -> int | None:
        """Trips of a loop that counts from 0 to a constant; None where its length is not known."""
        known = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes)
        if known:
            return int(known[1])
        return self._bound(self.computations[loop.attribute("condition")])

    def _bound(self, condition):
        """The constant that a condition compares its counter with, also within a fusion."""
        constants = {name: int(each.operands[0]) for name, each in condition.items() if each.opcode == "constant"}
        for each in condition.values():
            if each.opcode == "compare" and each.attribute("direction") == "LT":
                return constants.get(each.operands[1])
            if each.opcode == "fusion":
                given = [constants[name] for name in each.operands if name in constants]
                inside = self.computations[each.calls[0]]
                if any(inner.opcode == "compare" and inner.attribute("direction") == "LT" for inner in inside.values()):
                    return given[0] if len(given) == 1 else self._bound(inside)
        return None

    def _executed(self, name, times) -> Iterator:
        here = self.computations[name]
        for each in here.values():
            yield each, here, times
            if each.opcode == "while":
                yield from self._executed(each.attribute("body"), times * (self.trips(each) or 1))
            elif each.opcode in ("call", "conditional"):
                for called in each.calls:
                    yield from self._executed(called, times)


def parse(text: str) -> HloProgram:
    """Reads the text of a compiled program (`compiled.as_text()`)."""
    computations, entry, here = {}, "", {}
    for line in text.splitlines():
        if head := HEAD.match(line):
            here = computations[head[2]] = {}
            entry = head[2] if head[1] else entry
        elif match := LINE.match(line):
            each = _instruction(match[1], line[match.end() :])
            here[each.name] = each
    return HloProgram(computations, entry)


def _instruction(name, text):
    end = _closing(text, 0) if text.startswith("(") else text.index(" ")
    kind, rest = text[:end], text[end:].lstrip()
    opcode = rest[: rest.index("(")]
    end = _closing(rest, len(opcode))
    inside = rest[len(opcode) + 1 : end - 1]
    operands = (inside,) if opcode in ("constant", "parameter") else tuple(re.findall(r"%([\w.\-]+)", inside))
    return Instruction(name, opcode, Array.all_in(kind), operands, rest[end:])


def _closing(text, start):
    """The place after the parenthesis that closes the one at `start`."""
    depth = 0
    for place in range(start, len(text)):
        depth += (text[place] == "(") - (text[place] == ")")
        if depth == 0:
            return place + 1
    raise ValueError(f"no closing parenthesis: {text[start : start + 80]}")
