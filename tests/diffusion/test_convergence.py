"""Samplers against exact solutions, on a mixture of Gaussians whose noise prediction is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.optimize import brentq
from scipy.stats import norm

from sdit_jax.diffusion import samplers
from sdit_jax.diffusion.objective import Objective
from sdit_jax.diffusion.samplers import sample
from sdit_jax.diffusion.schedule import SCHEDULES, linear, variance_preserving

GAUSSIAN = ((1.0, 0.4, 0.3),)
MIXTURE = ((0.3, -0.7, 0.08), (0.5, 0.1, 0.15), (0.2, 0.8, 0.05))  # (weight, mean, deviation), inside of [-1, 1].


def clean(parts, x, bar, xp=np):
    """E[x_0 | x_t = x] for data of these parts, in numpy or jax.numpy."""
    weight, mean, deviation = xp.asarray(parts).T
    variance, x = bar * deviation**2 + 1 - bar, x[..., None]
    log_p = -((x - xp.sqrt(bar) * mean) ** 2) / (2 * variance) - xp.log(variance) / 2 + xp.log(weight)
    p = xp.exp(log_p - log_p.max(-1, keepdims=True))
    of_part = mean + xp.sqrt(bar) * deviation**2 / variance * (x - xp.sqrt(bar) * mean)
    return (p * of_part).sum(-1) / p.sum(-1)


def predictor(parts, schedule):
    """The exact denoiser, of a network that predicts noise; of any process, which scales to a variance-preserving one."""

    def denoise(x, t_B):
        alpha, sigma = (jnp.asarray(table, jnp.float32)[t_B[0]] for table in (schedule.alphas, schedule.sigmas))
        scale = jnp.sqrt(alpha**2 + sigma**2)
        noise = (x - alpha * clean(parts, x / scale, (alpha / scale) ** 2, jnp)) / sigma
        return Objective(schedule).denoised(noise, x, t_B)

    return denoise


def probability_flow(parts, x, start, end):
    """The exact ODE from abar = start to end: d(x / alpha) / d log(sigma / alpha) = x / alpha - E[x_0 | x]."""
    bar = lambda log_noise: 1 / (1 + np.exp(2 * log_noise))
    slope = lambda log_noise, y: y - clean(parts, y * np.sqrt(bar(log_noise)), bar(log_noise))
    ends = [np.log(1 / b - 1) / 2 for b in (start, end)]
    return solve_ivp(slope, ends, x / np.sqrt(start), method="DOP853", rtol=1e-11, atol=1e-11).y[:, -1] * np.sqrt(end)


def even_in_log_snr(steps, cleanest=6.0, noisiest=-8.0):
    """A schedule of exactly these steps."""
    bar = 1 / (1 + np.exp(-np.linspace(cleanest, noisiest, steps)))
    return variance_preserving(1 - bar / np.append(1, bar[:-1]))


def test_the_exact_flow_of_a_gaussian_carries_deviations_from_the_mean():
    x = np.linspace(-2, 2, 5)
    deviation = lambda bar: np.sqrt(bar * 0.3**2 + 1 - bar)
    expected = np.sqrt(0.9) * 0.4 + deviation(0.9) / deviation(0.01) * (x - np.sqrt(0.01) * 0.4)
    np.testing.assert_allclose(probability_flow(GAUSSIAN, x, 0.01, 0.9), expected, atol=1e-9)


@pytest.mark.parametrize("parts", [GAUSSIAN, MIXTURE], ids=["gaussian", "mixture"])
@pytest.mark.parametrize("method, order", [("ddim", 1), ("euler", 1), ("heun", 2), ("dpmpp_2m", 2), ("dpmpp_3m", 3)])
def test_the_error_falls_with_the_order_of_the_method(method, order, parts):
    """The last step goes from the cleanest level to what is expected there, whatever the order: so does the exact solution."""
    x_T, errors = np.linspace(-3, 3, 61), []
    numbers = np.array([40, 80, 160, 320] if order < 3 else [60, 85, 120, 170])  # Then rounding is larger.
    for steps in numbers:
        schedule = even_in_log_snr(steps)
        end, start = schedule.alphas_bar[[0, -1]]
        exact = clean(parts, probability_flow(parts, x_T, start, end), end)
        found = sample(predictor(parts, schedule), jnp.asarray(x_T[:, None], jnp.float32), schedule, method=method)
        errors.append(np.sqrt(np.mean((np.asarray(found)[:, 0] - exact) ** 2)))
    assert -np.polyfit(np.log(numbers), np.log(errors), 1)[0] == pytest.approx(order, abs=0.15)


def quantiles(parts, normal_quantiles):
    """The points of the data's distribution at these quantiles of the normal one: where the flow without end takes them."""
    cdf = lambda x: sum(weight * norm.cdf(x, mean, deviation) for weight, mean, deviation in parts)
    return np.array([brentq(lambda x, p=p: cdf(x) - p, -4, 4, xtol=1e-12) for p in norm.cdf(normal_quantiles)])


