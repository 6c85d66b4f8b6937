"""Energy of a forward pass with Horowitz's 45 nm constants (PAPER section 8), layer by layer.

    pJ(layer) = 4.6 MACs      real-valued input: a float32 multiplication (3.7) and addition (0.9) per multiply-accumulate
    pJ(layer) = 0.9 ACs       binary input: an addition per spike, ACs = rate x MACs

`rate` is the firing rate of the layer's *input*; for a product of two binary activations (attention), how often both fire. MACs
are those that the network performs: of a layer that runs at each of T spiking steps they cover all T, and the rate is the mean
over T, so that ACs need no further factor T. WKV is real-valued, in a line of its own.
Sources: Han et al. 2015 (arXiv 1506.02626), table 1, after Horowitz 2014; the convention of spiking papers is PAPER section 8.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
from flax.traverse_util import flatten_dict

from sdit_jax.analysis.operations import Program, forward, trace
from sdit_jax.analysis.statistics import Seen, measure
from sdit_jax.analysis.walker import Operation
from sdit_jax.models import Network
from sdit_jax.ops import marks

MAC_PJ, AC_PJ = 4.6, 0.9
SRAM_PJ, DRAM_PJ = 5.0, 640.0  # Per access of 32 bits; SRAM of 32 KB.
WORD = 32
LEFT_OUT = (
    "elementwise work: norms, token shift, gates, sigmoids, residual additions, biases",
    "exponentials and divisions of WKV",
    "embedding tables and the sinusoid of the timestep",
    "neuron updates (counted, without a price)",
    "memory traffic (priced apart, as a lower bound)",
)


@dataclasses.dataclass(frozen=True)
class LayerEnergy:
    """One layer in one forward pass of one image. `weights`, `inputs` and `outputs` are counts of numbers.

    `rate` is the firing rate of a binary input (all values seen were 0 or 1, not all 0), None for a real-valued one. `spikes`
    of the inputs are binary: all, none or, in a product of two activations, those of one operand.
    """

    name: str
    macs: int
    rate: float | None
    weights: int
    inputs: int
    outputs: int
    spikes: int = 0

    @property
    def binary(self) -> bool:
        return self.rate is not None

    @property
    def acs(self) -> float:
        """Additions caused by spikes; 0 for a real-valued input."""
        return self.macs * self.rate if self.rate is not None else 0.0

    @property
    def pJ(self) -> float:
        return AC_PJ * self.acs if self.binary else MAC_PJ * self.macs

    @property
    def dram_pJ(self) -> float:
        """Every weight read once: a lower bound at batch 1."""
        return DRAM_PJ * self.weights

    @property
    def sram_pJ(self) -> float:
        """Every input and output moved once, 32 spikes to an access: a lower bound."""
        return SRAM_PJ * (self.inputs - self.spikes + self.spikes / WORD + self.outputs)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {key: getattr(self, key) for key in ("binary", "acs", "pJ", "dram_pJ", "sram_pJ")}


@dataclasses.dataclass(frozen=True)
class Energy:
    """One forward pass of one image.

    `baseline_macs` are those of the non-spiking baseline, whose inputs are all real-valued. `neuron_updates` is spiking steps
    times neurons, over all layers of neurons.
    """

    layers: tuple[LayerEnergy, ...]
    baseline_macs: int
    neuron_updates: int
    left_out: tuple[str, ...] = LEFT_OUT

    @property
    def macs(self) -> int:
        """Of layers with real-valued input."""
        return sum(layer.macs for layer in self.layers if not layer.binary)

    @property
    def acs(self) -> float:
        return sum(layer.acs for layer in self.layers)

    @property
    def pJ(self) -> float:
        """Of arithmetic alone."""
        return sum(layer.pJ for layer in self.layers)

    @property
    def baseline_pJ(self) -> float:
        return MAC_PJ * self.baseline_macs

    @property
    def spike_driven(self) -> tuple[str, ...]:
        """The layers whose input is binary."""
        return tuple(layer.name for layer in self.layers if layer.binary)

    @property
    def spike_driven_fraction(self) -> float:
        """The share of those layers in all multiply-accumulates, whatever their rates."""
        return 1 - self.macs / sum(layer.macs for layer in self.layers)

    @property
    def summary(self) -> str:
        """A sentence for a report."""
        work, cost = f"{self.macs / 1e9:.4g} G MACs", f"{self.pJ / 1e9:.4g} mJ per forward pass"
        baseline = f"the non-spiking baseline costs {self.baseline_pJ / 1e9:.4g} mJ"
        if not self.spike_driven:
            return f"No layer is spike-driven: all {len(self.layers)} multiply real-valued inputs, {work}, {cost}; {baseline}."
        return (
            f"{len(self.spike_driven)} of {len(self.layers)} layers are spike-driven, with {self.spike_driven_fraction:.1%} of "
            f"the operations: {self.acs / 1e9:.4g} G ACs and {work}, {cost}; {baseline}."
        )

    def per_image(self, calls: int) -> dict[str, Any]:
        """Totals for one generated image, which takes so many calls of the network."""
        each = {"macs": self.macs, "acs": self.acs, "pJ": self.pJ, "twin_pJ": self.baseline_pJ}
        each["neuron_updates"] = self.neuron_updates
        return {"forward_passes": calls} | {name: calls * value for name, value in each.items()}

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, texts and lists, for JSON; "twin" is the non-spiking baseline."""
        return {
            "summary": self.summary,
            "per_forward": {"macs": self.macs, "acs": self.acs, "pJ": self.pJ},
            "twin": {"macs": self.baseline_macs, "pJ": self.baseline_pJ},
            "memory": {
                "dram_pJ": sum(layer.dram_pJ for layer in self.layers), "sram_pJ": sum(layer.sram_pJ for layer in self.layers),
            },
            "neuron_updates": self.neuron_updates,
            "spike_driven": {"layers": list(self.spike_driven), "fraction": self.spike_driven_fraction},
            "pJ_per": {"mac": MAC_PJ, "ac": AC_PJ, "sram_access": SRAM_PJ, "dram_access": DRAM_PJ},
            "layers": [layer.to_dict() for layer in self.layers],
            "left_out": list(self.left_out),
        }  # fmt: skip


