"""The roofline of a step on the machine at hand: the counts of `planner.arithmetic` at its measured rates.

The bound in time is the greater of FLOPs over the rate of matrix products and bytes over the rate of copying. `saved_flops` are
not computed: products of parameters alone, which are the same for all images.
"""

import jax

from sdit_jax.analysis.operations import forward
from sdit_jax.diffusion.objective import Objective
from sdit_jax.models import Network, initial_variables
from sdit_jax.planner.arithmetic import arithmetic, training_program


def roofline(model: Network, objective: Objective, batch_size: int, rates: dict, *, training: bool) -> dict:
    """Of a training step, or of one evaluation in sampling, on one device: FLOPs, bytes, seconds of each, and the greater one.

    `rates` are those of `measure.rates`.
    """
    variables = jax.eval_shape(lambda: initial_variables(model, 0))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    program = training_program(model, objective, variables, batch_size) if training else forward(model, batch_size)
    counted = arithmetic(program, batch_size, updated=parameters if training else 0)
    compute, memory = counted.flops / rates["flops_per_s"], counted.bytes / rates["bytes_per_s"]
    return {
        "flops": counted.flops + counted.spared, "saved_flops": counted.spared, "bytes": counted.bytes,
        "compute_s": compute, "memory_s": memory, "roofline_s": max(compute, memory),
    }  # fmt: skip
