"""The tables of a schedule against their definitions in float64."""

import numpy as np
import pytest

from sdit_jax.diffusion.schedule import cosine, linear


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


@pytest.mark.parametrize("schedule", [linear(1000), cosine(50), linear(1000).respaced([3, 40, 999])], ids=str)
def test_tables_equal_their_definitions(schedule):
    """Bayes' rule for x_{t-1} between x_0 and x_t, in precisions."""
    beta = schedule.betas
    assert beta.dtype == np.float64
    bar = np.array([np.prod(1 - beta[: t + 1]) for t in range(len(schedule))])
    previous = np.concatenate([[1.0], bar[:-1]])
    np.testing.assert_allclose(schedule.alphas_bar, bar, rtol=1e-12)
    np.testing.assert_array_equal(schedule.alphas_bar_prev, np.concatenate([[1.0], schedule.alphas_bar[:-1]]))
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
def test_steps_even_in_log_snr_are_as_many_as_asked_for(schedule, steps):
    spaced = schedule.spaced(steps, in_log_snr=True)
    assert len(set(spaced)) == steps and (np.diff(spaced) > 0).all() and 0 <= spaced[0] <= spaced[-1] <= 999


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_impossible_numbers_of_steps_are_refused(steps):
    with pytest.raises(ValueError, match=f"found {steps}, allowed are 1..1000"):
        linear(1000).spaced(steps)


@pytest.mark.parametrize("order", [1, -1])
def test_respacing_keeps_abar_and_tells_the_original_steps(order):
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
