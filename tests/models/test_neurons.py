"""The network with other neurons and another token shift than the release's."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdit_jax.layers import rwkv
from sdit_jax.layers.spiking import Spiking
from sdit_jax.models import build

SMALL = {"image_size": 8, "patch_size": 4, "channels": 1, "width": 8, "depth": 2, "normalized_currents": True}
INPUTS = jnp.sin(jnp.arange(128.0)).reshape(2, 8, 8, 1), jnp.array([10, 500]), jnp.array([3, 10])


def ordinary(config):
    """Parameters that are all at ordinary values, none at zero."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: build(config).init(jax.random.key(0), *INPUTS)["params"])
    near_one = lambda path: path[-1].key in ("scale", "tokens")
    draw = lambda path, leaf: np.float32(near_one(path) + 0.4 * rng.normal(size=leaf.shape))
    return jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.mark.parametrize("neuron, normalized", [("identity", True), ("gelu", False)])
def test_a_twin_is_the_network_whose_neurons_pass_their_current_on(neuron, normalized):
    config = SMALL | {"normalized_currents": normalized}
    params, spiking, twin = ordinary(config), build(config), build(config | {"neuron": neuron})

    def by_hand(next_method, args, kwargs, context):
        if not isinstance(context.module, Spiking) or context.method_name != "rate":
            return next_method(*args, **kwargs)
        (x,) = args
        return x if neuron == "identity" else x / 2 * (1 + jnp.tanh((2 / jnp.pi) ** 0.5 * (x + 0.044715 * x**3)))

    def replaced(params):
        with nn.intercept_methods(by_hand):
            return spiking.apply({"params": params}, *INPUTS)

    found, sown = jax.jit(lambda params: twin.apply({"params": params}, *INPUTS, mutable=["spikes"]))(params)
    np.testing.assert_allclose(found, jax.jit(replaced)(params), rtol=1e-4, atol=1e-4)
    assert jnp.abs(found - jax.jit(spiking.apply)({"params": params}, *INPUTS)).max() > 1e-2
    assert jax.tree.leaves(sown) == []


def test_tokens_are_shifted_on_the_image_where_asked(monkeypatch):
    config = SMALL | {"reconstruction": False, "remat": "blocks"}
    params, shift = ordinary(config), rwkv.token_shift
    found = jax.jit(build(config | {"token_shift": "2d"}).apply)({"params": params}, *INPUTS)
    plain = jax.jit(build(config).apply)({"params": params}, *INPUTS)
    monkeypatch.setattr(rwkv, "token_shift", lambda x, side: shift(x, 2))  # Of 2 x 2 patches.
    expected = jax.jit(lambda params: build(config).apply({"params": params}, *INPUTS))(params)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert jnp.abs(found - plain).max() > 1e-2