def measure_energy(model: Network, variables: Any, x_BHWC: jax.Array, t_B: jax.Array, y_B: jax.Array | None) -> Energy:
    """The energy of one forward pass `model.apply(variables, x, t, y)`, per image.

    Counts come from the program traced at batch 1; which inputs are binary, and how often they fire, from running it on the
    batch. An input is binary if it still is after x, t and all parameters are moved a little: neurons give 0 and 1 for any
    input, while the sinusoid of t = 0, or a learned token at its initial value of 1, is binary by chance.
    """
    inputs = x_BHWC, t_B, y_B
    program, one = trace(model.apply, variables, *inputs), forward(model)
    run = jax.jit(lambda *arguments: measure(program, *arguments))
    found, again = run(variables, *inputs), run(jax.tree.map(lambda leaf: 1.01 * leaf, variables), x_BHWC + 0.1, t_B + 1, y_B)
    seen = [jax.device_get(Seen(a.binary & b.binary, a.rate)) for a, b in zip(found, again, strict=True)]
    return Energy(
        tuple(_layers(one, seen, flatten_dict(variables["params"], sep="/"))),
        forward(model.baseline()).macs,
        sum(operation.updates for operation in one.operations),
        LEFT_OUT + tuple(f"{layer}: further runs of a loop of unknown length" for layer in one.uncertain),
    )


def _layers(one: Program, seen: Sequence[Seen], parameters: Mapping[str, Any]) -> Iterator[LayerEnergy]:
    """The layers of a program at batch 1, given what its products saw.

    The operations of a layer are added up, apart for binary and for real-valued inputs.
    """
    products = [i for i, operation in enumerate(one.equations) if operation.is_product]
    of_equation = dict(zip(products, seen, strict=True))
    lines: dict[tuple[str, bool], list[tuple[Operation, LayerEnergy]]] = {}
    for operation, equation, index in one.by_layer:
        if operation.is_product:
            line = _product(operation, of_equation[equation], index)
        elif operation.kind == marks.WKV:  # Of keys and values.
            outputs = operation.runs * operation.result.size
            line = LayerEnergy(f"{operation.layer}.wkv", operation.macs, None, 0, 2 * outputs, outputs)
        else:
            continue
        lines.setdefault((line.name, line.binary), []).append((operation, line))
    names = set()
    for (name, binary), calls in lines.items():
        total = {field: sum(getattr(line, field) for _, line in calls) for field in ("macs", "inputs", "outputs", "spikes")}
        rate = sum(line.acs for _, line in calls) / total["macs"] if binary else None
        weights = _weights([operation for operation, _ in calls], {} if name in names else parameters)
        yield LayerEnergy(f"{name}.1" if name in names else name, rate=rate, weights=weights, **total)
        names.add(name)


def _product(operation: Operation, seen: Seen, index: tuple[Any, ...]) -> LayerEnergy:
    """The line of a product, without its weights. Of two activations, each may be binary; if both are, both must fire."""
    binary, rates = seen.binary[index].reshape(-1, 2).all(0), seen.rate[index].reshape(-1, 3).mean(0)
    inputs = [i for i in (0, 1) if i != operation.weights]
    firing = [i for i in inputs if binary[i] and rates[i] > 0]
    both = 2  # The index in `rates` of the pairs in which both inputs fire.
    which = firing[0] if len(firing) == 1 else both
    rate = float(rates[which]) if firing else None
    size = lambda operands: operation.runs * sum(operation.operands[i].size for i in operands)
    outputs = operation.runs * operation.result.size
    return LayerEnergy(operation.layer, operation.macs, rate, 0, size(inputs), outputs, size(firing))


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
