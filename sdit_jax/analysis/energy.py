"""Energy of a forward pass with constants of 45 nm, layer by layer, in three accounts (equations in `analysis.layer`).

    convention      4.6 pJ per MAC with a real-valued input, 0.9 pJ per addition that a spike causes (PAPER section 8)
    with memory     that, and weights, spikes, activations and membranes moved from and to on-chip SRAM
    quantised       integer arithmetic, against the same network with quantised activations of as many levels as T spikes count

ACs of a layer are T x rate x MACs for a product on counts of T steps, with the rate of the layer's *input*; where spikes are
trains, MACs cover all T steps and ACs are rate x MACs. For a product of two spiking activations (attention), both must fire.
WKV is real-valued, in a line of its own. The non-spiking baseline has the same matrices, and only real-valued inputs.
"""

import dataclasses
from typing import Any

import jax

from sdit_jax.analysis import observe as observed
from sdit_jax.analysis.layer import LayerEnergy, NeuronsEnergy
from sdit_jax.analysis.observe import Observation, observe
from sdit_jax.analysis.operations import forward
from sdit_jax.analysis.prices import MAC_PJ, PRICES, WEIGHT_BITS
from sdit_jax.models import Network

LEFT_OUT = (
    "elementwise work: norms, token shift, gates, sigmoids, residual additions, biases",
    "exponentials and divisions of WKV",
    "embedding tables and the sinusoid of the timestep",
    "neuron updates (counted, without a price for their arithmetic)",
    "the network on the chip, control, leakage, and weights from DRAM (priced apart, as a lower bound)",
)