@pytest.fixture(scope="module")
def misses():
    """misses(name of the schedule, method, steps=... or timesteps=...): the distance to the mixture's distribution.

    Wasserstein's first, between 501 evenly likely points and their exact places: the mean distance of sorted points.
    """
    x_T = norm.ppf((np.arange(501) + 0.5) / 501)
    exact = quantiles(MIXTURE, x_T)

    def measure(name, method, **steps):
        schedule = SCHEDULES[name](1000)
        found = sample(predictor(MIXTURE, schedule), jnp.asarray(x_T[:, None], jnp.float32), schedule, method=method, **steps)
        return np.abs(np.sort(np.asarray(found)[:, 0]) - exact).mean()

    return measure


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_20_steps_of_second_order_are_closer_to_the_distribution_than_50_of_ddim(name, misses):
    ours, theirs = misses(name, "dpmpp_2m", steps=20), misses(name, "ddim", steps=50)
    assert ours < 0.75 * theirs
    even = SCHEDULES[name](1000).spaced(20)[::-1]
    assert misses(name, "dpmpp_2m", timesteps=even) > misses(name, "ddim", timesteps=even)  # Why `visited` spaces otherwise.


def law(schedule, timesteps, mean=0.4, deviation=0.3):
    """Mean and deviation of SDE-DPM-Solver++(2M) on Gaussian data: every step is linear in (x, the clean image before)."""
    bar = np.append(schedule.alphas_bar[timesteps], 1)
    alpha, sigma, centre, covariance = np.sqrt(bar), np.sqrt(1 - bar), np.zeros(2), np.diag([1.0, 0.0])
    half_log_snr = np.append(np.log(alpha[:-1] / sigma[:-1]), np.inf)
    h = np.diff(half_log_snr)
    for i in range(len(timesteps)):
        slope = alpha[i] * deviation**2 / (bar[i] * deviation**2 + 1 - bar[i])  # Of E[x_0 | x].
        weight = h[i] / h[i - 1] / 2 if 0 < i < len(timesteps) - 1 else 0
        of_x, of_clean = sigma[i + 1] / sigma[i] * np.exp(-h[i]), alpha[i + 1] * (1 - np.exp(-2 * h[i]))
        move = np.array([[of_x + of_clean * (1 + weight) * slope, -of_clean * weight], [slope, 0]])
        centre = move @ centre + mean * (1 - slope * alpha[i]) * np.array([of_clean * (1 + weight), 1])
        covariance = move @ covariance @ move.T + np.diag([sigma[i + 1] ** 2 * (1 - np.exp(-2 * h[i])), 0])
    return centre[0], np.sqrt(covariance[0, 0])


@pytest.mark.parametrize("steps", [2, 3, 20])
def test_the_stochastic_sampler_has_the_mean_and_deviation_of_its_equation(steps):
    n, schedule = 40_000, linear(1000)
    x_T = jax.random.normal(jax.random.key(0), (n, 1))
    drawn = sample(predictor(GAUSSIAN, schedule), x_T, schedule, method="dpmpp_2m_sde", steps=steps, key=jax.random.key(1))
    mean, deviation = law(schedule, samplers.visited(schedule, "dpmpp_2m_sde", steps))
    found = np.asarray(drawn, np.float64)
    assert found.mean() == pytest.approx(mean, abs=4 * deviation / np.sqrt(n))
    assert found.std() == pytest.approx(deviation, rel=4 / np.sqrt(2 * n))


