"""FLOPs of a training step on one device, and the least bytes that it moves through memory: `benchmarks.floor`, on a mesh.

Of I images on a device, worked on in M microbatches of b, with the MACs of each layer of the traced network,

    FLOPs = 2 M sum_layers passes (b MACs - (b - 1) common) / split         passes: forward, gradients of inputs and of weights
    bytes = 4 (M passes + M) W + 4 (7 + 2 EMA) S + activations

`common` are the MACs of tokens that are the same for all images and projected once, and with remat="blocks" the layers of
blocks run a fourth pass. W are the weights that the products read, of which tensor parallelism leaves a part; S those that the
device updates, of which full sharding leaves a part: gradient read, both moments and weight read and written, the average too.
Activations are inputs and results of products, WKV and neurons, as in `benchmarks.floor`; what is computed anew counts again.
"""

import dataclasses

import jax.numpy as jnp

from sdit_jax.benchmarks.floor import NEURON_ARRAYS, PRODUCT_PASSES, WKV_ARRAYS
from sdit_jax.evaluation.energy import count_layers
from sdit_jax.models import SDiT

# Layers that tensor parallelism splits by their outputs and by their inputs.
OUTPUTS = ("time_mix.key", "time_mix.value", "time_mix.receptance", "channel_mix.key", ".wkv")
INPUTS = ("time_mix.output", "channel_mix.value")
PROJECTED = ("time_mix.key", "time_mix.value", "time_mix.receptance")  # Reconstruction tokens once for all images.
UPDATE_PASSES = 7


@dataclasses.dataclass(frozen=True)
class Arithmetic:
    """One device's share of a step: FLOPs of its products, bytes through its memory."""

    flops: float
    bytes: float


def tokens(model: SDiT) -> int:
    return (model.image_size // model.patch_size) ** 2 + 1


def arithmetic(
    model: SDiT, images: int, microbatches: int = 1, *, tensor: int = 1, weights: int, updated: int, ema: bool = False
) -> Arithmetic:
    """Of `images` on a device; `weights` and `updated` are numbers of parameters, W and S."""
    x = jnp.zeros((1, model.image_size, model.image_size, model.channels))
    layers = count_layers(model, x, jnp.zeros(1), jnp.zeros(1, jnp.int32))
    again, recomputed = model.remat != "none", model.remat == "blocks"
    part, itemsize = images / microbatches, jnp.dtype(model.dtype).itemsize
    common = (tokens(model) - (model.token_shift == "1d")) * model.width**2 if model.reconstruction else 0

    flops = moved = 0.0
    for name, call in layers.items():
        passes = PRODUCT_PASSES["training"] + (recomputed and "block" in name)
        by_output, by_input = (tensor if name.endswith(names) else 1 for names in (OUTPUTS, INPUTS))
        if name.endswith(".wkv"):
            states = call.outputs / tensor
            neurons = 2 * call.outputs * (NEURON_ARRAYS["training"] + again * NEURON_ARRAYS["sampling"])
            moved += itemsize * states * (WKV_ARRAYS["training"] + again * WKV_ARRAYS["sampling"]) + 4 * neurons
        else:
            once = common if name.endswith(PROJECTED) else 0
            flops += 2 * microbatches * passes * (part * call.macs - (part - 1) * once) / (by_output * by_input)
            moved += itemsize * passes * (call.inputs / by_input + call.outputs / by_output)
    reads = microbatches * (PRODUCT_PASSES["training"] + recomputed)  # Forward, backward; the gradient written.
    return Arithmetic(flops, 4 * (reads * weights + (UPDATE_PASSES + 2 * ema) * updated) + images * moved)
