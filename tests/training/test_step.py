"""A step in parts is the step in one piece, for less memory; products in bfloat16 leave the state in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdit_jax.diffusion.objective import Objective
from sdit_jax.diffusion.schedule import linear
from sdit_jax.models import build, cast_weights, initial_params
from sdit_jax.training.step import gradients, noised

FIELDS = {"image_size": 8, "patch_size": 2, "width": 16, "depth": 2, "normalized_currents": True, "label_dropout": 0.0}
B, OBJECTIVE, KEY = 16, Objective(linear(1000)), jax.random.key(3)
BATCH = {"image": np.random.default_rng(0).integers(0, 256, (B, 8, 8, 3), np.uint8), "label": np.arange(B, dtype=np.int32) % 10}


def drawn(fields):
    """(model, params), all at ordinary values."""
    model, rng = build(fields), np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: initial_params(model, 0))
    value = lambda path, leaf: jnp.asarray((path[-1].key == "scale") + 0.3 * rng.normal(size=leaf.shape), jnp.float32)
    return model, jax.tree_util.tree_map_with_path(value, shapes)


@pytest.fixture(scope="module")
def steps():
    """steps(microbatches): the compiled gradient of one batch, and what it gives."""
    model, params = drawn(FIELDS)
    examples = noised(OBJECTIVE, BATCH, KEY)

    def run(microbatches):
        program = jax.jit(lambda p, e: gradients(model, OBJECTIVE, p, e, KEY, microbatches)).lower(params, examples).compile()
        return program, program(params, examples)

    return run


def test_microbatches_give_the_same_step_for_less_memory(steps):
    whole, (scalars, grads) = steps(1)
    parts, (scalars_of_parts, grads_of_parts) = steps(4)
    assert scalars.keys() == scalars_of_parts.keys() and scalars["firing_rate/mid_block.time_neurons"] > 0.05
    for name, value in scalars.items():
        assert float(scalars_of_parts[name]) == pytest.approx(float(value), rel=1e-5), name
    for a, b in zip(jax.tree.leaves(grads_of_parts), jax.tree.leaves(grads), strict=True):
        assert jnp.linalg.norm(a - b) <= 1e-4 * jnp.linalg.norm(b)
    temporary = lambda program: program.memory_analysis().temp_size_in_bytes
    assert temporary(parts) < 0.45 * temporary(whole)


def test_labels_are_dropped_in_every_part():
    model, params = drawn(FIELDS | {"label_dropout": 0.999})
    examples = noised(OBJECTIVE, BATCH, KEY)
    step = jax.jit(lambda e: gradients(model, OBJECTIVE, params, e, KEY, 4)[0]["loss"])
    null = jnp.full(B, 10)
    assert float(step(examples)) == pytest.approx(float(step(examples._replace(y_B=null))), rel=1e-5)


def test_products_in_bfloat16_leave_loss_and_gradients_near_and_in_float32():
    model, params = drawn(FIELDS)
    examples = noised(OBJECTIVE, BATCH, KEY)
    run = lambda model: jax.jit(lambda p: gradients(model, OBJECTIVE, p, examples, KEY))(params)
    scalars, grads = run(model)
    rounded_scalars, rounded_grads = run(model.clone(dtype="bfloat16"))
    assert {leaf.dtype for leaf in jax.tree.leaves(rounded_grads)} == {jnp.dtype("float32")}
    assert float(rounded_scalars["loss"]) != float(scalars["loss"])
    assert float(rounded_scalars["loss"]) == pytest.approx(float(scalars["loss"]), rel=0.02)
    flat = lambda tree: jnp.concatenate([leaf.reshape(-1) for leaf in jax.tree.leaves(tree)])
    a, b = flat(rounded_grads), flat(grads)
    assert float(a @ b / jnp.linalg.norm(a) / jnp.linalg.norm(b)) > 0.95  # A spike more or less moves single ones.


def test_weights_that_are_cast_before_give_the_same_output():
    model, params = drawn(FIELDS | {"dtype": "bfloat16"})
    examples = noised(OBJECTIVE, BATCH, KEY)
    run = jax.jit(lambda p: model.apply({"params": p}, examples.x_t, examples.t_B, examples.y_B))
    cast = cast_weights(model, params)
    np.testing.assert_array_equal(run(cast), run(params))
    dtypes = {path[-1].key: leaf.dtype for path, leaf in jax.tree_util.tree_leaves_with_path(cast["in_blocks"])}
    assert dtypes["kernel"] == jnp.bfloat16 and dtypes["time_decay"] == dtypes["bias"] == jnp.float32
    assert cast["head"]["kernel"].dtype == jnp.float32
    assert cast_weights(build(FIELDS), params) == params
