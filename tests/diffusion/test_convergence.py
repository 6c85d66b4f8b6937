"""Samplers where the noise is known exactly: they reach the map and the distribution that the theory names, at its order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdit_jax.diffusion import samplers, schedule

SCHEDULE = schedule.linear(1000)
MEAN, STD = 0.4, 0.25


def denoise(x, t_B):
    """E(noise | x_t) for data of N(MEAN, STD^2)."""
    bar = jnp.asarray(SCHEDULE.alphas_bar, jnp.float32)[t_B][:, None]
    return jnp.sqrt(1 - bar) * (x - jnp.sqrt(bar) * MEAN) / (bar * STD**2 + 1 - bar)


def error(method, steps, z):
    """Root mean square distance from the exact solution of the probability-flow ODE, which is linear for a Gaussian."""
    bar = SCHEDULE.alphas_bar[-1]
    x_T = np.sqrt(bar) * MEAN + np.sqrt(bar * STD**2 + 1 - bar) * z
    found = samplers.sample(denoise, jnp.asarray(x_T, jnp.float32), SCHEDULE, method=method, steps=steps)
    return float(np.sqrt(np.square(np.asarray(found, np.float64) - (MEAN + STD * z)).mean()))


@pytest.fixture(scope="module")
def z():
    return np.random.default_rng(0).normal(size=(4000, 1))


def test_halving_the_step_quarters_the_error_of_second_order_and_halves_that_of_first(z):
    orders = {}
    for method in ("ddim", "dpmpp_2m"):
        errors = [error(method, steps, z) for steps in (10, 20, 40)]
        orders[method] = np.log2(errors[0] / errors[-1]) / 2
    assert 0.8 < orders["ddim"] < 1.4 and orders["dpmpp_2m"] > 1.7, orders


def test_twenty_steps_of_second_order_are_nearer_than_fifty_of_first(z):
    assert error("dpmpp_2m", 20, z) < error("ddim", 50, z)


@pytest.mark.parametrize("method", samplers.SAMPLERS)
def test_many_steps_give_the_distribution(method, z):
    x_T = jnp.asarray(z, jnp.float32)
    made = np.asarray(samplers.sample(denoise, x_T, SCHEDULE, method=method, steps=1000, key=jax.random.key(1)), np.float64)
    np.testing.assert_allclose(made.mean(), MEAN, atol=4 * STD / np.sqrt(len(z)))
    np.testing.assert_allclose(made.std(), STD, rtol=0.05)


@pytest.mark.parametrize("method", samplers.SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_few_steps_of_the_steepest_schedule_stay_finite(method, steps):
    x_T = jax.random.normal(jax.random.key(0), (8, 4, 4, 1))
    found = samplers.sample(
        lambda x, t: 0.9 * x, x_T, schedule.cosine(1000), method=method, steps=steps, key=jax.random.key(2), clip_x0=True
    )
    assert np.isfinite(found).all()
