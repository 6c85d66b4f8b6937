"""Loss terms against scipy and float64; the release's own numbers are in models/test_release.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from sdit_jax.diffusion import loss, process
from sdit_jax.diffusion.objective import Objective
from sdit_jax.diffusion.schedule import linear

SCHEDULE = linear(1000)
OBJECTIVE = Objective(SCHEDULE)
LEVELS = np.arange(256) / 127.5 - 1
CDF_ERROR = 3e-4  # Of Page's tanh approximation.
T_B = jnp.array([0, 1, 17, 400, 999])


def example(seed=0):
    """(output, x_0, x_t, t, noise) with a prediction that is a little wrong, x_0 on the 8-bit levels with both ends."""
    rng = np.random.default_rng(seed)
    x_0 = LEVELS[rng.integers(0, 256, (5, 4, 4, 2))]
    x_0[:, 0, 0], x_0[:, 0, 1] = -1, 1
    x_0, noise = jnp.asarray(x_0, jnp.float32), jnp.asarray(rng.normal(size=x_0.shape), jnp.float32)
    predicted = noise + 0.3 * rng.normal(size=x_0.shape)
    output = jnp.concatenate([predicted, jnp.asarray(rng.uniform(-1, 1, x_0.shape))], -1).astype(jnp.float32)
    return output, x_0, process.add_noise(SCHEDULE, x_0, T_B, noise), T_B, noise


def float64_bound(output, x_0, x_t, t_B):
    """The variational bound of every example from scipy's distributions, in bits per dimension."""
    output, x_0, x_t = (np.asarray(a, np.float64) for a in (output, x_0, x_t))
    predicted, v = np.split(output, 2, -1)
    bound = []
    for i, t in enumerate(np.asarray(t_B)):
        beta, bar = SCHEDULE.betas[t], np.prod(1 - SCHEDULE.betas[: t + 1])
        previous = bar / (1 - beta)
        posterior = beta * (1 - previous) / (1 - bar)
        first = SCHEDULE.betas[1] * SCHEDULE.betas[0] / (1 - (1 - SCHEDULE.betas[0]) * (1 - SCHEDULE.betas[1]))

        def mean(x, beta=beta, bar=bar, previous=previous, x_t=x_t[i]):
            return (np.sqrt(previous) * beta * x + np.sqrt(1 - beta) * (1 - previous) * x_t) / (1 - bar)

        f = (v[i] + 1) / 2
        variance = beta**f * (posterior if t else first) ** (1 - f)
        model_mean = mean((x_t[i] - np.sqrt(1 - bar) * predicted[i]) / np.sqrt(bar))
        if t == 0:
            q = stats.norm(model_mean, np.sqrt(variance))
            below = np.where(x_0[i] < -0.999, 0, q.cdf(x_0[i] - 1 / 255))
            above = np.where(x_0[i] > 0.999, 1, q.cdf(x_0[i] + 1 / 255))
            nats = -np.log(np.maximum(above - below, 1e-12))
        else:
            distance = (mean(x_0[i]) - model_mean) ** 2 / variance
            nats = 0.5 * (np.log(variance / posterior) + posterior / variance + distance - 1)
        bound.append(nats.mean() / np.log(2))
    return np.array(bound)


def test_terms_equal_their_definitions_in_float64():
    output, x_0, x_t, t, noise = example()
    terms = OBJECTIVE.losses(output, x_0, x_t, t, noise)
    mse = ((np.asarray(output, np.float64)[..., :2] - np.asarray(noise)) ** 2).mean((1, 2, 3))
    expected = float64_bound(output, x_0, x_t, t)
    assert set(terms) == {"mse", "vb", "loss"}
    np.testing.assert_allclose(terms["mse"], mse, rtol=1e-5)
    np.testing.assert_allclose(terms["vb"][1:], expected[1:], rtol=2e-3)
    np.testing.assert_allclose(terms["vb"][0], expected[0], rtol=0.02)  # Page's approximation.
    np.testing.assert_allclose(terms["loss"], terms["mse"] + terms["vb"], rtol=1e-6)


