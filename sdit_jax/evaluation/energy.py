"""What a network costs by the field's 45 nm convention (PAPER section 8), layer by layer.

    pJ(layer) = 4.6 MACs              real-valued input: a multiplication (3.7) and an addition (0.9), float32
    pJ(layer) = 0.9 ACs               binary input, with ACs = firing rate of the *input* x MACs: additions, where a spike came

A layer is any `nn.Dense` or `nn.Conv`, wherever it stands in the network; the network knows nothing of this. The MACs are those
that the network performs: where a layer's input has an axis of T spiking steps, they already run over T, and the firing rate is
the mean over T too, so that ACs are not multiplied by T again. WKV is a line of its own, real-valued.
Sources: Han et al. 2015 (arXiv 1506.02626), table 1, after Horowitz 2014; the convention of spiking papers is PAPER section 8.
"""

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from flax.traverse_util import flatten_dict

from sdit_jax.layers.rwkv import TimeMix
from sdit_jax.layers.spiking import Spiking, by_layer

MAC_PJ, AC_PJ = 4.6, 0.9
SRAM_PJ, DRAM_PJ = 5.0, 640.0  # Per access of 32 bits; SRAM of 32 KB.
WORD = 32

# Of WKV per token and channel: the recurrences of numerator and denominator, each way, and the bonus.
WKV_MACS, WKV_MACS_BIDIRECTIONAL = 3, 5
LEFT_OUT = (
    "elementwise work: norms, token shift, gates, sigmoids, residual additions, biases",
    "exponentials and divisions of WKV",
    "embedding tables and the sinusoid of the timestep",
    "neuron updates (counted beside, without a price)",
    "memory traffic (priced beside, as a lower bound)",
)


class Call(struct.PyTreeNode):
    """One call of a layer: counts for the batch, and (the only arrays) whether its input was all 0s and 1s, and its mean."""

    binary: jax.Array
    rate: jax.Array
    macs: int = struct.field(pytree_node=False)
    weights: int = struct.field(pytree_node=False)
    inputs: int = struct.field(pytree_node=False)
    outputs: int = struct.field(pytree_node=False)


@dataclasses.dataclass(frozen=True)
class LayerEnergy:
    """One layer in one forward pass of one image. `inputs`, `outputs` and `weights` are counts of numbers.

    `rate` is the firing rate of a binary input (all values seen were 0 or 1, not all 0), and None for a real-valued one.
    """

    name: str
    macs: int
    rate: float | None
    weights: int
    inputs: int
    outputs: int

    @property
    def binary(self) -> bool:
        return self.rate is not None

    @property
    def acs(self) -> float:
        """Additions that spikes cause; 0 for a real-valued input."""
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
        """Every input and output moved once, spikes 32 to an access: a lower bound."""
        return SRAM_PJ * (self.inputs / (WORD if self.binary else 1) + self.outputs)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {key: getattr(self, key) for key in ("binary", "acs", "pJ", "dram_pJ", "sram_pJ")}


