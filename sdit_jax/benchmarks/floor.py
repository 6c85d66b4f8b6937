"""What a step must cost at the least on the machine at hand: the counts of `costs.arithmetic` at its measured rates.

The floor in time is the greater of FLOPs over the machine's rate of multiplication and bytes over its rate of copying.
`saved_flops` are those that the network does not compute in fact: keys, values and receptances of the reconstruction tokens
are the same for all images.
"""

import jax

from sdit_jax.costs.arithmetic import Kind, arithmetic
from sdit_jax.models import SDiT, initial_params


def floor(model: SDiT, batch_size: int, rates: dict, kind: Kind) -> dict:
    """Of a step of this kind on one device: flops, bytes, seconds of either at `measure.rates`, and the greater one."""
    parameters = sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(lambda: initial_params(model, 0))))
    counted = arithmetic(model, batch_size, kind=kind, weights=parameters, updated=parameters)
    compute, memory = counted.flops / rates["flops_per_s"], counted.bytes / rates["bytes_per_s"]
    return {
        "flops": counted.flops + counted.spared, "saved_flops": counted.spared, "bytes": counted.bytes,
        "compute_s": compute, "memory_s": memory, "floor_s": max(compute, memory),
    }  # fmt: skip
