"""The walk through a traced program that finds its operations; `analysis.operations` is the interface."""

import dataclasses
import functools
import itertools
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, jaxprs_in_params

from sdit_jax.analysis.dataflow import BATCH, Array, Origin, contraction, results
from sdit_jax.ops import marks

PRODUCTS = {"dot_general": "dot", "conv_general_dilated": "convolution"}
# Equations that call one program with their own operands, and the parameter that holds it.
CALLS = {
    "jit": "jaxpr", "remat2": "jaxpr", "closed_call": "call_jaxpr", "core_call": "call_jaxpr", "eval_jaxpr": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr",
}  # fmt: skip
RECOMPUTED = "rematted_computation"  # The scope in which JAX evaluates a checkpointed function again.


class Loop(NamedTuple):
    """A loop around an operation; a `length` of None is unknown.

    `stack` is the path of the module whose stacked weights the loop runs over, None for other loops. An `unrolled` loop leaves
    none in the compiled program.
    """

    length: int | None
    stack: str | None = None
    unrolled: bool = False


@dataclasses.dataclass(frozen=True)
class Operation:
    """An operation that a layer does `runs` times, each time on arrays of these shapes.

    `kind` is "dot", "convolution", "wkv" or "neurons"; of the last two, `result` is the marked array and there are no operands.
    `count` is the MACs of one run, or the updates of neurons. `phase` is "forward", "recompute" (for the backward pass) or
    "backward". `summed` are the labels of the axes that are summed over; `loops` are those around it, outermost first.
    """

    layer: str
    kind: str
    phase: str
    count: int
    operands: tuple[Array, ...]
    result: Array
    summed: frozenset[str] = frozenset()
    loops: tuple[Loop, ...] = ()
    runs: int = 1

    @property
    def is_product(self) -> bool:
        return self.kind in PRODUCTS.values()

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all runs."""
        return 0 if self.kind == marks.NEURONS else self.count * self.runs

    @property
    def updates(self) -> int:
        """Updates of neurons in all runs."""
        return self.count * self.runs if self.kind == marks.NEURONS else 0

    @property
    def gives_gradient(self) -> bool:
        """Whether the result is a gradient of parameters: no operand is one, and it belongs to no single image."""
        views = any(array.view for array in self.operands)
        return self.is_product and self.phase == "backward" and not views and BATCH not in self.result.axes

    @property
    def weights(self) -> int | None:
        """Index of the operand that holds weights: one from parameters alone; if both are, the one that is a parameter."""
        found = [i for i, array in enumerate(self.operands) if array.origin == Origin.PARAMETERS]
        views = [i for i in found if self.operands[i].view]
        return None if self.gives_gradient else (views or found or [None])[-1]

    @property
    def is_common(self) -> bool:
        """Whether it is the same product for all images: of parameters alone or, backward, of sums over the images."""
        known = self.phase == "backward" or all(array.origin <= Origin.PARAMETERS for array in self.operands)
        return self.is_product and known and not any(BATCH in array.axes for array in self.operands)

    def by_layer(self) -> Iterator[tuple["Operation", tuple[Any, ...]]]:
        """The operation in each of its layers, with the indices of its loops there: a number in a stack, else all of them."""
        indices = [range(loop.length or 1) if loop.stack is not None else [slice(None)] for loop in self.loops]
        runs = math.prod(loop.length or 1 for loop in self.loops if loop.stack is None)
        for index in itertools.product(*indices):
            path = parts(self.layer)
            for loop, place in reversed([*zip(self.loops, index, strict=True)]):  # Inner stacks have the longer paths.
                if loop.stack is not None:
                    stack = parts(loop.stack)
                    path.insert(len(stack) if path[: len(stack)] == stack else len(path), str(place))
            yield dataclasses.replace(self, layer=".".join(path) or "network", runs=runs), index


def opened(program: ClosedJaxpr | Jaxpr) -> tuple[Any, Sequence[Any]]:
    """A program that may be closed over constants, and these constants."""
    return getattr(program, "jaxpr", program), getattr(program, "consts", ())


def scanned(params: Mapping[str, Any], inputs: Sequence[Any]) -> tuple[list[Any], list[Any], list[Any]]:
    """The inputs of a scan: constants, the carry, and what it iterates over."""
    if "num_consts" in params:
        consts, carry = params["num_consts"], params["num_carry"]
    else:  # JAX 0.12
        consts, carry, _ = (len(part) for part in params["ft_in"].unpack())
    return list(inputs[:consts]), list(inputs[consts : consts + carry]), list(inputs[consts + carry :])


def parts(path: str) -> list[str]:
    """The names in a path of modules."""
    return path.split(".") if path else []


class Walker:
    """Each method returns (results, operations) of what it walks through, in the order of the equations.

    `modules` are the names of the network's outermost modules. Scopes are those of all equations around, joined.
    """

    def __init__(self, modules: Collection[str] = ()):
        self.modules = modules
        self.known: dict[Any, tuple[list[Array], list[Operation]]] = {}

    def program(self, program: ClosedJaxpr | Jaxpr, inputs: Sequence[Array], scope: str) -> tuple[list[Array], list[Operation]]:
        jaxpr, _ = opened(program)
        key = jaxpr, tuple(inputs), scope
        if key not in self.known:
            self.known[key] = self._program(jaxpr, inputs, scope)
        return self.known[key]

    def _program(self, jaxpr, inputs, scope):
        arrays = {variable: Array.of(variable.aval) for variable in jaxpr.constvars}
        arrays |= zip(jaxpr.invars, inputs, strict=True)
        read = lambda atom: _literal(atom) if isinstance(atom, Literal) else arrays[atom]
        operations = []
        for equation in jaxpr.eqns:
            here = f"{scope}/{equation.source_info.name_stack}"
            outputs, found = self.equation(equation, [read(atom) for atom in equation.invars], here)
            arrays |= zip(equation.outvars, outputs, strict=True)
            operations += found
        return [read(atom) for atom in jaxpr.outvars], operations

    def equation(self, equation: JaxprEqn, inputs: Sequence[Array], scope: str) -> tuple[list[Array], list[Operation]]:
        name, params = equation.primitive.name, equation.params
        if name in PRODUCTS:
            lhs, rhs, summed = contraction(equation, *inputs)
            outputs = results(equation, [lhs, rhs])
            return outputs, [self.operation(scope, PRODUCTS[name], macs(equation), (lhs, rhs), outputs[0], summed)]
        if name == "name" and (mark := marks.read(params["name"])):
            (kind, each), (result,) = mark, results(equation, inputs)
            result = dataclasses.replace(result, steps=each) if kind == marks.NEURONS else result
            return [result], [self.operation(scope, kind, each * result.size, (), result)]
        if name in CALLS:
            return self.program(params[CALLS[name]], inputs, scope)
        if name == "scan":
            return self.scan(params, inputs, scope)
        if name == "cond":
            branches = [self.program(branch, inputs[1:], scope) for branch in params["branches"]]
            outputs = [functools.reduce(Array.joined, places) for places in zip(*[each for each, _ in branches], strict=True)]
            return outputs, branches[largest(params["branches"])][1]
        if name == "while":
            first = params["cond_nconsts"]
            consts, carry = inputs[first : first + params["body_nconsts"]], inputs[first + params["body_nconsts"] :]
            outputs, found = self.iterated(params["body_jaxpr"], consts, carry, [], scope)
            return outputs, _inside(Loop(None), found)
        if name == "shard_map":  # The shapes within it are those of one part of its arguments.
            within, _ = opened(params["jaxpr"])
            pairs: Any = zip(equation.invars, within.invars, strict=True)
            times = max((whole.aval.size // max(1, part.aval.size) for whole, part in pairs), default=1)
            return results(equation, inputs), _inside(Loop(times), self.operations(within, scope))
        hidden = [each for program in jaxprs_in_params(params) for each in self.operations(program, scope)]
        return results(equation, inputs), _inside(Loop(None), hidden)

    def scan(self, params, inputs, scope):
        (consts, carry, xs), length = scanned(params, inputs), params["length"]
        outputs, found = self.iterated(params["jaxpr"], consts, carry, [array.unstacked() for array in xs], scope)
        weights = {each.operands[each.weights].view for each in found if each.weights is not None}
        here, stack = self.layer(scope), None
        # The module within this scope that all of the stacked weights are in.
        paths = [str(array.view).split("/")[:-1] for array in xs if array.view and array.view in weights]
        if modules := {".".join(path[: len(parts(here)) + 1]) for path in paths}:
            stack = modules.pop() if len(modules) == 1 else here
        ys = [array.stacked(length) for array in outputs[len(carry) :]]
        return [*outputs[: len(carry)], *ys], _inside(Loop(length, stack, params["unroll"] >= length), found)

    def iterated(self, body, consts, carry, xs, scope):
        """The body of a loop, for a carry that describes the arrays of every iteration."""
        while True:
            outputs, found = self.program(body, [*consts, *carry, *xs], scope)
            joined = [before.joined(after) for before, after in zip(carry, outputs, strict=False)]
            if joined == carry:
                return outputs, found
            carry = joined

    def operations(self, program: ClosedJaxpr | Jaxpr, scope: str = "") -> list[Operation]:
        """Of a program whose inputs are not known."""
        jaxpr, _ = opened(program)
        return self.program(jaxpr, [Array.of(variable.aval) for variable in jaxpr.invars], scope)[1]

    def operation(self, scope, kind, count, operands, result, summed=frozenset()):
        phase = "backward" if "transpose(" in scope else "forward"
        phase = "recompute" if RECOMPUTED in scope else phase
        return Operation(self.layer(scope), kind, phase, count, operands, result, summed)

    def layer(self, scope: str) -> str:
        """The path of the module of a scope such as "/transpose(jvp(SDiT))/mid_block/reconstruction.gate/over_tokens"."""
        scopes = [part for part in re.sub(r"\w+\(|\)", "", scope).split("/") if part not in ("", RECOMPUTED, "checkpoint")]
        scopes = [part for part in scopes if "->" not in part]  # Of `jnp.einsum`, which are named by its axes.
        network = scopes[0].split(".")[0] if scopes else ""
        while scopes and network not in self.modules and scopes[0].split(".")[0] == network:  # The class of the network.
            scopes = scopes[1:]
        path = []
        for part in scopes:
            module, _, method = part.partition(".")
            if not (method and path[-1:] == [module]):  # A method that a module calls of itself.
                path.append(module)
        return ".".join(path)


def _literal(atom):
    return dataclasses.replace(Array.of(atom.aval), steps=None if np.any(atom.val) else 0)


def _inside(loop, operations):
    return [dataclasses.replace(each, loops=(loop, *each.loops)) for each in operations]


def largest(branches: Sequence[ClosedJaxpr]) -> int:
    """The index of the program with the most multiply-accumulates."""
    counts = [sum(each.macs for each in Walker().operations(branch)) for branch in branches]
    return counts.index(max(counts))


def macs(equation: JaxprEqn) -> int:
    """Multiply-accumulates of a dot or convolution."""
    shapes: Any = [variable.aval for variable in (*equation.invars, *equation.outvars)]
    lhs, rhs, out = (aval.shape for aval in shapes)
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        return math.prod(out) * math.prod(lhs[axis] for axis in contracted)
    params, numbers = equation.params, equation.params["dimension_numbers"]
    count = math.prod(out[axis] for axis in numbers.out_spec[:2]) * rhs[numbers.rhs_spec[1]]
    windows = params["window_strides"], params["padding"], params["lhs_dilation"], params["rhs_dilation"]
    for axis, tap_axis, *window in zip(numbers.out_spec[2:], numbers.rhs_spec[2:], *windows, strict=True):
        stride, (before, _), spacing, dilation = window
        places = np.arange(out[axis])[:, None] * stride - before + np.arange(rhs[tap_axis]) * dilation
        count *= int((places % spacing == 0).sum())  # Between inputs stand spacing - 1 zeros.
    return count
