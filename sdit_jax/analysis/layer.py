"""One layer in one forward pass of one image: its operations, the numbers it moves, and what these cost in three accounts.

Let A be the accumulations that spikes cause, T rate MACs for a product on counts of T steps. W, I and O are the numbers of
weights, inputs and outputs, s the bits of a spike (1, signed 2), b those of a quantised activation, e(n) the energy of n bits
from or to on-chip SRAM, and r = 1 - the share of zeros among the quantised activations.

    account                         spikes                                          real-valued inputs
    convention                      0.9 A                                           4.6 MACs
    with memory                     0.9 A + e(32 A + T s I + T 32 O)                4.6 MACs + e(32 W + 32 I + 32 O)
    integers, 8-bit weights         addition(8) A                                   mac(8, 8) MACs
      with memory                   addition(8) A + e(8 A + T s I + T 32 O)         mac(8, 8) MACs + e(8 W + 8 I + 32 O)
    the quantised rival             mac(b, 8) r MACs                                as above
      with memory                   mac(b, 8) r MACs + e(8 r MACs + b I + 32 O)     as above

So real-valued layers hold each weight while all inputs pass (weight-stationary); spikes, and the rival's activations that are
not 0, read the weights that they need when they come (event-driven); outputs are written once, under spikes once a step.
"""

import dataclasses
from typing import Any

from sdit_jax.analysis import prices
from sdit_jax.analysis.prices import AC_PJ, DRAM_PJ, MAC_PJ, SRAM_PJ, WEIGHT_BITS, WORD, addition_pJ, mac_pJ, sram_pJ


@dataclasses.dataclass(frozen=True)
class LayerEnergy:
    """`weights`, `inputs` and `outputs` are counts of numbers.

    `rate` is the spikes per neuron and step of a spiking input, None for a real-valued one. `spikes` of the inputs are spikes:
    all, none or, in a product of two activations, those of one operand. Each stands for `steps` spiking steps and may be
    `signed`. The layer itself runs `repeats` times, at each step where spikes are trains, and its `macs` cover all of them.
    `active` is the share of neurons that spike at all in these steps.
    """

    name: str
    macs: int
    rate: float | None
    weights: int
    inputs: int
    outputs: int
    spikes: int = 0
    steps: int = 1
    repeats: int = 1
    signed: bool = False
    active: float = 1.0

    @property
    def binary(self) -> bool:
        """Whether the input is spikes."""
        return self.rate is not None

    @property
    def synaptic_operations(self) -> int:
        """Multiply-accumulates if all spiking steps are run one by one."""
        return self.macs * self.steps

    @property
    def acs(self) -> float:
        """Additions caused by spikes; 0 for a real-valued input."""
        return self.synaptic_operations * self.rate if self.rate is not None else 0.0

    @property
    def window(self) -> int:
        """T, the spiking steps of a forward pass."""
        return self.steps * self.repeats

    @property
    def bits(self) -> int:
        """Of an activation in the integer network that does not spike."""
        return prices.activation_bits(self.window, self.signed) if self.binary else WEIGHT_BITS

    @property
    def pJ(self) -> float:
        """The convention."""
        return AC_PJ * self.acs if self.binary else MAC_PJ * self.macs

    @property
    def weights_pJ(self) -> float:
        """Of weights that are read, float32."""
        return sram_pJ(WORD * (self.acs if self.binary else self.weights))

    @property
    def activations_pJ(self) -> float:
        """Of inputs that are read and outputs that are written, spikes or float32."""
        return sram_pJ(self._spike_bits + WORD * self._outputs if self.binary else WORD * (self.inputs + self.outputs))

    @property
    def with_memory_pJ(self) -> float:
        return self.pJ + self.weights_pJ + self.activations_pJ

    @property
    def quantised_pJ(self) -> float:
        """Of arithmetic in integers."""
        return addition_pJ() * self.acs if self.binary else mac_pJ(WEIGHT_BITS) * self.macs

    @property
    def quantised_with_memory_pJ(self) -> float:
        if not self.binary:
            return self.quantised_pJ + sram_pJ(WEIGHT_BITS * (self.weights + self.inputs) + WORD * self.outputs)
        return self.quantised_pJ + sram_pJ(WEIGHT_BITS * self.acs + self._spike_bits + WORD * self._outputs)

    @property
    def rival_pJ(self) -> float:
        """Of arithmetic in the network with quantised activations in place of spikes, which runs once."""
        return mac_pJ(self.bits) * self._rival_macs

    @property
    def rival_with_memory_pJ(self) -> float:
        weights = self._rival_macs if self.binary else self.weights
        moved = (self.bits * self.inputs + WORD * self.outputs) / self.repeats
        return self.rival_pJ + sram_pJ(WEIGHT_BITS * weights + moved)

    @property
    def break_even_rate(self) -> float | None:
        """The rate below which spikes need less energy for arithmetic than the rival."""
        ratio = mac_pJ(self.bits) / addition_pJ()
        return prices.break_even_rate(ratio, self.window, 1 - self.active) if self.binary else None

    @property
    def dram_pJ(self) -> float:
        """Every weight read once: a lower bound at batch 1."""
        return DRAM_PJ * self.weights

    @property
    def sram_pJ(self) -> float:
        """Every input and output moved once, 32 spikes to an access: a lower bound."""
        return SRAM_PJ * (self.inputs - self.spikes + self._spike_bits / WORD + self.outputs)

    @property
    def _spike_bits(self):
        return self.spikes * self.steps * (1 + self.signed)

    @property
    def _outputs(self):
        """Written at each spiking step."""
        return self.outputs * self.steps

    @property
    def _rival_macs(self):
        """Of one pass; of quantised activations in place of spikes, without those that are 0."""
        return (self.active if self.binary else 1) * self.macs / self.repeats

    def to_dict(self) -> dict[str, Any]:
        """Fields and what follows from them."""
        computed = (
            "binary", "acs", "pJ", "with_memory_pJ", "quantised_pJ", "rival_pJ", "quantised_with_memory_pJ",
            "rival_with_memory_pJ", "bits", "break_even_rate", "dram_pJ", "sram_pJ",
        )  # fmt: skip
        return dataclasses.asdict(self) | {name: getattr(self, name) for name in computed}


@dataclasses.dataclass(frozen=True)
class NeuronsEnergy:
    """A layer of neurons in one forward pass of one image; `rate` is the spikes per neuron and step that it gives."""

    name: str
    updates: int
    rate: float

    @property
    def with_memory_pJ(self) -> float:
        """A membrane is read and written at each update, 32 bits; its arithmetic is not priced."""
        return sram_pJ(2 * WORD * self.updates)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"with_memory_pJ": self.with_memory_pJ}