@dataclasses.dataclass(frozen=True)
class Energy:
    """One forward pass of one image.

    `twin_macs` are those of the same network without neurons: at one spiking step, every input taken as real-valued.
    `neuron_updates` is spiking steps times neurons, over all layers of neurons.
    """

    layers: tuple[LayerEnergy, ...]
    twin_macs: int
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
        """Of arithmetic alone, as the convention has it."""
        return sum(layer.pJ for layer in self.layers)

    @property
    def twin_pJ(self) -> float:
        return MAC_PJ * self.twin_macs

    @property
    def spike_driven(self) -> tuple[str, ...]:
        """The layers whose input is binary."""
        return tuple(layer.name for layer in self.layers if layer.binary)

    @property
    def spike_driven_fraction(self) -> float:
        """The share of those layers in all multiply-accumulates, before spikes are counted."""
        return 1 - self.macs / sum(layer.macs for layer in self.layers)

    @property
    def summary(self) -> str:
        """In a sentence, for a report."""
        work, cost = f"{self.macs / 1e9:.4g} G MACs", f"{self.pJ / 1e9:.4g} mJ per forward pass"
        twin = f"{self.twin_pJ / 1e9:.4g} mJ"
        if not self.spike_driven:
            return (
                f"No layer is spike-driven: all {len(self.layers)} multiply real-valued inputs, {work}, {cost}, "
                f"and the same network without neurons would cost {twin}."
            )
        return (
            f"{len(self.spike_driven)} of {len(self.layers)} layers are spike-driven, with {self.spike_driven_fraction:.1%} of "
            f"the operations: {self.acs / 1e9:.4g} G ACs and {work}, {cost}, and the same network without neurons {twin}."
        )

    def per_image(self, steps: int, guidance: float = 1.0) -> dict[str, Any]:
        """Totals of one generated image: as many forward passes as sampling steps, twice as many under guidance.

        Guidance scales 1 (none) and 0 (no labels) need one pass, as in `diffusion.guidance.guided`.
        """
        passes = steps * (1 if guidance in (0, 1) else 2)
        totals = {name: passes * getattr(self, name) for name in ("macs", "acs", "pJ", "twin_pJ", "neuron_updates")}
        return {"forward_passes": passes} | totals

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, texts and lists, for JSON."""
        return {
            "summary": self.summary,
            "per_forward": {"macs": self.macs, "acs": self.acs, "pJ": self.pJ},
            "twin": {"macs": self.twin_macs, "pJ": self.twin_pJ},
            "memory": {
                "dram_pJ": sum(layer.dram_pJ for layer in self.layers), "sram_pJ": sum(layer.sram_pJ for layer in self.layers),
            },
            "neuron_updates": self.neuron_updates,
            "spike_driven": {"layers": list(self.spike_driven), "fraction": self.spike_driven_fraction},
            "pJ_per": {"mac": MAC_PJ, "ac": AC_PJ, "sram_access": SRAM_PJ, "dram_access": DRAM_PJ},
            "layers": [layer.to_dict() for layer in self.layers],
            "left_out": list(self.left_out),
        }  # fmt: skip


def measure_energy(model: nn.Module, params: Any, x_BHWC: jax.Array, t_B: jax.Array, y_B: jax.Array | None) -> Energy:
    """The energy of one forward pass `model.apply({"params": params}, x, t, y)`, per image.

    Counts come from an abstract trace at batch 1; which inputs are binary, and how often they fire, from running the batch. An
    input is binary if it still is with x, t and all parameters moved a little: neurons give 0s and 1s whatever comes, while the
    sinusoid of t = 0, or reconstruction tokens that no spike has reached yet, merely happen to.

    The twin is the network traced with its field `timesteps`, where it has one, at 1. Stacks of blocks (`nn.scan`) must carry
    the collection "spikes", as those of `models` do: what they do not carry is not seen, and `left_out` names its weights,
    as it does those of layers of other kinds than Dense and Conv.
    """
    run = jax.jit(lambda params, x, t, y: _watch(model, params, x, t, y))
    seen = _calls(run(params, x_BHWC, t_B, y_B))
    again = _calls(run(jax.tree.map(lambda leaf: 1.01 * leaf, params), x_BHWC + 0.1, t_B + 1, y_B))
    counts, neuron_updates, unseen = _count(model, x_BHWC, t_B, y_B)
    layers = []
    for name, call in counts.items():
        rate = float(seen[name].rate)
        binary = bool(seen[name].binary & again[name].binary) and rate > 0
        layers.append(LayerEnergy(name, call.macs, rate if binary else None, call.weights, call.inputs, call.outputs))
    twin = model.clone(timesteps=1) if hasattr(model, "timesteps") else model
    twin_macs = sum(count_macs(twin, x_BHWC, t_B, y_B).values())
    return Energy(
        tuple(layers), twin_macs, neuron_updates, LEFT_OUT + tuple(f"{name}: a layer not known here" for name in unseen)
    )


def count_layers(model: nn.Module, x_BHWC: jax.Array, t_B: jax.Array, y_B: jax.Array | None) -> dict[str, Call]:
    """What every layer does for one image, by name. Nothing is computed: arguments may be abstract."""
    return _count(model, x_BHWC, t_B, y_B)[0]


def count_macs(model: nn.Module, x_BHWC: jax.Array, t_B: jax.Array, y_B: jax.Array | None) -> dict[str, int]:
    """Multiply-accumulates of every layer for one image, by name. Nothing is computed: arguments may be abstract."""
    return {name: call.macs for name, call in count_layers(model, x_BHWC, t_B, y_B).items()}


def _count(model, x_BHWC, t_B, y_B):
    """(calls by layer, neuron updates, layers with a kernel that no call has used) of one image, by abstract evaluation."""
    one = jax.tree.map(lambda a: jax.ShapeDtypeStruct((1, *a.shape[1:]), a.dtype), (x_BHWC, t_B, y_B))
    params = jax.eval_shape(lambda x, t, y: model.init(jax.random.key(0), x, t, y)["params"], *one)
    sown = jax.eval_shape(lambda params, x, t, y: _watch(model, params, x, t, y), params, *one)
    sown = jax.tree.map(lambda leaf: np.zeros(leaf.shape), sown)  # The counts are beside the leaves.
    used = {path[:-1] for path in flatten_dict(sown) if path[-1] == "multiplied"}
    unseen = [".".join(path[:-1]) for path in flatten_dict(params) if path[-1] == "kernel" and path[:-1] not in used]
    return _calls(sown), sum(call.outputs for call in by_layer(sown, "fired").values()), unseen


def _calls(sown):
    return by_layer(sown, "multiplied") | {f"{name}.wkv": call for name, call in by_layer(sown, "averaged").items()}


def _watch(model, params, x_BHWC, t_B, y_B):
    """A forward pass in which every layer sows a `Call`: those with weights, WKV and neurons, each under a name of its own."""

    def watch(next_method, args, kwargs, context):
        output = next_method(*args, **kwargs)
        module, method = context.module, context.method_name
        if method not in ("__call__", "fire", "rate"):
            return output
        inputs = (*args, *kwargs.values())
        x = inputs[0]
        if isinstance(module, nn.Dense | nn.Conv):  # May take several arrays.
            own = module.variables["params"]
            *contracted, _ = own["kernel"].shape
            outputs, weights = sum(leaf.size for leaf in jax.tree.leaves(output)), sum(leaf.size for leaf in own.values())
            x = jnp.concatenate([a.reshape(-1) for a in inputs])
            module.sow("spikes", "multiplied", _call(x, outputs * math.prod(contracted), weights, x.size, outputs))
        elif isinstance(module, TimeMix):  # Keys and values in, averages out; decay and bonus are its weights.
            macs = output.size * (WKV_MACS_BIDIRECTIONAL if module.bidirectional else WKV_MACS)
            module.sow("spikes", "averaged", _call(None, macs, 2 * x.shape[-1], 2 * output.size, output.size))
        elif isinstance(module, Spiking) and method != "__call__":  # A rate stands for T updates.
            updates = output.size * (module.timesteps if method == "rate" else 1)
            module.sow("spikes", "fired", _call(output, 0, 0, x.size, updates))
        return output

    with nn.intercept_methods(watch):
        return model.apply({"params": params}, x_BHWC, t_B, y_B, mutable=["spikes"])[1]["spikes"]


def _call(x, macs, weights, inputs, outputs):
    if x is None:  # Real-valued by nature.
        return Call(jnp.zeros((), bool), jnp.zeros(()), macs, weights, inputs, outputs)
    return Call(((x == 0) | (x == 1)).all(), x.astype(jnp.float32).mean(), macs, weights, inputs, outputs)
