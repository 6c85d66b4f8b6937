"""Samplers on Gaussian data, where the right prediction and the law of every step are known exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

from sdit_jax.diffusion import process, samplers
from sdit_jax.diffusion.objective import Objective
from sdit_jax.diffusion.samplers import sample
from sdit_jax.diffusion.schedule import cosine, linear, rectified_flow

MEAN, DEVIATION = 0.4, 0.3
KEY = jax.random.key(5)
SCHEDULE = linear(1000)
BAR = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))


def noise_predictor(alphas_bar):
    """E[noise | x_t] for data N(MEAN, DEVIATION^2)."""

    def predict(x, t_B):
        bar = jnp.asarray(alphas_bar, jnp.float32)[t_B].reshape(-1, *[1] * (x.ndim - 1))
        return jnp.sqrt(1 - bar) * (x - jnp.sqrt(bar) * MEAN) / (bar * DEVIATION**2 + 1 - bar)

    return predict


def denoiser(predict, schedule=SCHEDULE):
    """The denoiser of a network that predicts noise."""
    return lambda x, t_B: Objective(schedule).denoised(predict(x, t_B), x, t_B)


predict = noise_predictor(BAR)
denoise = denoiser(predict)


def noise_of(x, bar):
    return np.sqrt(1 - bar) * (x - np.sqrt(bar) * MEAN) / (bar * DEVIATION**2 + 1 - bar)


def ddim_in_float64(x, timesteps):
    for i, t in enumerate(timesteps):
        bar, previous = BAR[t], BAR[timesteps[i + 1]] if i + 1 < len(timesteps) else 1.0
        noise = noise_of(x, bar)
        x = np.sqrt(previous / bar) * (x - np.sqrt(1 - bar) * noise) + np.sqrt(1 - previous) * noise
    return x


def ddpm_law_in_float64(timesteps):
    """Mean and variance of x_0: every step is linear in x, so two points tell its slope and offset."""
    mean, variance = 0.0, 1.0
    for i, t in enumerate(timesteps):
        bar, previous = BAR[t], BAR[timesteps[i + 1]] if i + 1 < len(timesteps) else 1.0
        beta = 1 - bar / previous

        def move(x, bar=bar, previous=previous, beta=beta):
            x_0 = (x - np.sqrt(1 - bar) * noise_of(x, bar)) / np.sqrt(bar)
            return (np.sqrt(previous) * beta * x_0 + np.sqrt(1 - beta) * (1 - previous) * x) / (1 - bar)

        slope = move(1.0) - move(0.0)
        added = beta * (1 - previous) / (1 - bar)
        mean, variance = move(mean), slope**2 * variance + added
    return mean, variance


@pytest.mark.parametrize("steps", [1, 7, 50, None])
def test_ddim_is_the_linear_map_of_the_definition(steps):
    timesteps = np.round(np.linspace(0, 999, steps or 1000)).astype(int)[::-1] if steps != 1 else [999]
    x_T = np.linspace(-3, 3, 11)[:, None]
    found = sample(denoise, jnp.asarray(x_T, jnp.float32), SCHEDULE, method="ddim", steps=steps)
    np.testing.assert_allclose(found, ddim_in_float64(x_T, list(timesteps)), atol=2e-4)


def test_ddim_with_all_steps_maps_noise_onto_the_data():
    """The probability flow carries quantiles: x_T standard deviations from 0 end x_T deviations from the mean."""
    x_T = jnp.linspace(-3, 3, 11)[:, None]
    np.testing.assert_allclose(sample(denoise, x_T, SCHEDULE, method="ddim"), MEAN + DEVIATION * x_T, atol=0.01)


@pytest.mark.parametrize("steps", [20, 250])
def test_ddpm_has_the_mean_and_variance_of_its_chain(steps):
    n = 40_000
    x_T = jax.random.normal(jax.random.key(0), (n, 1))
    found = np.asarray(sample(denoise, x_T, SCHEDULE, method="ddpm", steps=steps, key=KEY), np.float64)
    mean, variance = ddpm_law_in_float64(list(np.round(np.linspace(0, 999, steps)).astype(int)[::-1]))
    assert found.mean() == pytest.approx(mean, abs=5 * np.sqrt(variance / n))
    assert found.var() == pytest.approx(variance, rel=5 * np.sqrt(2 / n))


def test_ddpm_with_many_steps_has_the_law_of_the_data():
    mean, variance = ddpm_law_in_float64(list(range(999, -1, -1)))
    assert mean == pytest.approx(MEAN, abs=0.01) and np.sqrt(variance) == pytest.approx(DEVIATION, rel=0.02)


def level(x, index, noise, v=None, key=KEY, schedule=SCHEDULE):
    """The arguments of a step for this noise prediction."""
    x_0 = Objective(schedule).denoised(noise, x, jnp.full(len(x), index)).x_0
    return samplers.Level(schedule, jnp.asarray(index), x, x_0, noise, v, (x_0, x_0), key, lambda x, i: None)


def ddpm_step(x, index, noise, v=None, key=KEY):
    return np.asarray(samplers.ddpm(level(x, index, noise, v, key)), np.float64)


@pytest.mark.parametrize("index", [1, 10, 500, 999])
def test_ddpm_adds_normal_noise_of_the_posterior_or_the_learned_variance(index):
    x = jnp.full((20_000, 1), 0.8)
    noise = predict(x, jnp.full(20_000, index))
    v = jnp.ones_like(x)
    fixed, upper, lower = (ddpm_step(x, index, noise, v) for v in (None, v, -v))
    beta = SCHEDULE.betas[index]
    posterior = beta * (1 - BAR[index - 1]) / (1 - BAR[index])
    assert fixed.std() == pytest.approx(np.sqrt(posterior), rel=5 / np.sqrt(2 * len(x)))
    assert upper.std() / fixed.std() == pytest.approx(np.sqrt(beta / posterior), rel=1e-3)
    np.testing.assert_allclose(lower, fixed, atol=1e-5)


@pytest.mark.parametrize("v", [-1.0, 0.0, 1.0])
def test_the_last_step_of_ddpm_has_no_noise(v):
    x = jnp.linspace(-1, 1, 9)[:, None]
    noise = predict(x, jnp.zeros(9, int))
    expected = (np.asarray(x) - np.sqrt(1 - BAR[0]) * np.asarray(noise)) / np.sqrt(BAR[0])
    for seed in (0, 1):
        np.testing.assert_allclose(ddpm_step(x, 0, noise, jnp.full_like(x, v), jax.random.key(seed)), expected, atol=1e-5)


def test_ddpm_is_a_function_of_its_key_with_fresh_noise_at_every_step():
    x_T = jnp.zeros((500, 1))
    draw = lambda seed: sample(denoise, x_T, SCHEDULE, method="ddpm", steps=10, key=jax.random.key(seed)).ravel()
    np.testing.assert_array_equal(draw(0), draw(0))
    assert abs(np.corrcoef(draw(0), draw(1))[0, 1]) < 0.25
    steps = [ddpm_step(x_T, i, x_T).ravel() for i in (500, 501)]
    assert abs(np.corrcoef(*steps)[0, 1]) < 0.25


def times(**options):
    """The timesteps that a sampler calls the network with, in order."""
    seen = []

    def network(x, t_B):
        assert t_B.shape == x.shape[:1] and len(set(t_B.tolist())) == 1
        seen.append(int(t_B[0]))
        return x

    with jax.disable_jit():
        sample(network, jnp.ones((2, 3)), options.pop("schedule", SCHEDULE), **options)
    return seen


def test_the_network_receives_the_times_of_the_full_schedule():
    assert times(method="ddim", steps=4) == [999, 666, 333, 0]
    assert times(method="ddpm", steps=3, key=KEY) == [999, 500, 0]
    assert times(method="ddim", schedule=cosine(6)) == [5, 4, 3, 2, 1, 0]
    assert times(method="dpmpp_2m", steps=4) == [999, 603, 73, 0]
    assert times(method="dpmpp_2m_sde", schedule=cosine(6), key=KEY) == [5, 4, 3, 2, 1, 0]
    assert times(method="heun", timesteps=[900, 500, 3]) == [900, 500, 500, 3, 3]


@pytest.mark.parametrize("method", samplers.SAMPLERS)
@pytest.mark.parametrize("steps", [1, 5])
def test_the_levels_of_network_calls_are_known(method, steps):
    visited = samplers.visited(SCHEDULE, method, steps).tolist()
    called = times(method=method, steps=steps, key=KEY)
    assert sorted(samplers.SAMPLERS[method].called(visited)) == sorted(called)


@pytest.mark.parametrize("churn", [0.3, 0.8, 1.0])
def test_churn_has_the_mean_and_variance_of_its_chain(churn):
    """Every step is linear in x and adds alpha-independent noise, so two points tell its slope and offset."""
    n, timesteps, mean, variance = 40_000, [999, 700, 400, 100], 0.0, 1.0
    for t, previous in zip(BAR[timesteps], [*BAR[timesteps[1:]], 1.0], strict=True):
        kept = np.sqrt((1 - previous) * (1 - churn**2))
        move = lambda x, t=t, previous=previous, kept=kept: (
            np.sqrt(previous / t) * (x - np.sqrt(1 - t) * noise_of(x, t)) + kept * noise_of(x, t)
        )
        mean, variance = move(mean), (move(1.0) - move(0.0)) ** 2 * variance + (1 - previous) * churn**2
    x_T = jax.random.normal(jax.random.key(0), (n, 1))
    found = sample(denoise, x_T, SCHEDULE, method="ddim", timesteps=timesteps, churn=churn, key=KEY)
    found = np.asarray(found, np.float64)
    assert found.mean() == pytest.approx(mean, abs=5 * np.sqrt(variance / n))
    assert found.var() == pytest.approx(variance, rel=5 * np.sqrt(2 / n))


def test_all_fresh_noise_forgets_the_noise_before():
    """The sampler of consistency models: after a step, x holds the clean image and independent noise."""
    x = jax.random.normal(jax.random.key(1), (20_000, 1))
    here = level(x, 500, x)._replace(x_0=jnp.zeros_like(x), churn=1.0)
    moved = np.asarray(samplers.ddim(here)).ravel()
    assert abs(np.corrcoef(moved, np.ravel(x))[0, 1]) < 5 / np.sqrt(len(x))
    assert moved.std() == pytest.approx(np.sqrt(1 - BAR[499]), rel=0.03)


@pytest.mark.parametrize(("method", "churn"), [("ddim", 1.1), ("ddim", -0.1), ("heun", 0.1), ("dpmpp_2m", 0.5)])
def test_churn_that_a_sampler_has_not_is_refused(method, churn):
    with pytest.raises(ValueError, match="churn: found"):
        sample(denoise, jnp.zeros((2, 1)), SCHEDULE, method=method, steps=3, churn=churn, key=KEY)
    with pytest.raises(ValueError, match="pass key"):
        sample(denoise, jnp.zeros((2, 1)), SCHEDULE, method="ddim", steps=3, churn=0.5)


@pytest.mark.parametrize("method", samplers.SAMPLERS)
def test_explicit_timesteps_override_steps(method):
    timesteps = [900, 500, 499, 3]
    called = [900, 500, 500, 499, 499, 3, 3] if method == "heun" else timesteps
    assert times(method=method, timesteps=timesteps, steps=50, key=KEY) == called
    assert times(method=method, timesteps=np.array(timesteps), key=KEY) == called
    x_T = jnp.linspace(-2, 2, 5)[:, None]
    found = sample(denoise, x_T, SCHEDULE, method="ddim", timesteps=timesteps)
    np.testing.assert_allclose(found, ddim_in_float64(np.asarray(x_T, np.float64), timesteps), atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 2), (3, 4, 2), (3, 4, 5, 2)])
def test_arrays_of_any_shape_are_sampled_elementwise(shape):
    x_T = jax.random.normal(KEY, shape)
    found = sample(denoise, x_T, SCHEDULE, method="ddim", steps=9)
    flat = sample(denoise, x_T.reshape(-1, 1), SCHEDULE, method="ddim", steps=9)
    np.testing.assert_allclose(found.reshape(-1, 1), flat, atol=1e-6)


@pytest.mark.parametrize("method", [method for method in samplers.SAMPLERS if method != "ddpm"])
def test_only_ddpm_uses_a_learned_variance(method):
    x_T = jax.random.normal(KEY, (4, 2))
    with_v = denoiser(lambda x, t_B: jnp.concatenate([predict(x, t_B), 100 * x], -1))
    expected, found = (sample(network, x_T, SCHEDULE, method=method, steps=5, key=KEY) for network in (denoise, with_v))
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("method", [name for name, sampler in samplers.SAMPLERS.items() if sampler.stochastic])
def test_with_its_own_key_an_image_does_not_depend_on_its_batch(method):
    x_T, keys = jax.random.normal(KEY, (4, 3)), jax.random.split(KEY, 4)
    draw = lambda x, key: sample(denoise, x, SCHEDULE, method=method, steps=6, key=key)
    found = draw(x_T, keys)
    np.testing.assert_allclose(draw(x_T[1:3], keys[1:3]), found[1:3], atol=1e-6)
    assert jnp.abs(draw(x_T[1:3], keys[2:]) - found[1:3]).min() > 1e-3


def dpmpp_2m_in_float64(x, bar):
    """Data N(MEAN, DEVIATION^2) along these abar, as the paper writes it: in h and r, the last step to sigma = 0."""
    alpha, sigma, before = np.sqrt(bar), np.sqrt(1 - bar), None
    h = np.append(np.diff(np.log(alpha / sigma)), np.inf)
    for i in range(len(bar)):
        x_0 = (x - sigma[i] * noise_of(x, bar[i])) / alpha[i]
        ahead = x_0
        if 0 < i < len(bar) - 1:
            r = h[i - 1] / h[i]
            ahead = (1 + 1 / (2 * r)) * x_0 - 1 / (2 * r) * before
        to_alpha, to_sigma = (alpha[i + 1], sigma[i + 1]) if i + 1 < len(bar) else (1, 0)
        x, before = to_sigma / sigma[i] * x - to_alpha * np.expm1(-h[i]) * ahead, x_0
    return x


@pytest.mark.parametrize("timesteps", [[999], [999, 0], [999, 998, 990, 700, 300, 40, 0], range(999, -1, -1)], ids=len)
@pytest.mark.parametrize("clip", [False, True])
def test_second_order_is_stable_from_almost_no_signal_to_no_noise(timesteps, clip):
    schedule, x_T = cosine(1000), np.linspace(-1.5, 1.5, 7)[:, None]
    bar = schedule.alphas_bar[list(timesteps)]
    assert bar[0] < 1e-8
    draw = lambda method: sample(
        denoiser(noise_predictor(schedule.alphas_bar), schedule), jnp.asarray(x_T, jnp.float32), schedule,
        method=method, timesteps=timesteps, key=KEY, clip_x0=clip,
    )  # fmt: skip
    with jax.debug_nans(True), jax.debug_infs(True):
        found, drawn = draw("dpmpp_2m"), draw("dpmpp_2m_sde")
    rounding = 1e-4 if len(timesteps) > 2 else 3e-3  # The first prediction divides by sqrt(abar) = 5e-5.
    np.testing.assert_allclose(found, dpmpp_2m_in_float64(x_T, bar), atol=rounding)
    assert jnp.abs(drawn - MEAN).max() < 5 * DEVIATION


@pytest.mark.parametrize("i", [1, 3, 5])
@pytest.mark.parametrize("method, degree", [("dpmpp_2m", 0), ("dpmpp_3m", 2)])
def test_a_step_is_exact_along_a_polynomial_of_log_snr(method, degree, i):
    """x_s / sigma_s = x_t / sigma_t + integral of e^lambda x_0(lambda), lambda = log(alpha / sigma), for x_0 that ignores x."""
    schedule = SCHEDULE.respaced([0, 40, 130, 300, 420, 600, 700, 900])
    at, polynomial = schedule.log_snr / 2, np.polynomial.Polynomial([0.3, -0.2, 0.05][: degree + 1])
    integral = scipy.integrate.quad(lambda x: np.exp(x) * polynomial(x), at[i], at[i - 1])[0]
    expected = schedule.sigmas[i - 1] * (0.7 / schedule.sigmas[i] + integral)
    x, x_0, *earlier = (jnp.full((2, 1), value) for value in (0.7, *polynomial(at[i : i + 3])))
    here = level(x, i, x, schedule=schedule)._replace(x_0=x_0, earlier=tuple(earlier))
    np.testing.assert_allclose(samplers.SAMPLERS[method].step(here), expected, rtol=1e-5)


@pytest.mark.parametrize("method", samplers.SAMPLERS)
def test_the_noise_agrees_with_a_clipped_clean_image(method):
    """With x_0 = 1 as the clipped prediction, steps go to the point and noise that agree with it."""
    x_T = jnp.array([[0.3], [2.0], [-1.5]])
    far = denoiser(lambda x, t_B: -5.0 * jnp.ones_like(x))  # Predicts clean images far above 1.
    found = sample(far, x_T, SCHEDULE, method=method, timesteps=[900, 0], key=KEY, clip_x0=True)
    np.testing.assert_allclose(found, 1, atol=1e-5)
    assert jnp.abs(sample(far, x_T, SCHEDULE, method=method, timesteps=[900, 0], key=KEY)).max() > 5
    if method == "ddim":
        x, bar, previous = np.asarray(x_T, np.float64), BAR[900], BAR[600]
        noise = (x - np.sqrt(bar)) / np.sqrt(1 - bar)
        respaced, x_0 = SCHEDULE.respaced([600, 900]), jnp.ones_like(x_T)
        here = level(x_T, 1, process.implied_noise(respaced, x_T, 1, x_0), schedule=respaced)
        moved = samplers.ddim(here._replace(x_0=x_0))
        np.testing.assert_allclose(moved, np.sqrt(previous) + np.sqrt(1 - previous) * noise, atol=1e-5)


@pytest.mark.parametrize("method", samplers.SAMPLERS)
def test_clipping_leaves_images_inside_the_range_alone(method):
    x_T = jnp.linspace(-1, 1, 5)[:, None]  # Data of N(0.4, 0.3^2) stay inside of [-1, 1] from here.
    timesteps = [500, 400, 300, 200, 120, 60, 20, 0]  # Few leaps of `heun` would leave it.
    plain, clipped = (
        sample(denoise, x_T, SCHEDULE, method=method, timesteps=timesteps, key=KEY, clip_x0=clip) for clip in (False, True)
    )
    np.testing.assert_allclose(clipped, plain, atol=1e-5)


@pytest.mark.parametrize("method", samplers.SAMPLERS)
@pytest.mark.parametrize("clip", [False, True])
def test_the_path_holds_what_was_seen_and_the_predicted_clean_image_of_each_step(clip, method):
    x_T, timesteps = jnp.linspace(-3, 3, 7)[:, None], [900, 500, 100, 3]
    draw = lambda **more: sample(denoise, x_T, SCHEDULE, method=method, timesteps=timesteps, clip_x0=clip, key=KEY, **more)
    found, (noised, path) = draw(path=True)
    np.testing.assert_array_equal(found, draw())
    np.testing.assert_array_equal(noised[0], x_T)
    for i, t in enumerate(timesteps):  # Clean images are those of what was seen.
        seen = np.asarray(noised[i], np.float64)
        clean = (seen - np.sqrt(1 - BAR[t]) * noise_of(seen, BAR[t])) / np.sqrt(BAR[t])
        np.testing.assert_allclose(path[i], np.clip(clean, -1, 1) if clip else clean, atol=1e-5)
    assert path.shape == (4, 7, 1)
    np.testing.assert_allclose(path[-1], found, atol=1e-6)
    assert jnp.abs(path[1:] - path[:-1]).max() > 1e-3


@pytest.mark.parametrize(
    "options, message",
    [
        ({"method": "rk4"}, "rk4.*ddpm, ddim, euler, heun, dpmpp_2m, dpmpp_3m, dpmpp_2m_sde"),
        ({"method": "ddpm"}, "ddpm.*key"),
        ({"method": "dpmpp_2m_sde"}, "dpmpp_2m_sde.*key"),
        ({"method": "dpmpp_2m", "steps": 0}, "found 0, allowed are 1..1000"),
        ({"method": "ddim", "steps": 0}, "found 0, allowed are 1..1000"),
        ({"method": "ddim", "steps": 1001}, "found 1001"),
        ({"method": "ddim", "timesteps": [0, 10, 20]}, "descend"),
        ({"method": "ddim", "timesteps": [20, 10, 10]}, "distinct"),
        ({"method": "ddim", "timesteps": [1000, 0]}, "0..999"),
        ({"method": "ddim", "timesteps": [5, -1]}, "0..999"),
        ({"method": "ddim", "timesteps": []}, "distinct"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        sample(denoise, jnp.zeros((2, 1)), SCHEDULE, **options)


def test_a_clean_image_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"denoise: found a clean image of shape \(2, 6\) for x \(2, 3\)"):
        sample(lambda x, t_B: jnp.concatenate([x, x], -1), jnp.zeros((2, 3)), SCHEDULE, method="ddim", steps=2)


def test_a_denoiser_may_return_the_clean_image_alone():
    x_T = jnp.linspace(-2, 2, 9)[:, None]
    for method in ("ddim", "heun"):
        found = sample(lambda x, t_B: denoise(x, t_B).x_0, x_T, SCHEDULE, method=method, steps=7)
        np.testing.assert_allclose(found, sample(denoise, x_T, SCHEDULE, method=method, steps=7), atol=1e-4)


@pytest.mark.parametrize("schedule", [linear(1000), rectified_flow(1000)], ids=["linear", "rectified_flow"])
@pytest.mark.parametrize("method", ["euler", "heun"])
def test_euler_and_heun_solve_the_flow_in_u_as_written_in_float64(schedule, method):
    """d(x / alpha) / du = noise, u = sigma / alpha, for Gaussian data, whose noise prediction is linear."""
    timesteps = [900, 600, 400, 150, 20]
    alpha, sigma = (np.append(table[timesteps], end) for table, end in ((schedule.alphas, 1.0), (schedule.sigmas, 0.0)))

    def noise(x, i):
        return sigma[i] * (x - alpha[i] * MEAN) / (alpha[i] ** 2 * DEVIATION**2 + sigma[i] ** 2)

    def network(x, t_B):
        a, s = (jnp.asarray(table, jnp.float32)[t_B][:, None] for table in (schedule.alphas, schedule.sigmas))
        return s * (x - a * MEAN) / (a**2 * DEVIATION**2 + s**2)

    x_T = np.linspace(-2, 2, 7)[:, None]
    y, u = x_T / alpha[0], sigma / alpha
    for i in range(len(timesteps)):
        h, slope = u[i + 1] - u[i], noise(y * alpha[i], i)
        if method == "heun" and u[i + 1] > 0:
            slope = (slope + noise((y + h * slope) * alpha[i + 1], i + 1)) / 2
        y = y + h * slope
    drawn = sample(denoiser(network, schedule), jnp.asarray(x_T, jnp.float32), schedule, method=method, timesteps=timesteps)
    np.testing.assert_allclose(drawn, y, atol=2e-5)
