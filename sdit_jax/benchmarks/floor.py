"""What a step must cost at the least: the multiplications of its products, and every array through memory once.

Counted, for a batch of B images, from the layers of the traced network (`evaluation.energy`):

    FLOPs  of sampling: 2 MACs B; of training three times that, the gradients of inputs and of weights
    bytes  of sampling: weights + B (inputs and results of products, 3 arrays for WKV, 2 for neurons)
           of training: weights 10 times (read forward and backward; gradient, both moments and weight read and written)
                        + B (3 times the inputs and results of products, 3 + 5 arrays for WKV, 2 + 3 for neurons)

as if whatever stands between products, WKV and neurons were fused into them. The floor in time is the greater of FLOPs over
the machine's rate of multiplication and bytes over its rate of copying. `saved_flops` are those that the network does not
compute in fact: keys, values and receptances of the reconstruction tokens are the same for all images.
"""

import jax
import jax.numpy as jnp

from sdit_jax.evaluation.energy import count_layers
from sdit_jax.models import SDiT, initial_params

WKV_ARRAYS, NEURON_ARRAYS = {"sampling": 3, "training": 8}, {"sampling": 2, "training": 5}
WEIGHT_PASSES = {"sampling": 1, "training": 10}
PRODUCT_PASSES = {"sampling": 1, "training": 3}


def floor(model: SDiT, batch_size: int, rates: dict) -> dict:
    """{"training": ..., "sampling": ...}, each with flops, bytes, seconds of either at `measure.rates`, and the greater one."""
    x = jnp.zeros((1, model.image_size, model.image_size, model.channels))
    layers = count_layers(model, x, jnp.zeros(1), jnp.zeros(1, jnp.int32))
    averages = [call for name, call in layers.items() if name.endswith(".wkv")]
    products = [call for name, call in layers.items() if not name.endswith(".wkv")]
    parameters = sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(lambda: initial_params(model, 0))))
    states = sum(call.outputs for call in averages)  # Of one block, the tokens of both neuron layers and of WKV alike.
    tokens = (model.image_size // model.patch_size) ** 2 + 1
    once = tokens - (model.token_shift == "1d")  # In raster order the first one follows another in every image.
    common = 3 * once * model.width**2 * (model.depth + 1) if model.reconstruction else 0
    itemsize = jnp.dtype(model.dtype).itemsize

    def of(kind):
        flops = 2 * PRODUCT_PASSES[kind] * batch_size * sum(call.macs for call in products)
        moved = PRODUCT_PASSES[kind] * sum(call.inputs + call.outputs for call in products) + WKV_ARRAYS[kind] * states
        least = 4 * WEIGHT_PASSES[kind] * parameters + batch_size * (itemsize * moved + 4 * NEURON_ARRAYS[kind] * 2 * states)
        saved = 2 * PRODUCT_PASSES[kind] * (batch_size - 1) * common
        compute, memory = (flops - saved) / rates["flops_per_s"], least / rates["bytes_per_s"]
        return {
            "flops": flops, "saved_flops": saved, "bytes": least,
            "compute_s": compute, "memory_s": memory, "floor_s": max(compute, memory),
        }  # fmt: skip

    return {"batch_size": batch_size, "training": of("training"), "sampling": of("sampling")}
