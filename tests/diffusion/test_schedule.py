"""The tables of a schedule against their definitions in float64."""

import numpy as np
import pytest

from sdit_jax.diffusion.schedule import SCHEDULES, cosine, linear, rectified_flow

# Of linear(1000) at T_GOLDEN, as numpy computes them from the release's formulas.
T_GOLDEN = [0, 1, 500, 999]
GOLDEN = {
    "betas": ["0x1.a36e2eb1c432dp-14", "0x1.f6fb0896a69acp-14", "0x1.49a50f8377ee4p-7", "0x1.47ae147ae147bp-6"],
    "alphas_bar": ["0x1.fff2e48e8a71ep-1", "0x1.ffe32d1d48680p-1", "0x1.3ea7b576a75f6p-4", "0x1.528cc8c61621dp-15"],
    "posterior_variance": ["0x0.0p+0", "0x1.c9725035d1c17p-15", "0x1.495cb739cbc7dp-7", "0x1.47ae02cab209bp-6"],
    "posterior_mean_x0": ["0x1.00000000001f0p+0", "0x1.1730728a5df35p-1", "0x1.90d35e421d686p-9", "0x1.0d2c2e12d2c27p-13"],
    "posterior_mean_xt": ["0x0.0p+0", "0x1.d19f1ad182a37p-2", "0x1.fcfb3ed69f766p-1", "0x1.fada8d9bc13c4p-1"],
}


@pytest.mark.parametrize("name", GOLDEN)
def test_the_float64_tables_of_the_release_hold_to_the_bit(name):
    np.testing.assert_array_equal(getattr(linear(1000), name)[T_GOLDEN], [float.fromhex(value) for value in GOLDEN[name]])


def test_linear_betas_are_those_of_the_release():
    np.testing.assert_allclose(linear(1000).betas, 1e-4 + (0.02 - 1e-4) * np.arange(1000) / 999, rtol=1e-13)
    np.testing.assert_array_equal(linear(1000).timesteps, np.arange(1000))


@pytest.mark.parametrize("T", [100, 250, 4000])
def test_linear_betas_scale_so_that_the_noise_at_the_end_is_the_same(T):
    betas = linear(T).betas
    assert (betas[0], betas[-1]) == pytest.approx((0.1 / T, 20 / T))
    assert np.log(linear(T).alphas_bar[-1]) == pytest.approx(np.log(linear(1000).alphas_bar[-1]), rel=0.1)


def test_a_short_linear_schedule_has_betas_below_one():
    assert (linear(10).betas < 1).all() and linear(10).betas.max() == 0.999


def test_cosine_follows_its_curve():
    f = lambda t: np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2
    t = np.arange(1, 999) / 1000
    np.testing.assert_allclose(cosine(1000).alphas_bar[:-2], f(t) / f(0), rtol=1e-9)
    assert cosine(1000).betas[-1] == 0.999


@pytest.mark.parametrize("schedule", [linear(1000), cosine(50), linear(1000).respaced([3, 40, 999])], ids=len)
def test_tables_equal_their_definitions(schedule):
    """Bayes' rule for x_{t-1} between x_0 and x_t, in precisions."""
    beta = schedule.betas
    assert beta.dtype == np.float64
    bar = np.array([np.prod(1 - beta[: t + 1]) for t in range(len(schedule))])
    previous = np.concatenate([[1.0], bar[:-1]])
    np.testing.assert_allclose(schedule.alphas_bar, bar, rtol=1e-12)
    variance = 1 / ((1 - beta[1:]) / beta[1:] + 1 / (1 - previous[1:]))
    np.testing.assert_allclose(schedule.posterior_variance[1:], variance, rtol=1e-9)
    np.testing.assert_allclose(schedule.posterior_mean_xt[1:], variance * np.sqrt(1 - beta[1:]) / beta[1:], rtol=1e-9)
    x0_coefficient = variance * np.sqrt(previous[1:]) / (1 - previous[1:])
    np.testing.assert_allclose(schedule.posterior_mean_x0[1:], x0_coefficient, rtol=1e-9)
    assert (schedule.posterior_variance[0], schedule.posterior_mean_xt[0]) == (0, 0)
    assert schedule.posterior_mean_x0[0] == pytest.approx(1, rel=1e-12)
    np.testing.assert_allclose(np.exp(schedule.posterior_log_variance), [variance[0], *variance], rtol=1e-9)


def test_250_of_1000_steps_are_those_of_the_release():
    spaced = linear(1000).spaced(250)
    assert len(spaced) == len(set(spaced)) == 250
    assert list(spaced[:4]) == [0, 4, 8, 12] and list(spaced[-2:]) == [995, 999]
    np.testing.assert_array_equal(spaced, [round(999 / 249 * i) for i in range(250)])


@pytest.mark.parametrize("steps, expected", [(1, [999]), (2, [0, 999]), (4, [0, 333, 666, 999]), (1000, range(1000))])
def test_spaced_steps_have_both_ends(steps, expected):
    np.testing.assert_array_equal(linear(1000).spaced(steps), expected)


@pytest.mark.parametrize("schedule, noisiest", [(linear(1000), 999), (cosine(1000), 995)], ids=["linear", "cosine"])
def test_steps_even_in_log_snr(schedule, noisiest):
    spaced = schedule.spaced(12, in_log_snr=True)
    assert (spaced[0], spaced[-1]) == (0, noisiest)
    bar = schedule.alphas_bar
    log_snr = np.log(bar) - np.log1p(-bar)
    wanted = np.linspace(log_snr[0], max(log_snr[-1], -10.2), 12)
    np.testing.assert_array_equal(spaced, [np.abs(log_snr - one).argmin() for one in wanted])


