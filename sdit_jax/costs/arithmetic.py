"""FLOPs of a step on one device, and the least bytes that it moves through memory.

Counted from the layers of the traced network (`evaluation.energy`), as if what stands between products, WKV and neurons were
fused into them. Of I images on a device, worked on in M microbatches of b = I / M, with the MACs of each layer,

    FLOPs = 2 M sum_layers passes (b MACs - (b - 1) common) / split
    bytes = 4 (M passes W + updates S) + activations

`common` are the MACs of tokens that are the same for all images and projected once. There is one pass in sampling; in training
there are three, forward, gradients of inputs and of weights, and with remat="blocks" a fourth in blocks. W are the weights that
the products read, of which tensor parallelism leaves a part; S those that the device updates, of which full sharding leaves a
part: gradient read, both moments and weight read and written, the average too. Activations are inputs and results of products
in every pass, and arrays of WKV and neurons: 3 and 2 in sampling, 5 and 3 more in training; what is computed anew counts again.
"""

import dataclasses
import functools
from typing import Literal

import jax.numpy as jnp

from sdit_jax.evaluation.energy import Call, count_layers
from sdit_jax.models import SDiT

Kind = Literal["training", "sampling"]
PASSES = {"sampling": 1, "training": 3}
WKV_ARRAYS, NEURON_ARRAYS = {"sampling": 3, "training": 8}, {"sampling": 2, "training": 5}
UPDATES, UPDATES_OF_AVERAGE = {"sampling": 0, "training": 7}, 2

# Layers that tensor parallelism splits by their outputs and by their inputs.
OUTPUTS = ("time_mix.key", "time_mix.value", "time_mix.receptance", "channel_mix.key", ".wkv")
INPUTS = ("time_mix.output", "channel_mix.value")
PROJECTED = ("time_mix.key", "time_mix.value", "time_mix.receptance")  # Reconstruction tokens once for all images.


@dataclasses.dataclass(frozen=True)
class Arithmetic:
    """One device's share of a step: FLOPs of its products, those `spared` by what is common, bytes through its memory."""

    flops: float
    spared: float
    bytes: float


def tokens(model: SDiT) -> int:
    return (model.image_size // model.patch_size) ** 2 + 1


@functools.cache
def _layers(model: SDiT) -> dict[str, Call]:
    x_BHWC = jnp.zeros((1, model.image_size, model.image_size, model.channels))
    return count_layers(model, x_BHWC, jnp.zeros(1), jnp.zeros(1, jnp.int32))


def arithmetic(
    model: SDiT,
    images: int,
    microbatches: int = 1,
    *,
    kind: Kind = "training",
    tensor: int = 1,
    weights: int,
    updated: int,
    ema: bool = False,
) -> Arithmetic:
    """Of `images` on a device; `weights` and `updated` are numbers of parameters, W and S."""
    again = kind == "training" and model.remat != "none"
    recomputed = again and model.remat == "blocks"
    part, itemsize = images / microbatches, jnp.dtype(model.dtype).itemsize
    once = tokens(model) - (model.token_shift == "1d")  # In raster order the first one follows another in every image.
    common = once * model.width**2 if model.reconstruction else 0

    flops = spared = moved = 0.0
    for name, call in _layers(model).items():  # pyright: ignore[reportArgumentType]  # A flax module has a hash.
        passes = PASSES[kind] + (recomputed and "block" in name)
        by_output, by_input = (tensor if name.endswith(names) else 1 for names in (OUTPUTS, INPUTS))
        if name.endswith(".wkv"):
            states = call.outputs / tensor
            neurons = 2 * call.outputs * (NEURON_ARRAYS[kind] + again * NEURON_ARRAYS["sampling"])
            moved += itemsize * states * (WKV_ARRAYS[kind] + again * WKV_ARRAYS["sampling"]) + 4 * neurons
        else:
            each = 2 * microbatches * passes / (by_output * by_input)
            less = (part - 1) * common if name.endswith(PROJECTED) else 0
            flops, spared = flops + each * (part * call.macs - less), spared + each * less
            moved += itemsize * passes * (call.inputs / by_input + call.outputs / by_output)
    reads = microbatches * (PASSES[kind] + recomputed)  # Forward, backward; the gradient written.
    updates = UPDATES[kind] + UPDATES_OF_AVERAGE * ema
    return Arithmetic(flops, spared, 4 * (reads * weights + updates * updated) + images * moved)
