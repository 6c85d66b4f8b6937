"""The counted floor against the traced programs of a step."""

import jax
import jax.numpy as jnp
import pytest

from sdit_jax.benchmarks.floor import floor
from sdit_jax.diffusion.objective import Objective
from sdit_jax.diffusion.schedule import linear
from sdit_jax.models import build, initial_params
from sdit_jax.training.step import gradients, noised

FIELDS = {"image_size": 16, "patch_size": 2, "width": 32, "depth": 4}
RATES = {"flops_per_s": 1e12, "bytes_per_s": 1e10}
B, OBJECTIVE = 6, Objective(linear(1000))


@pytest.fixture(scope="module")
def model():
    return build(FIELDS)


@pytest.mark.parametrize("shift", ["1d", "2d"])
def test_flops_are_those_of_the_products_in_the_traced_step(model, program_macs, shift):
    model = model.clone(token_shift=shift)
    params = jax.eval_shape(lambda: initial_params(model, 0))
    batch = {"image": jnp.zeros((B, 16, 16, 3), jnp.uint8), "label": jnp.zeros(B, jnp.int32)}
    found = floor(model, B, RATES)

    def step(params, batch):
        key = jax.random.key(0)
        return gradients(model, OBJECTIVE, params, noised(OBJECTIVE, batch, key), key)

    forward = lambda params, x, t: model.apply({"params": params}, x, t, batch["label"])
    x = jnp.zeros((B, 16, 16, 3))
    sampling = 2 * program_macs(jax.make_jaxpr(forward)(params, x, jnp.zeros(B)).jaxpr)
    training = 2 * program_macs(jax.make_jaxpr(step)(params, batch).jaxpr)
    counted = {kind: found[kind]["flops"] - found[kind]["saved_flops"] for kind in ("sampling", "training")}
    assert counted["sampling"] == sampling
    assert counted["training"] == pytest.approx(training, rel=0.02)  # Images and timesteps need no gradient; sums are products.
    assert found["training"]["saved_flops"] > 0.07 * found["training"]["flops"]


def test_the_floor_is_the_greater_of_both_times_and_bytes_follow_the_batch(model):
    one, two = floor(model, 1, RATES)["training"], floor(model, 2, RATES)["training"]
    parameters = sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(lambda: initial_params(model, 0))))
    assert 2 * one["bytes"] - two["bytes"] == 40 * parameters
    assert one["floor_s"] == max(one["compute_s"], one["memory_s"]) and one["memory_s"] == one["bytes"] / 1e10
    assert floor(build(FIELDS | {"dtype": "bfloat16"}), 1, RATES)["training"]["bytes"] < one["bytes"]