@dataclasses.dataclass(frozen=True)
class Energy:
    """One forward pass of one image.

    `baseline` are the layers of the non-spiking baseline, whose inputs are all real-valued. `neuron_updates` is spiking steps
    times neurons, over all layers of `neurons`.
    """

    layers: tuple[LayerEnergy, ...]
    baseline: tuple[LayerEnergy, ...]
    neurons: tuple[NeuronsEnergy, ...]
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
        """The convention: arithmetic alone."""
        return sum(layer.pJ for layer in self.layers)

    @property
    def baseline_macs(self) -> int:
        return sum(layer.macs for layer in self.baseline)

    @property
    def baseline_pJ(self) -> float:
        return MAC_PJ * self.baseline_macs

    @property
    def neuron_updates(self) -> int:
        return sum(layer.updates for layer in self.neurons)

    @property
    def membranes_pJ(self) -> float:
        return sum(layer.with_memory_pJ for layer in self.neurons)

    @property
    def with_memory_pJ(self) -> float:
        return self.membranes_pJ + sum(layer.with_memory_pJ for layer in self.layers)

    @property
    def baseline_with_memory_pJ(self) -> float:
        return sum(layer.with_memory_pJ for layer in self.baseline)

    @property
    def quantised_pJ(self) -> float:
        return sum(layer.quantised_pJ for layer in self.layers)

    @property
    def quantised_with_memory_pJ(self) -> float:
        return self.membranes_pJ + sum(layer.quantised_with_memory_pJ for layer in self.layers)

    @property
    def rival_pJ(self) -> float:
        return sum(layer.rival_pJ for layer in self.layers)

    @property
    def rival_with_memory_pJ(self) -> float:
        return sum(layer.rival_with_memory_pJ for layer in self.layers)

    @property
    def spike_driven(self) -> tuple[str, ...]:
        """The layers whose input is spikes."""
        return tuple(layer.name for layer in self.layers if layer.binary)

    @property
    def spike_driven_fraction(self) -> float:
        """The share of those layers in all multiply-accumulates, whatever their rates."""
        return 1 - self.macs / sum(layer.synaptic_operations for layer in self.layers)

    @property
    def rate(self) -> float | None:
        """Spikes per neuron and step of spiking inputs, weighted by the multiply-accumulates that they feed."""
        return self.acs / self._synaptic_operations if self.spike_driven else None

    @property
    def break_even_rate(self) -> float | None:
        """The rate at which the arithmetic of all spike-driven layers costs what the quantised rival's does."""
        spiking = [layer for layer in self.layers if layer.break_even_rate is not None]
        total = sum((layer.break_even_rate or 0) * layer.synaptic_operations for layer in spiking)
        return total / self._synaptic_operations if spiking else None

    @property
    def _synaptic_operations(self):
        return sum(layer.synaptic_operations for layer in self.layers if layer.binary)

    @property
    def summary(self) -> str:
        """Sentences for a report, one for each account."""
        work, cost = f"{self.macs / 1e9:.4g} G MACs", f"{_joules(self.pJ)} per forward pass"
        against = f"the non-spiking baseline costs {_joules(self.baseline_pJ)}"
        memory = (
            f"With weights, activations and membranes moved on the chip it is {_joules(self.with_memory_pJ)} against "
            f"{_joules(self.baseline_with_memory_pJ)}"
        )
        if not self.spike_driven:
            inputs = f"all {len(self.layers)} multiply real-valued inputs"
            return f"No layer is spike-driven: {inputs}, {work}, {cost}; {against}. {memory}."
        return (
            f"{len(self.spike_driven)} of {len(self.layers)} layers are spike-driven, with {self.spike_driven_fraction:.1%} of "
            f"the operations: {self.acs / 1e9:.4g} G ACs and {work}, {cost}; {against}. "
            f"{memory}: spikes {_verdict(self.with_memory_pJ, self.baseline_with_memory_pJ)}. {self._against_quantised}"
        )

    @property
    def _against_quantised(self):
        bits = " and ".join(str(n) for n in sorted({layer.bits for layer in self.layers if layer.binary}))
        return (
            f"In integers with {WEIGHT_BITS}-bit weights it is {_joules(self.quantised_pJ)}, and {_joules(self.rival_pJ)} for "
            f"the same network with activations of {bits} bits in place of spikes: spikes "
            f"{_verdict(self.quantised_pJ, self.rival_pJ)} in arithmetic (mean rate {self.rate:.3f}, break-even "
            f"{self.break_even_rate:.3f}) and {_verdict(self.quantised_with_memory_pJ, self.rival_with_memory_pJ)} with memory "
            f"({_joules(self.quantised_with_memory_pJ)} against {_joules(self.rival_with_memory_pJ)})."
        )

    def per_image(self, calls: int) -> dict[str, Any]:
        """Totals for one generated image, which takes so many calls of the network."""
        each = {"macs": self.macs, "acs": self.acs, "pJ": self.pJ, "twin_pJ": self.baseline_pJ}
        each["neuron_updates"] = self.neuron_updates
        each |= {"with_memory_pJ": self.with_memory_pJ, "twin_with_memory_pJ": self.baseline_with_memory_pJ}
        each |= {"quantised_pJ": self.quantised_pJ, "rival_pJ": self.rival_pJ}
        each["quantised_with_memory_pJ"] = self.quantised_with_memory_pJ
        each["rival_with_memory_pJ"] = self.rival_with_memory_pJ
        return {"forward_passes": calls} | {name: calls * value for name, value in each.items()}

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, texts and lists, for JSON; "twin" is the non-spiking baseline, "rival" the quantised network.

        The twin of a layer has its name; a layer without one has null there.
        """
        total = lambda name: sum(getattr(layer, name) for layer in self.layers)
        twins = {layer.name: {"twin_pJ": layer.pJ, "twin_with_memory_pJ": layer.with_memory_pJ} for layer in self.baseline}
        no_twin = {"twin_pJ": None, "twin_with_memory_pJ": None}
        return {
            "summary": self.summary,
            "per_forward": {"macs": self.macs, "acs": self.acs, "pJ": self.pJ},
            "twin": {"macs": self.baseline_macs, "pJ": self.baseline_pJ},
            "with_memory": {
                "pJ": self.with_memory_pJ, "twin_pJ": self.baseline_with_memory_pJ, "arithmetic_pJ": self.pJ,
                "weights_pJ": total("weights_pJ"), "activations_pJ": total("activations_pJ"), "membranes_pJ": self.membranes_pJ,
            },
            "quantised": {
                "weight_bits": WEIGHT_BITS, "activation_bits": sorted({layer.bits for layer in self.layers if layer.binary}),
                "pJ": self.quantised_pJ, "rival_pJ": self.rival_pJ, "with_memory_pJ": self.quantised_with_memory_pJ,
                "rival_with_memory_pJ": self.rival_with_memory_pJ, "rate": self.rate, "break_even_rate": self.break_even_rate,
            },
            "memory": {"dram_pJ": total("dram_pJ"), "sram_pJ": total("sram_pJ")},
            "neuron_updates": self.neuron_updates,
            "spike_driven": {"layers": list(self.spike_driven), "fraction": self.spike_driven_fraction},
            "pJ_per": PRICES,
            "layers": [layer.to_dict() | twins.get(layer.name, no_twin) for layer in self.layers],
            "neurons": [layer.to_dict() for layer in self.neurons],
            "left_out": list(self.left_out),
        }  # fmt: skip


def measure_energy(model: Network, variables: Any, x_BHWC: jax.Array, t_B: jax.Array, y_B: jax.Array | None) -> Energy:
    """The energy of one forward pass `model.apply(variables, x, t, y)`, per image."""
    return account(model, observe(model, variables, x_BHWC, t_B, y_B))


def account(model: Network, observation: Observation) -> Energy:
    """The energy of what was observed of the network."""
    unknown = [f"{layer}: further runs of a loop of unknown length" for layer in observation.one.uncertain]
    return Energy(
        tuple(observed.layers(observation)),
        tuple(observed.without_spikes(forward(model.baseline()), observation.parameters)),
        tuple(observed.neurons(observation)),
        LEFT_OUT + tuple(unknown),
    )


def _joules(pJ):
    unit, size = next((unit for unit in (("mJ", 1e9), ("µJ", 1e6)) if pJ >= 0.1 * unit[1]), ("nJ", 1e3))
    return f"{pJ / size:.4g} {unit}"


def _verdict(spiking, other):
    return "win" if spiking < other else "lose"
