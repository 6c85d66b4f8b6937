"""A traced program run on numbers: what the operands of its products hold, whether they are spikes, and how often they fire."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, jaxprs_in_params

from sdit_jax.analysis.operations import Program
from sdit_jax.analysis.walker import CALLS, PRODUCTS, Operation, Walker, largest, macs, opened, scanned
from sdit_jax.ops import marks


class Seen(NamedTuple):
    """The operands of a product, in each iteration of its loops (leading axes, the outermost loop first).

    `spikes` (..., 2): whether all numbers of an operand are n / T with a whole n in -T..T, for T its `steps`, 1 if it has none.
    `signed` (..., 2): whether some are negative. `rate` (..., 2): their mean magnitude, for spikes the spikes per neuron and
    step. `active` (..., 2): the share of numbers that are not 0; of trains, the share of neurons that spike in any step. These
    are False and 0 for weights.

    Means over the multiplications: `together`, of both magnitudes or, for weights, of 1 in place of their magnitudes that are
    not 0; `effective`, of 1 where both factors are not 0; `inside`, of 1 but for the padding of a convolution.
    """

    spikes: jax.Array
    signed: jax.Array
    rate: jax.Array
    active: jax.Array
    together: jax.Array
    effective: jax.Array
    inside: jax.Array


class Fired(NamedTuple):
    """The spikes per neuron and step of a layer of neurons, in each iteration of its loops."""

    rate: jax.Array


class _Operand(NamedTuple):
    """`Seen` of one operand: `whole` (..., K) for each of K possible steps, and which of its numbers are not 0."""

    whole: jax.Array
    signed: jax.Array
    rate: jax.Array
    share: jax.Array
    nonzero: jax.Array


class _Raw(NamedTuple):
    """`Seen` before it is known what the operands are; what is not used is not computed once it is compiled.

    `together` has both magnitudes, that of the first with a second that is not 0, and that of the second.
    """

    operands: tuple[_Operand, _Operand]
    together: tuple[jax.Array, jax.Array, jax.Array]
    effective: jax.Array
    inside: jax.Array


def is_watched(operation: Operation) -> bool:
    """Whether `measure` returns something for it: a product or a layer of neurons."""
    return operation.is_product or operation.kind == marks.NEURONS


def measure(program: Program, one: Program, window: int, *arguments: Any) -> list[Seen | Fired]:
    """Runs a program on its arguments and returns what was seen of its products and neurons, in the order of its equations.

    `one` is the same program for one image; `window` is T where spikes are trains, one number a step. Meant to be jitted.
    Products in loops of unknown length are not looked into: they count as real-valued, such neurons as silent.
    """
    watched = [operation for operation in one.equations if is_watched(operation)]
    steps = {array.steps or 1 for operation in watched for array in operation.operands}
    run = _Run(sorted({1, *steps}))
    found = run.program(program.jaxpr, program.consts, jax.tree.leaves(arguments))[1]
    return [_seen(raw, operation, run.steps, window) for raw, operation in zip(found, watched, strict=True)]


def loop_of_steps(operation: Operation, window: int) -> int | None:
    """Which of the loops around an operation for one image runs through T = `window` spiking steps."""
    loops = [i for i, loop in enumerate(operation.loops) if loop.stack is None and loop.length == window > 1]
    return loops[0] if loops else None


def is_train(operation: Operation, operand: int, window: int) -> bool:
    """Whether spikes that are multiplied for one image are of T = `window` steps: over a loop, or by their shape.

    By their shape if they are behind neurons with one number a step, or if their first axis is T long.
    """
    spikes = operation.operands[operand]
    by_shape = window > 1 and (spikes.steps == 1 or spikes.shape[:1] == (window,))
    return by_shape or loop_of_steps(operation, window) is not None


def _seen(raw, operation, steps, window):
    if isinstance(raw, Fired):
        return raw
    no = jnp.zeros_like(raw.effective)
    sides = [(no > 0, no > 0, no, no)] * 2
    for i, operand in enumerate(raw.operands):
        if i != operation.weights:
            whole = operand.whole[..., steps.index(operation.operands[i].steps or 1)]
            sides[i] = whole, operand.signed, operand.rate, _active(operand, operation, i, window)
    spikes, signed, rate, active = (jnp.stack(pair, -1) for pair in zip(*sides, strict=True))
    together = raw.together[0 if operation.weights is None else 2 - operation.weights]
    return Seen(spikes, signed, rate, active, together, raw.effective, raw.inside)


def _active(operand, operation, i, window):
    """Steps are in front of all other axes. If they are not found, as if neurons that spike did so at all steps."""
    loops, loop = len(operation.loops), loop_of_steps(operation, window)
    if loop is not None:
        fired = operand.nonzero.any(loop, keepdims=True)
    elif is_train(operation, i, window) and operand.nonzero.shape[loops] % window == 0:
        fired = operand.nonzero.reshape(*operand.nonzero.shape[:loops], window, -1).any(loops)
    else:
        return operand.share
    return jnp.broadcast_to(fired.mean(range(loops, fired.ndim), dtype=jnp.float32), operand.share.shape)


class _Run:
    """Each method returns (results, what was seen)."""

    def __init__(self, steps: Sequence[int]):
        self.steps = steps

    def program(self, jaxpr: Jaxpr, consts: Sequence[Any], inputs: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *inputs), strict=True))
        read = lambda atom: atom.val if isinstance(atom, Literal) else values[atom]
        seen = []
        for equation in jaxpr.eqns:
            outputs, found = self.equation(equation, [read(atom) for atom in equation.invars])
            values |= zip(equation.outvars, outputs, strict=True)
            seen += found
        return [read(atom) for atom in jaxpr.outvars], seen

    def equation(self, equation: JaxprEqn, inputs: list[Any]) -> tuple[list[Any], list[Any]]:
        name, params = equation.primitive.name, equation.params
        if name in CALLS:
            return self.program(*opened(params[CALLS[name]]), inputs)
        if name == "scan" and _watched(params["jaxpr"]):
            return self.scan(params, inputs)
        outputs = equation.primitive.bind(*inputs, **params)
        outputs = list(outputs) if equation.primitive.multiple_results else [outputs]
        if name in PRODUCTS:
            return outputs, [self.product(equation, *inputs)]
        if name == "name" and (marks.read(params["name"]) or [""])[0] == marks.NEURONS:
            return outputs, [Fired(jnp.abs(outputs[0]).mean(dtype=jnp.float32))]
        if name == "cond":  # The branch that counts.
            branch = params["branches"][largest(params["branches"])]
            return outputs, self.program(*opened(branch), inputs[1:])[1] if _watched(branch) else []
        inside = [params["body_jaxpr"]] if name == "while" else jaxprs_in_params(params)
        return outputs, [self.nothing(operation) for program in inside for operation in _watched(program)]

    def scan(self, params: dict[str, Any], inputs: list[Any]) -> tuple[list[Any], list[Any]]:
        consts, start, xs = scanned(params, inputs)

        def body(carry, xs):
            outputs, seen = self.program(*opened(params["jaxpr"]), [*consts, *carry, *xs])
            return outputs[: len(carry)], (outputs[len(carry) :], seen)

        settings = {name: params[name] for name in ("length", "reverse", "unroll")}
        carry, (ys, seen) = jax.lax.scan(body, start, xs, **settings)
        return [*carry, *ys], seen

    def product(self, equation: JaxprEqn, lhs: jax.Array, rhs: jax.Array) -> _Raw:
        sizes, there = [[each(x).astype(jnp.float32) for x in (lhs, rhs)] for each in (jnp.abs, lambda x: x != 0)]
        mean = lambda *factors: _summed_products(equation, *factors) / macs(equation)
        together = mean(*sizes), mean(sizes[0], there[1]), mean(there[0], sizes[1])
        dot = equation.primitive.name == "dot_general"
        inside = jnp.ones(()) if dot else mean(*[jnp.ones_like(x) for x in sizes])
        return _Raw((self.operand(lhs), self.operand(rhs)), together, mean(*there), inside)

    def operand(self, x: jax.Array) -> _Operand:
        whole, nonzero = jnp.stack([_are_counts(x, T) for T in self.steps]), x != 0
        rate, share = jnp.abs(x).mean(dtype=jnp.float32), nonzero.mean(dtype=jnp.float32)
        return _Operand(whole, (x < 0).any(), rate, share, nonzero)

    def nothing(self, operation: Operation) -> Any:
        loops = (1, *(loop.length or 1 for loop in operation.loops))
        if operation.kind == marks.NEURONS:
            return Fired(jnp.zeros(loops))
        no, ones = jnp.zeros((*loops, len(self.steps)), bool), jnp.ones(loops)
        operands = [
            _Operand(no, no[..., 0], 0 * ones, ones, jnp.ones((*loops, *array.shape), bool)) for array in operation.operands
        ]
        return _Raw((operands[0], operands[1]), (ones, ones, ones), ones, ones)


def _watched(program: ClosedJaxpr | Jaxpr) -> list[Operation]:
    return [operation for operation in Walker().operations(program) if is_watched(operation)]


def _are_counts(x, T):
    """Whether all numbers are n / T as x's dtype rounds it, with a whole n in -T..T."""
    numbers = x.astype(jnp.float32)
    n = jnp.clip(jnp.round(T * numbers), -T, T)
    rounding = jnp.finfo(x.dtype).eps if T > 1 and jnp.issubdtype(x.dtype, jnp.floating) else 0
    return (jnp.abs(numbers - n / T) <= rounding * jnp.abs(n) / T).all()


def _summed_products(equation, lhs, rhs):
    """The sum over all elements of a dot or convolution of these operands, without forming it."""
    params, numbers = equation.params, equation.params["dimension_numbers"]
    if equation.primitive.name == "dot_general":
        (sum_l, sum_r), (batch_l, batch_r) = numbers
        kept_l, kept_r = (*batch_l, *sum_l), (*batch_r, *sum_r)
        free = lambda x, kept: [axis for axis in range(x.ndim) if axis not in kept]
        total = lambda x, kept: x.transpose(*kept, *free(x, kept)).sum(range(len(kept), x.ndim))
        return (total(lhs, kept_l) * total(rhs, kept_r)).sum()
    out, groups = numbers.rhs_spec[0], params["feature_group_count"]
    channels = jnp.moveaxis(rhs, out, 0)
    summed = channels.reshape(groups, math.prod(channels.shape[:1]) // groups, *channels.shape[1:]).sum(1)
    names = ("window_strides", "padding", "lhs_dilation", "rhs_dilation", "feature_group_count")
    settings = {name: params[name] for name in names}
    return jax.lax.conv_general_dilated(lhs, jnp.moveaxis(summed, 0, out), dimension_numbers=numbers, **settings).sum()
