"""A traced program run on numbers, to see which operands of its products are spikes, and how often they fire."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, jaxprs_in_params

from sdit_jax.analysis.operations import Program
from sdit_jax.analysis.walker import CALLS, PRODUCTS, Operation, Walker, largest, macs, opened, scanned


class Seen(NamedTuple):
    """The operands of a product, in each iteration of its loops (leading axes, the outermost loop first).

    `binary` (..., 2): whether all numbers of each operand are 0 or 1. `rate` (..., 3): the share of each operand's numbers that
    are not 0, and the mean product of two numbers: for two binary operands, how often both are 1.
    """

    binary: jax.Array
    rate: jax.Array


def measure(program: Program, *arguments: Any) -> list[Seen]:
    """Runs a program on its arguments and returns what its products saw, in the order of its equations. Meant to be jitted.

    Products in loops of unknown length are not looked into; they count as not binary.
    """
    return _run(program.jaxpr, program.consts, jax.tree.leaves(arguments))[1]


def _run(jaxpr: Jaxpr, consts: Sequence[Any], inputs: Sequence[Any]) -> tuple[list[Any], list[Seen]]:
    """(results, what was seen)."""
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *inputs), strict=True))
    read = lambda atom: atom.val if isinstance(atom, Literal) else values[atom]
    seen = []
    for equation in jaxpr.eqns:
        outputs, found = _equation(equation, [read(atom) for atom in equation.invars])
        values |= zip(equation.outvars, outputs, strict=True)
        seen += found
    return [read(atom) for atom in jaxpr.outvars], seen


def _equation(equation: JaxprEqn, inputs: list[Any]) -> tuple[list[Any], list[Seen]]:
    name, params = equation.primitive.name, equation.params
    if name in CALLS:
        return _run(*opened(params[CALLS[name]]), inputs)
    if name == "scan" and _products(params["jaxpr"]):
        return _scan(params, inputs)
    outputs = equation.primitive.bind(*inputs, **params)
    outputs = list(outputs) if equation.primitive.multiple_results else [outputs]
    if name in PRODUCTS:
        lhs, rhs = inputs
        return outputs, [_seen(lhs, rhs, outputs[0], macs(equation))]
    if name == "cond":  # The branch that counts.
        branch = params["branches"][largest(params["branches"])]
        return outputs, _run(*opened(branch), inputs[1:])[1] if _products(branch) else []
    inside = [params["body_jaxpr"]] if name == "while" else jaxprs_in_params(params)
    return outputs, [_nothing(product) for program in inside for product in _products(program)]


def _scan(params: dict[str, Any], inputs: list[Any]) -> tuple[list[Any], list[Seen]]:
    consts, start, xs = scanned(params, inputs)

    def body(carry, xs):
        outputs, seen = _run(*opened(params["jaxpr"]), [*consts, *carry, *xs])
        return outputs[: len(carry)], (outputs[len(carry) :], seen)

    settings = {name: params[name] for name in ("length", "reverse", "unroll")}
    carry, (ys, seen) = jax.lax.scan(body, start, xs, **settings)
    return [*carry, *ys], seen


def _products(program: ClosedJaxpr | Jaxpr) -> list[Operation]:
    return [operation for operation in Walker().operations(program) if operation.is_product]


def _seen(lhs, rhs, result, count: int) -> Seen:
    binary = [((x == 0) | (x == 1)).all() for x in (lhs, rhs)]
    rate = [jnp.mean(x != 0, dtype=jnp.float32) for x in (lhs, rhs)]
    return Seen(jnp.stack(binary), jnp.stack([*rate, result.astype(jnp.float32).sum() / count]))


def _nothing(product: Operation) -> Seen:
    loops = (1, *(loop.length or 1 for loop in product.loops))
    return Seen(jnp.zeros((*loops, 2), bool), jnp.zeros((*loops, 3)))