def test_without_a_learned_variance_the_loss_is_the_squared_error():
    output, x_0, x_t, t, noise = example()
    terms = OBJECTIVE.losses(output[..., :2], x_0, x_t, t, noise)
    assert set(terms) == {"mse", "loss"}
    np.testing.assert_allclose(terms["loss"], ((output[..., :2] - noise) ** 2).mean((1, 2, 3)), rtol=1e-6)


def test_the_bound_trains_the_variance_alone():
    output, x_0, x_t, t, noise = example()
    gradient = jax.jit(jax.grad(lambda o, name: OBJECTIVE.losses(o, x_0, x_t, t, noise)[name].sum()), static_argnums=1)
    noise_half, v_half = jnp.split(gradient(output, "vb"), 2, -1)
    assert (noise_half == 0).all() and (jnp.abs(v_half) > 0).mean() > 0.9
    noise_half, v_half = jnp.split(gradient(output, "mse"), 2, -1)
    np.testing.assert_allclose(noise_half, 2 * (output[..., :2] - noise) / noise[0].size, rtol=1e-5, atol=1e-8)
    assert (v_half == 0).all()


def test_the_gradient_of_the_variance_is_that_of_the_float64_bound():
    output, x_0, x_t, t, noise = example()
    gradient = jax.grad(lambda o: OBJECTIVE.losses(o, x_0, x_t, t, noise)["vb"].sum())(output)
    step, place = 1e-3, (slice(None), 2, 3, 3)
    shifted = np.asarray(output, np.float64)
    shifted[place] += step
    up = float64_bound(shifted, x_0, x_t, t)
    shifted[place] -= 2 * step
    slope = (up - float64_bound(shifted, x_0, x_t, t)) / (2 * step)
    np.testing.assert_allclose(gradient[place][1:], slope[1:], rtol=5e-3, atol=1e-7)


@pytest.mark.parametrize("mean_q, variance_q, mean_p, variance_p", [(0, 1, 0, 1), (0.3, 0.5, -0.2, 2), (-1, 0.01, -0.9, 0.02)])
def test_the_divergence_of_gaussians_is_its_integral(mean_q, variance_q, mean_p, variance_p):
    q, p = stats.norm(mean_q, np.sqrt(variance_q)), stats.norm(mean_p, np.sqrt(variance_p))
    reach = 12 * np.sqrt(variance_q)
    expected, _ = integrate.quad(lambda x: q.pdf(x) * (q.logpdf(x) - p.logpdf(x)), mean_q - reach, mean_q + reach)
    found = loss.gaussian_kl(mean_q, jnp.log(variance_q), mean_p, jnp.log(variance_p))
    assert float(found) == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("mean", [-1.2, -0.999, 0.0, 0.503, 1.0])
@pytest.mark.parametrize("scale", [0.003, 0.02, 0.3, 2.0])
def test_the_discretized_likelihood_sums_to_one_and_follows_the_normal_distribution(mean, scale):
    levels = jnp.asarray(LEVELS, jnp.float32)
    found = np.exp(np.asarray(loss.discretized_log_likelihood(levels, mean, np.log(scale)), np.float64))
    edges = np.concatenate([[-np.inf], LEVELS[:-1] + 1 / 255, [np.inf]])
    assert found.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(found, np.diff(stats.norm(mean, scale).cdf(edges)), atol=2 * CDF_ERROR)


def test_the_normal_distribution_function_is_close_to_the_true_one():
    x = np.linspace(-6, 6, 1001)
    error = np.abs(np.asarray(loss._normal_cdf(jnp.asarray(x, jnp.float32))) - stats.norm.cdf(x))
    assert error.max() < CDF_ERROR


def test_an_impossible_level_costs_much_but_not_infinitely():
    found = loss.discretized_log_likelihood(jnp.array([-1.0, 0.5, 1.0]), jnp.array([1.0, -0.5, -1.0]), jnp.log(1e-3))
    np.testing.assert_allclose(found, np.log(1e-12), rtol=1e-5)