def test_the_equation_of_the_stochastic_sampler_tends_to_the_data_with_second_order():
    """Against the deviation of what is expected of data at the cleanest level, where the last step ends."""
    bar = even_in_log_snr(2).alphas_bar[0]
    exact = np.sqrt(bar) * 0.3**2 / np.sqrt(bar * 0.3**2 + 1 - bar)
    off = [law(schedule, np.arange(len(schedule))[::-1])[1] - exact for schedule in map(even_in_log_snr, (40, 80, 160))]
    assert [off[0] / off[1], off[1] / off[2]] == pytest.approx([4, 4], rel=0.15)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_stochastic_sampler_draws_the_mixture(name):
    n, schedule = 20_000, SCHEDULES[name](1000)
    x_T = jax.random.normal(jax.random.key(2), (n, 1))
    drawn = sample(predictor(MIXTURE, schedule), x_T, schedule, method="dpmpp_2m_sde", steps=200, key=jax.random.key(3))
    found, (weight, mean, deviation) = np.asarray(drawn, np.float64)[:, 0], np.array(MIXTURE).T
    moments = [weight @ mean, weight @ (mean**2 + deviation**2), weight @ (mean**3 + 3 * mean * deviation**2)]
    for power, moment in enumerate(moments, 1):
        assert (found**power).mean() == pytest.approx(moment, abs=4 * (found**power).std() / np.sqrt(n))
    nearest = np.abs(found[:, None] - mean).argmin(1)
    expected = np.diff([0, *(sum(w * norm.cdf(edge, m, d) for w, m, d in MIXTURE) for edge in (-0.3, 0.45)), 1])
    np.testing.assert_allclose(np.bincount(nearest) / n, expected, atol=4 * 0.5 / np.sqrt(n))


@pytest.mark.parametrize(
    "method, expected",
    [
        ("dpmpp_2m", [-0.8371602997095744, -0.7208315818439796, 0.10245831047397, 0.8525631432563612]),
        ("dpmpp_2m_sde", [0.9356855583113606, 0.9348520430866932, 0.9343430698333619, 0.9335852432541765]),
    ],
)
def test_a_trajectory_is_that_of_diffusers(method, expected, monkeypatch):
    """DPMSolverMultistepScheduler of diffusers 0.42.1: solver_type midpoint, final_sigmas_type zero, every fresh noise 0.5."""
    monkeypatch.setattr(samplers, "normal", lambda key, x: jnp.full_like(x, 0.5))
    schedule, x_T = linear(1000), jnp.array([[-2.0], [-0.7], [0.1], [1.3]])
    timesteps = [999, 800, 610, 450, 310, 200, 115, 55, 18, 0]
    found = sample(predictor(MIXTURE, schedule), x_T, schedule, method=method, timesteps=timesteps, key=jax.random.key(0))
    np.testing.assert_allclose(np.asarray(found)[:, 0], expected, atol=2e-5)


@pytest.mark.parametrize("method", samplers.SAMPLERS)
def test_all_steps_give_the_distribution(method):
    schedule, x_T = linear(1000), jax.random.normal(jax.random.key(4), (4000, 1))
    drawn = sample(predictor(GAUSSIAN, schedule), x_T, schedule, method=method, key=jax.random.key(5))
    found = np.asarray(drawn, np.float64)
    assert found.mean() == pytest.approx(0.4, abs=4 * 0.3 / np.sqrt(4000))
    assert found.std() == pytest.approx(0.3, rel=0.05)


@pytest.mark.parametrize("method", samplers.SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_few_steps_of_the_steepest_schedule_stay_finite(method, steps):
    x_T, network = jax.random.normal(jax.random.key(0), (8, 4, 4, 1)), lambda x, t: 0.9 * x
    drawn = sample(network, x_T, SCHEDULES["cosine"](1000), method=method, steps=steps, key=jax.random.key(2), clip_x0=True)
    assert jnp.isfinite(drawn).all()
