"""A network run on images for the count of its energy: the operations of each layer, and what its operands held."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
from flax.traverse_util import flatten_dict

from sdit_jax.analysis.layer import LayerEnergy, NeuronsEnergy
from sdit_jax.analysis.operations import InLayer, Program, forward, trace
from sdit_jax.analysis.statistics import Fired, Seen, is_train, is_watched, loop_of_steps, measure
from sdit_jax.analysis.walker import Operation
from sdit_jax.models import Network
from sdit_jax.ops import marks


@dataclasses.dataclass(frozen=True)
class Observation:
    """`one` is a forward pass of one image; `seen` holds what its products and neurons saw, by the index of their equation.

    `parameters` are those of the network by path, `window` its spiking steps.
    """

    one: Program
    seen: Mapping[int, Seen | Fired]
    parameters: Mapping[str, Any]
    window: int


def observe(model: Network, variables: Any, x_BHWC: jax.Array, t_B: jax.Array, y_B: jax.Array | None) -> Observation:
    """Runs `model.apply(variables, x, t, y)`.

    Counts come from the program traced at batch 1; which inputs are spikes, and how often they fire, from running it on the
    batch. An input is spikes if

      - it comes from neurons by equations that change no number, such as slices, and its numbers are counts n / T of spikes, or
      - its numbers are -1, 0 and 1, wherever they come from,

    in this run and in one where x, t and all parameters are moved a little: neurons give spikes for any input, while the
    sinusoid of t = 0, or a learned token at its initial value of 1, is binary by chance.
    """
    inputs, window = (x_BHWC, t_B, y_B), model.spiking_steps
    program, one = trace(model.apply, variables, *inputs), forward(model)
    run = jax.jit(lambda *arguments: measure(program, one, window, *arguments))
    found, again = run(variables, *inputs), run(jax.tree.map(lambda leaf: 1.01 * leaf, variables), x_BHWC + 0.1, t_B + 1, y_B)
    both = [
        a._replace(spikes=a.spikes & b.spikes, signed=a.signed | b.signed) if isinstance(a, Seen) else a
        for a, b in zip(found, again, strict=True)
    ]
    watched = [i for i, operation in enumerate(one.equations) if is_watched(operation)]
    seen = dict(zip(watched, jax.device_get(both), strict=True))
    return Observation(one, seen, flatten_dict(variables["params"], sep="/"), window)


def layers(observation: Observation) -> Iterator[LayerEnergy]:
    """The layers with products or WKV, in their order.

    The operations of a layer are added up, apart for spikes and for real-valued inputs.
    """
    lines: dict[Any, list[tuple[Operation, LayerEnergy]]] = {}
    for found in observation.one.by_layer:
        operation = found.operation
        if operation.is_product:
            line = _product(found, observation)
        elif operation.kind == marks.WKV:
            line = _wkv(operation, observation.window)
        else:
            continue
        lines.setdefault((line.name, line.binary, line.steps, line.repeats), []).append((operation, line))
    yield from _added_up(lines, observation.parameters)


def without_spikes(program: Program, parameters: Mapping[str, Any]) -> Iterator[LayerEnergy]:
    """The layers of a forward pass of one image all of whose inputs are real-valued."""
    lines: dict[Any, list[tuple[Operation, LayerEnergy]]] = {}
    for operation in program.operations:
        if operation.is_product or operation.kind == marks.WKV:
            line = _real(operation, 1) if operation.is_product else _wkv(operation, 1)
            lines.setdefault(line.name, []).append((operation, line))
    yield from _added_up(lines, parameters)


def neurons(observation: Observation) -> Iterator[NeuronsEnergy]:
    """The layers of neurons, in their order."""
    found: dict[str, list[tuple[int, float]]] = {}
    for operation, equation, index in observation.one.by_layer:
        if operation.kind == marks.NEURONS:
            rate = float(observation.seen[equation].rate[index].mean())
            found.setdefault(operation.layer, []).append((operation.updates, rate))
    for name, calls in found.items():
        updates = sum(updates for updates, _ in calls)
        yield NeuronsEnergy(name, updates, sum(updates * rate for updates, rate in calls) / updates)


def spiking_operand(operation: Operation, seen: Seen, index: tuple[Any, ...]) -> list[int]:
    """Which operands of a product are spikes, of those that are no weights and not silent."""
    spikes, rates = seen.spikes[index].reshape(-1, 2).all(0), seen.rate[index].reshape(-1, 2).mean(0)
    return [i for i in (0, 1) if i != operation.weights and spikes[i] and rates[i] > 0]


def _product(found: InLayer, observation: Observation) -> LayerEnergy:
    """The line of a product, without its weights.

    Of two activations each may be spikes. If both are, both must fire in a step; counts, whose steps are not known, are taken
    as independent. If they stand for different steps, those with more spikes count.
    """
    (operation, equation, index), line = found, _real(found.operation, observation.window)
    seen: Any = observation.seen[equation]
    firing = spiking_operand(operation, seen, index)
    if not firing:
        return line
    steps = [array.steps or 1 for array in operation.operands]
    rates, active = (values[index].reshape(-1, 2).mean(0) for values in (seen.rate, seen.active))
    if len({steps[i] for i in firing}) > 1:
        firing = [max(firing, key=lambda i: steps[i] * rates[i])]
    both = len(firing) == 2
    return dataclasses.replace(
        line,
        rate=float(seen.together[index].mean() if both else rates[firing[0]]),
        spikes=operation.runs * sum(operation.operands[i].size for i in firing),
        steps=steps[firing[0]],
        repeats=observation.window if is_train(operation, firing[0], observation.window) else 1,
        signed=bool(seen.signed[index].reshape(-1, 2).any(0)[firing].any()),
        active=float(math.prod(active[firing])),
    )


def _real(operation: Operation, window: int) -> LayerEnergy:
    inputs = operation.runs * sum(array.size for i, array in enumerate(operation.operands) if i != operation.weights)
    outputs, repeats = operation.runs * operation.result.size, _repeats(operation, window)
    return LayerEnergy(operation.layer, operation.macs, None, 0, inputs, outputs, repeats=repeats)


def _wkv(operation: Operation, window: int) -> LayerEnergy:
    """Its inputs are keys and values."""
    outputs, repeats = operation.runs * operation.result.size, _repeats(operation, window)
    return LayerEnergy(f"{operation.layer}.wkv", operation.macs, None, 0, 2 * outputs, outputs, repeats=repeats)


def _repeats(operation, window):
    return 1 if loop_of_steps(operation, window) is None else window


def _added_up(lines: Mapping[Any, Sequence[tuple[Operation, LayerEnergy]]], parameters: Mapping[str, Any]):
    names: dict[str, int] = {}
    for calls in lines.values():
        first, each = calls[0][1], [line for _, line in calls]
        again = names.get(first.name, 0)
        names[first.name] = again + 1
        total = {field: sum(getattr(line, field) for line in each) for field in ("macs", "inputs", "outputs", "spikes")}
        mean = lambda field, each=each, total=total: sum(getattr(line, field) * line.macs for line in each) / total["macs"]
        yield dataclasses.replace(
            first,
            name=f"{first.name}.{again}" if again else first.name,
            rate=mean("rate") if first.binary else None,
            active=mean("active"),
            signed=any(line.signed for line in each),
            weights=_weights([operation for operation, _ in calls], {} if again else parameters),
            **total,
        )


def _weights(operations: Sequence[Operation], parameters: Mapping[str, Any]) -> int:
    """Numbers in the weights of a layer: all parameters of the modules that they are in, biases too.

    Those of WKV are its decays and bonuses. A matrix that is not found in `parameters` counts by itself.
    """
    sizes: dict[Any, int] = {}
    for operation in operations:
        if not operation.is_product:
            sizes[marks.WKV] = 2 * operation.result.shape[-1]
        elif operation.weights is not None:
            matrix = operation.operands[operation.weights]
            module = (matrix.view or "").rpartition("/")[0]
            stacks = [loop.stack.replace(".", "/") for loop in operation.loops if loop.stack is not None]
            lengths = [loop.length or 1 for loop in operation.loops if loop.stack is not None]
            blocks = math.prod(n for stack, n in zip(stacks, lengths, strict=True) if module.startswith(stack))
            found = [leaf.size for path, leaf in parameters.items() if path.rpartition("/")[0] == module and matrix.view]
            sizes[module if found else matrix] = sum(found) // blocks if found else matrix.size
    return sum(sizes.values())
