"""A network's cost against its traced program and its parameters."""

import jax
import jax.numpy as jnp

from sdit_jax.models import build, initial_variables, preset
from sdit_jax.scaling_laws.compute import cost


def test_the_cost_is_that_of_the_traced_products_and_of_wkv_at_any_number_of_spiking_steps(program_macs):
    model = build(preset("digits", width=24, depth=4, image_size=16, reconstruction=False))
    variables = jax.eval_shape(lambda: initial_variables(model, 0))
    x, t, y = jnp.zeros((1, 16, 16, 1)), jnp.zeros(1), jnp.zeros(1, jnp.int32)
    products = program_macs(jax.make_jaxpr(lambda variables: model.apply(variables, x, t, y))(variables).jaxpr)
    tokens, blocks = (16 // 4) ** 2 + 1, 5
    assert cost(model).training == 6 * (products + 3 * tokens * 24 * blocks)
    assert cost(model).parameters == sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert cost(model.clone(spiking_steps=16)) == cost(model)
