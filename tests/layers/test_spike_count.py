"""Random nets of neurons and matrices, run on counts and step by step."""

from functools import partial

import flax.linen as nn
import jax
import numpy as np
import pytest

from sdit_jax.layers.spike_count import SpikeLinear
from sdit_jax.layers.stack import layer_norm

z_BLC = np.random.default_rng(0).normal(size=(2, 3, 24)).astype(np.float32)


class Net(nn.Module):
    """Three layers; a norm between them brings every membrane off the grid."""

    linear: partial

    @nn.compact
    def __call__(self, z):
        for i, features in enumerate((40, 16, 24)):
            z, _ = self.linear(features=features, use_bias=True, name=f"layer_{i}")(layer_norm(z))
        return z


def outputs(steps, signed, grid):
    """What counts and steps give, each with its spikes, with the same random weights."""
    fields = {"spiking_steps": steps, "signed": signed} | ({"amplitude": 2.0} if grid else {})
    rng = np.random.default_rng(steps)
    weights = Net(partial(SpikeLinear, **fields)).init(jax.random.key(0), z_BLC)
    weights = jax.tree.map(lambda leaf: leaf + rng.normal(0, 0.3, leaf.shape).astype(np.float32), weights["params"])
    weights = jax.tree.map(lambda leaf: np.round(leaf / grid) * grid, weights) if grid else weights
    nets = (Net(partial(SpikeLinear, spiking=way, **fields)) for way in ("rate", "steps"))
    return [net.apply({"params": weights}, z_BLC, mutable=["raster"]) for net in nets]


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("steps", range(1, 9))
def test_counts_and_steps_give_equal_spikes_and_results_to_rounding(steps, signed):
    (counted, spikes), (stepped, others) = outputs(steps, signed, None)
    jax.tree.map(np.testing.assert_array_equal, spikes, others)
    assert 0.05 < abs(spikes["raster"]["layer_2"]["spikes"][0]).mean() < 0.9
    np.testing.assert_allclose(counted, stepped, atol=2e-5)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_and_equal_results_to_the_bit_where_weights_and_rates_lie_on_a_dyadic_grid(steps, signed):
    """Every sum is then exact in float32, in whatever order; rates of three steps lie on no such grid."""
    (counted, _), (stepped, _) = outputs(steps, signed, 2**-6)
    np.testing.assert_array_equal(counted, stepped)
