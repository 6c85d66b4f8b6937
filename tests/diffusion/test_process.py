"""The forward process and its posterior, against their definitions in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdit_jax.diffusion import process
from sdit_jax.diffusion.schedule import cosine, linear, rectified_flow

T_B = jnp.array([0, 1, 500, 999])


def normal(seed, shape=(4, 2, 2, 3)):
    return jax.random.normal(jax.random.key(seed), shape)


def bar(schedule, index=T_B):
    """abar by definition, to broadcast over images."""
    return np.array([np.prod(1 - schedule.betas[: t + 1]) for t in np.asarray(index)]).reshape(-1, 1, 1, 1)


@pytest.mark.parametrize("schedule", [linear(1000), cosine(1000)], ids=["linear", "cosine"])
def test_noise_is_added_by_the_definition(schedule):
    x_0, noise = normal(0), normal(1)
    expected = np.sqrt(bar(schedule)) * np.asarray(x_0) + np.sqrt(1 - bar(schedule)) * np.asarray(noise)
    np.testing.assert_allclose(process.add_noise(schedule, x_0, T_B, noise), expected, rtol=1e-5, atol=1e-6)


def test_noise_is_added_at_real_times():
    """Between two levels of rectified flow; at integers as for integer t."""
    schedule, x_0, noise = rectified_flow(1000), normal(0), normal(1)
    t_B = np.array([0.0, 1.0, 500.25, 998.5])
    s = ((t_B + 0.5) / 1000).reshape(-1, 1, 1, 1)
    expected = (1 - s) * np.asarray(x_0) + s * np.asarray(noise)
    np.testing.assert_allclose(process.add_noise(schedule, x_0, jnp.asarray(t_B), noise), expected, rtol=1e-5, atol=1e-6)


def test_a_clean_image_implies_the_noise():
    schedule, x_0, noise = linear(1000), normal(0), normal(1)
    x_t = process.add_noise(schedule, x_0, T_B, noise)
    np.testing.assert_allclose(process.implied_noise(schedule, x_t, T_B, x_0), noise, atol=2e-4)
    changed = process.implied_noise(schedule, x_t, T_B, x_0 + 1)
    noise_per_image = np.broadcast_to(np.sqrt(bar(schedule) / (1 - bar(schedule))), x_0.shape)
    np.testing.assert_allclose(noise - changed, noise_per_image, rtol=1e-3)


def test_the_posterior_is_that_of_the_joint_gaussian():
    """Mean and variance of x_{t-1} given x_t and x_0 by least squares over many draws of the forward chain."""
    schedule, t = linear(20), 12
    rng = np.random.default_rng(0)
    x_0, e = 0.7, rng.normal(size=(2, 400_000))
    previous = np.sqrt(schedule.alphas_bar[t - 1]) * x_0 + np.sqrt(1 - schedule.alphas_bar[t - 1]) * e[0]
    x_t = np.sqrt(1 - schedule.betas[t]) * previous + np.sqrt(schedule.betas[t]) * e[1]
    slope, offset = np.polyfit(x_t, previous, 1)
    for x in (-1.0, 0.0, 2.0):
        mean = process.posterior_mean(schedule, jnp.full((1, 1), x_0), jnp.full((1, 1), x), jnp.array([t]))
        assert float(mean[0, 0]) == pytest.approx(slope * x + offset, abs=0.01)
    assert schedule.posterior_variance[t] == pytest.approx(np.var(previous - slope * x_t - offset), rel=0.01)


@pytest.mark.parametrize("v, share", [(1.0, 1.0), (-1.0, 0.0), (0.0, 0.5), (2.0, 1.5)])
def test_the_learned_variance_lies_between_beta_and_the_posterior_in_logarithms(v, share):
    schedule = linear(1000)
    posterior = np.append(schedule.posterior_variance[1], schedule.posterior_variance[1:])
    expected = (share * np.log(schedule.betas) + (1 - share) * np.log(posterior))[np.asarray(T_B)]
    found = process.learned_log_variance(schedule, jnp.full((4, 2, 2, 3), v), T_B)
    np.testing.assert_allclose(found, np.broadcast_to(expected[:, None, None, None], (4, 2, 2, 3)), rtol=1e-5)


def test_a_prediction_is_split_where_the_channels_of_the_image_end():
    x, output = normal(0), normal(1, (4, 2, 2, 6))
    noise, v = process.split_prediction(output, x)
    np.testing.assert_array_equal(jnp.concatenate([noise, v], -1), output)
    assert noise.shape == v.shape == x.shape
    assert process.split_prediction(x, x) == (x, None)


@pytest.mark.parametrize("shape", [(4, 2, 2, 5), (4, 2, 2, 9), (4, 2, 4, 3), (2, 2, 2, 6)])
def test_a_prediction_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match="3 or 6 channels"):
        process.split_prediction(jnp.zeros(shape), normal(0))