@pytest.mark.parametrize("steps", [1, 2, 50, 250, 999, 1000])
@pytest.mark.parametrize("schedule", [linear(1000), cosine(1000)], ids=["linear", "cosine"])
def test_steps_even_in_log_snr_are_distinct_and_as_many_as_requested(schedule, steps):
    spaced = schedule.spaced(steps, in_log_snr=True)
    assert len(set(spaced)) == steps and (np.diff(spaced) > 0).all() and 0 <= spaced[0] <= spaced[-1] <= 999


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_impossible_numbers_of_steps_are_refused(steps):
    with pytest.raises(ValueError, match=f"found {steps}, allowed are 1..1000"):
        linear(1000).spaced(steps)


@pytest.mark.parametrize("order", [1, -1])
def test_respacing_keeps_abar_and_the_times_of_the_whole_schedule(order):
    schedule, kept = linear(1000), np.array([0, 4, 17, 500, 999])
    respaced = schedule.respaced(kept[::order])
    np.testing.assert_allclose(respaced.alphas_bar, schedule.alphas_bar[kept], rtol=1e-12)
    np.testing.assert_array_equal(respaced.timesteps, kept)
    again = respaced.respaced([1, 3])
    np.testing.assert_allclose(again.alphas_bar, schedule.alphas_bar[[4, 500]], rtol=1e-12)
    np.testing.assert_array_equal(again.timesteps, [4, 500])


def test_respacing_to_all_steps_changes_nothing():
    schedule = linear(1000)
    np.testing.assert_allclose(schedule.respaced(range(1000)).betas, schedule.betas, rtol=1e-10)


@pytest.mark.parametrize("timesteps", [[], [3, 3], [-1, 5], [5, 1000]])
def test_steps_that_are_not_in_the_schedule_are_refused(timesteps):
    with pytest.raises(ValueError, match="0..999"):
        linear(1000).respaced(timesteps)


@pytest.mark.parametrize("name", SCHEDULES)
def test_alpha_and_sigma_at_any_time(name):
    """Exact at integers; between two levels the process stays on its circle or its line; x_0 fades and noise grows."""
    schedule, t = SCHEDULES[name](1000), np.array([0, 1, 500, 998, 999])
    for value, table in ((schedule.alpha, schedule.alphas), (schedule.sigma, schedule.sigmas)):
        np.testing.assert_array_equal(value(t), table[t].astype(np.float32))
        np.testing.assert_allclose(value(t.astype(np.float32)), table[t], rtol=1e-6)
        assert (np.sign(np.diff(table)) == np.sign(table[-1] - table[0])).all()
    lower, bar = t[:-1], schedule.alphas_bar
    alpha, sigma = (np.asarray(value(lower + 0.25), np.float64) for value in (schedule.alpha, schedule.sigma))
    if name == "rectified_flow":
        np.testing.assert_allclose(sigma, (lower + 0.75) / 1000, rtol=1e-6)
        np.testing.assert_allclose(alpha, 1 - (lower + 0.75) / 1000, rtol=1e-5)
    else:
        between = bar[lower] ** 0.75 * bar[lower + 1] ** 0.25
        np.testing.assert_allclose(alpha, np.sqrt(between), rtol=2e-6)
        np.testing.assert_allclose(sigma, np.sqrt(1 - between), rtol=2e-6)


def test_the_cosine_schedule_at_real_times_follows_its_curve():
    t = np.linspace(100, 900, 57)
    f = lambda s: np.cos((s + 0.008) / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(cosine(1000).alpha(t) ** 2, f((t + 1) / 1000) / f(0), rtol=1e-4)


def test_rectified_flow_is_a_straight_line_with_a_constant_velocity():
    schedule = rectified_flow(500)
    np.testing.assert_allclose(schedule.alphas + schedule.sigmas, 1, rtol=1e-15)
    np.testing.assert_allclose(np.diff(schedule.sigmas), 1 / 500, rtol=1e-10)
    np.testing.assert_array_equal(schedule.velocities, [-np.ones(500), np.ones(500)])


@pytest.mark.parametrize(
    "schedule", [linear(1000), cosine(50), rectified_flow(200), rectified_flow(200).respaced([3, 40, 199])]
)
def test_the_posterior_is_that_of_two_gaussians(schedule):
    """x_t = r x_{t-1} + N(0, beta), x_{t-1} = alpha x_0 + N(0, sigma^2): Bayes' rule, in any process."""
    ratio, s2 = schedule.alphas[1:] / schedule.alphas[:-1], schedule.sigmas[:-1] ** 2
    beta = schedule.sigmas[1:] ** 2 - ratio**2 * s2
    np.testing.assert_allclose(schedule.betas[1:], beta, rtol=1e-7)
    variance = 1 / (ratio**2 / beta + 1 / s2)
    np.testing.assert_allclose(schedule.posterior_variance[1:], variance, rtol=1e-6)
    np.testing.assert_allclose(schedule.posterior_mean_xt[1:], variance * ratio / beta, rtol=1e-6)
    np.testing.assert_allclose(schedule.posterior_mean_x0[1:], variance * schedule.alphas[:-1] / s2, rtol=1e-6)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_velocity_is_the_derivative_along_the_process(name):
    """Both derivatives in one parameter: their ratio is the slope of the curve (sigma, alpha)."""
    schedule = SCHEDULES[name](1000)
    d_alpha, d_sigma = schedule.velocities
    slope = np.gradient(schedule.alphas, schedule.sigmas)
    np.testing.assert_allclose((d_alpha / d_sigma)[50:-200], slope[50:-200], rtol=2e-3)
