"""The way from tokens back to an image: what the final convolution sees."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import correlate2d

from sdit_jax.errors import InputError
from sdit_jax.models import build, initial_variables, preset

X, T, Y = jnp.ones((1, 28, 28, 1)), jnp.array([500]), jnp.array([3])


def network(final_channels):
    """A model, its variables, and an image-shaped head output put in by way of the head's bias."""
    model = build(preset("spike_ablation", width=16, spiking_steps=2, final_channels=final_channels))
    variables = initial_variables(model, 0)
    bias = variables["params"]["head"]["linear"]["bias"]
    given = np.random.default_rng(0).normal(size=bias.shape).astype(np.float32)
    variables["params"]["head"]["linear"]["bias"] = jnp.asarray(given)
    side, pixels = 28 // model.patch_size, (model.patch_size, model.patch_size, -1)
    return model, variables, model.amplitude * np.tile(given.reshape(pixels), (side, side, 1))


@pytest.mark.parametrize("final_channels", [0, 1, 8])
def test_the_image_is_a_convolution_of_all_channels_of_the_head(final_channels):
    model, variables, inner_HWC = network(final_channels)
    kernel = np.float64(variables["params"]["smooth"]["kernel"][..., 0])
    expected = sum(correlate2d(inner_HWC[..., i], kernel[..., i], mode="same") for i in range(inner_HWC.shape[-1]))
    assert inner_HWC.shape[-1] == max(final_channels, 1)
    np.testing.assert_allclose(jax.jit(model.apply)(variables, X, T, Y)[0, ..., 0], expected, atol=1e-4)


def test_at_first_one_channel_is_passed_on_and_all_others_can_learn():
    model, variables, _ = network(8)
    kernel = np.asarray(variables["params"]["smooth"]["kernel"][..., 0])
    np.testing.assert_array_equal(kernel[..., 0], np.float32([[0, 0, 0], [0, 1, 0], [0, 0, 0]]))

    def loss(params):
        return jnp.square(model.apply({"params": params}, X, T, Y) - 0.5).mean()

    gradient = jax.jit(jax.grad(loss))(initial_variables(model, 0)["params"])["head"]["linear"]["bias"]
    assert (np.abs(gradient.reshape(-1, 8)).max(0) > 1e-6).all()


def test_fewer_channels_than_the_prediction_has_are_refused():
    with pytest.raises(InputError, match="model.final_channels: found 2, must be 0 or at least the 6"):
        build(preset("spike_ablation", channels=3, learned_variance=True, final_channels=2))
