"""The roofline of a step against the products of the traced program and the parameters of the network."""

import jax
import jax.numpy as jnp
import pytest
from flax.traverse_util import flatten_dict

from sdit_jax.benchmarks.roofline import roofline
from sdit_jax.diffusion.objective import Objective
from sdit_jax.diffusion.schedule import linear
from sdit_jax.models import build, initial_variables

MODEL = build({"image_size": 16, "patch_size": 2, "width": 32, "depth": 4, "reconstruction": False})


def found(batch_size, training, flops_per_s=1e6, bytes_per_s=1e6):
    rates = {"flops_per_s": flops_per_s, "bytes_per_s": bytes_per_s}
    return roofline(MODEL, Objective(linear(1000)), batch_size, rates, training=training)


def test_a_step_bound_by_products_takes_the_time_of_those_in_the_traced_program(program_macs):
    x, t, y = jnp.zeros((6, 16, 16, 3)), jnp.zeros(6), jnp.zeros(6, jnp.int32)
    variables = jax.eval_shape(lambda: initial_variables(MODEL, 0))
    products = program_macs(jax.make_jaxpr(lambda variables: MODEL.apply(variables, x, t, y))(variables).jaxpr)
    assert found(6, False, bytes_per_s=1e12)["roofline_s"] == pytest.approx(2 * products / 1e6)
    assert found(6, True, bytes_per_s=1e12)["roofline_s"] == pytest.approx(3 * 2 * products / 1e6, rel=0.01)


def test_a_step_bound_by_memory_moves_matrices_three_times_and_updates_parameters_seven_times():
    """What does not grow with the batch; the image and the timestep, which two matrices read, have no gradient."""
    leaves = {
        path: leaf.size for path, leaf in flatten_dict(jax.eval_shape(lambda: initial_variables(MODEL, 0)), sep="/").items()
    }
    matrices = sum(size for path, size in leaves.items() if path.endswith("kernel"))
    first = leaves["params/patch_embed/kernel"] + leaves["params/time_embed/hidden/kernel"]
    at = lambda batch_size, training: found(batch_size, training, flops_per_s=1e12)["roofline_s"] * 1e6
    constant = {training: 2 * at(1, training) - at(2, training) for training in (False, True)}
    assert constant[False] == pytest.approx(4 * matrices)
    assert constant[True] == pytest.approx(4 * (3 * matrices - first + 7 * sum(leaves.values())))
