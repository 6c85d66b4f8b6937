"""Predictions, timesteps and losses against their equations in float64 and scipy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from sdit_jax.config import default_config
from sdit_jax.diffusion import process
from sdit_jax.diffusion.objective import PREDICTIONS, Objective, make_objective
from sdit_jax.diffusion.samplers import sample
from sdit_jax.diffusion.schedule import SCHEDULES, cosine, linear, rectified_flow
from sdit_jax.errors import InputError

SCHEDULE = linear(1000)
T_B = jnp.array([0, 1, 300, 700, 990])
ALPHA, SIGMA = (np.sqrt(f(np.cumprod(1 - SCHEDULE.betas))).reshape(-1, 1, 1, 1) for f in (lambda a: a, lambda a: 1 - a))


def draw(seed=0):
    """(x_0, noise, x_t), float32."""
    rng = np.random.default_rng(seed)
    x_0, noise = (jnp.asarray(rng.normal(size=(5, 4, 4, 2)), jnp.float32) for _ in range(2))
    return x_0, noise, process.add_noise(SCHEDULE, x_0, T_B, noise)


def truth(prediction, x_0, noise):
    alpha, sigma = ALPHA[np.asarray(T_B)], SIGMA[np.asarray(T_B)]
    return {"noise": noise, "x0": x_0, "velocity": alpha * np.asarray(noise) - sigma * np.asarray(x_0)}[prediction]


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_target_follows_its_definition_and_is_denoised_to_image_and_noise(prediction):
    x_0, noise, x_t = draw()
    objective = Objective(SCHEDULE, prediction)
    target = objective.target(x_0, noise, T_B)
    np.testing.assert_allclose(target, truth(prediction, x_0, noise), rtol=1e-5, atol=1e-6)
    found = objective.denoised(target, x_t, T_B)
    np.testing.assert_allclose(found.noise, noise, atol=2e-4)  # x_0 over sigma, 1 / 100 at t = 0.
    np.testing.assert_allclose(found.x_0, x_0, atol=1e-3)  # Noise over alpha, 100 at t = 990.
    assert found.v is None


def test_an_x0_prediction_is_the_denoised_image_to_the_bit_at_any_noise():
    """Converted to noise and back, it is off by up to a grey level, 2/255, at the last level of cosine(1000)."""
    schedule, t_B = cosine(1000), jnp.full(5, 999)
    x_0, noise, _ = draw()
    x_t = process.add_noise(schedule, jnp.tanh(x_0), t_B, noise)
    np.testing.assert_array_equal(Objective(schedule, "x0").denoised(jnp.tanh(x_0), x_t, t_B).x_0, jnp.tanh(x_0))
    implied = process.implied_noise(schedule, x_t, t_B, jnp.tanh(x_0))
    round_trip = Objective(schedule).denoised(implied, x_t, t_B).x_0
    assert jnp.abs(round_trip - jnp.tanh(x_0)).max() > 1e-3
    np.testing.assert_array_equal(Objective(schedule).denoised(noise, x_t, t_B).noise, noise)


@pytest.mark.parametrize("schedule", [cosine(1000), rectified_flow(1000)], ids=["cosine", "rectified_flow"])
def test_velocity_is_that_of_the_process(schedule):
    """noise - x_0 along a straight line, alpha noise - sigma x_0 along a circle; and it is denoised to both."""
    x_0, noise, _ = draw()
    t_B = jnp.array([10, 200, 500, 700, 900])
    alpha, sigma = (table[np.asarray(t_B)].reshape(-1, 1, 1, 1) for table in (schedule.alphas, schedule.sigmas))
    straight = np.allclose(alpha + sigma, 1)
    expected = noise - x_0 if straight else alpha * np.asarray(noise) - sigma * np.asarray(x_0)
    objective = Objective(schedule, "velocity")
    np.testing.assert_allclose(objective.target(x_0, noise, t_B), expected, atol=1e-5)
    found = objective.denoised(objective.target(x_0, noise, t_B), process.add_noise(schedule, x_0, t_B, noise), t_B)
    np.testing.assert_allclose(found.x_0, x_0, atol=1e-4)
    np.testing.assert_allclose(found.noise, noise, atol=1e-3)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_mse_is_of_the_implied_noise_and_the_loss_is_weighted_by_min_snr(prediction):
    x_0, noise, x_t = draw()
    wrong = jnp.asarray(truth(prediction, x_0, noise), jnp.float32) + 0.1 * draw(1)[0]
    own = np.square(0.1 * np.asarray(draw(1)[0], np.float64)).mean((1, 2, 3))
    terms = Objective(SCHEDULE, prediction).losses(wrong, x_0, x_t, T_B, noise)
    implied = Objective(SCHEDULE, prediction).denoised(wrong, x_t, T_B).noise
    np.testing.assert_allclose(terms["loss"], own, rtol=1e-4)
    np.testing.assert_allclose(terms["mse"], np.square(np.asarray(implied - noise, np.float64)).mean((1, 2, 3)), rtol=3e-3)

    snr = (ALPHA / SIGMA)[np.asarray(T_B)].ravel() ** 2  # The weights of the paper, section 3.4, for gamma = 5.
    weight = {"noise": np.minimum(snr, 5) / snr, "x0": np.minimum(snr, 5), "velocity": np.minimum(snr, 5) / (snr + 1)}
    weighted = Objective(SCHEDULE, prediction, min_snr=5.0).losses(wrong, x_0, x_t, T_B, noise)
    np.testing.assert_allclose(weighted["loss"], weight[prediction] * own, rtol=1e-4)
    np.testing.assert_allclose(weighted["mse"], terms["mse"], rtol=1e-6)


@pytest.mark.parametrize("loss_space", PREDICTIONS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_loss_is_the_squared_error_in_its_space(prediction, loss_space):
    x_0, noise, x_t = draw()
    alpha, sigma = ALPHA[np.asarray(T_B)], SIGMA[np.asarray(T_B)]
    wrong_noise = np.asarray(noise, np.float64) + 0.1 * np.asarray(draw(1)[0])
    wrong_x0 = (alpha * np.asarray(x_0) + sigma * np.asarray(noise) - sigma * wrong_noise) / alpha
    predicted = jnp.asarray(truth(prediction, wrong_x0, wrong_noise), jnp.float32)
    found = Objective(SCHEDULE, prediction, loss_space=loss_space).losses(predicted, x_0, x_t, T_B, noise)["loss"]
    error = truth(loss_space, wrong_x0, wrong_noise) - truth(loss_space, np.asarray(x_0), np.asarray(noise))
    np.testing.assert_allclose(found, np.square(error).mean((1, 2, 3)), rtol=1e-3)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_learned_variance_is_returned_and_its_bound_uses_the_implied_noise(prediction):
    x_0, noise, x_t = draw()
    v = jnp.tanh(draw(2)[0])
    output = jnp.concatenate([Objective(SCHEDULE, prediction).target(x_0, noise, T_B) + 0.1, v], -1)
    denoised = Objective(SCHEDULE, prediction).denoised(output, x_t, T_B)
    assert (denoised.v == v).all()
    found = Objective(SCHEDULE, prediction).losses(output, x_0, x_t, T_B, noise)
    expected = Objective(SCHEDULE).losses(jnp.concatenate([denoised.noise, v], -1), x_0, x_t, T_B, noise)
    np.testing.assert_allclose(found["vb"], expected["vb"], rtol=1e-3)
    np.testing.assert_allclose(found["loss"] - found["vb"], 0.01, rtol=2e-3)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_sampling_with_the_exact_prediction_of_a_single_image_gives_that_image(prediction, name):
    schedule, picture = SCHEDULES[name](1000), jnp.tanh(draw()[0][:1])
    objective = Objective(schedule, prediction)

    def denoise(x, t_B):
        noise = process.implied_noise(schedule, x, t_B, picture)
        return objective.denoised(objective.target(jnp.broadcast_to(picture, x.shape), noise, t_B), x, t_B)

    x_T = jax.random.normal(jax.random.key(0), (3, *picture.shape[1:]))
    drawn = sample(denoise, x_T, schedule, method="ddim", steps=10, clip_x0=True)
    np.testing.assert_allclose(drawn, jnp.broadcast_to(picture, drawn.shape), atol=1e-3)


def test_timesteps_have_the_distribution_of_their_name():
    N, key = 20_000, jax.random.key(0)
    uniform = np.asarray(Objective(SCHEDULE).timesteps(key, (N,)))
    assert (uniform == jax.random.randint(key, (N,), 0, 1000)).all()  # The draws of the release's recipe.
    logit_normal = np.asarray(Objective(SCHEDULE, distribution="logit_normal").timesteps(key, (N,)))
    assert logit_normal.min() >= 0 and logit_normal.max() <= 999 and logit_normal.dtype == np.int32
    s = (logit_normal + 0.5) / 1000
    assert stats.kstest(np.log(s / (1 - s)), "norm").statistic < 0.015


def test_losses_are_chosen_by_name():
    x_0, noise, x_t = draw()
    error = np.asarray(draw(1)[0], np.float64)
    predicted = noise + 0.1 * jnp.asarray(error, jnp.float32)
    c = 0.00054 * np.sqrt(32)
    expected = np.sqrt((0.01 * error**2).sum((1, 2, 3)) + c**2) - c
    huber, mse = (Objective(SCHEDULE, loss=name).losses(predicted, x_0, x_t, T_B, noise) for name in ("pseudo_huber", "mse"))
    np.testing.assert_allclose(huber["loss"], expected, rtol=1e-4)
    np.testing.assert_allclose(mse["loss"], 0.01 * np.square(error).mean((1, 2, 3)), rtol=1e-4)
    np.testing.assert_array_equal(huber["mse"], mse["mse"])


@pytest.mark.parametrize(
    "change, message",
    [
        ({"schedule": "sine"}, "config.diffusion.schedule: found 'sine', allowed are linear, cosine, rectified_flow"),
        ({"prediction": "score"}, "config.diffusion.prediction: found 'score', allowed are noise, x0, velocity"),
        ({"loss": "l1"}, "config.diffusion.loss: found 'l1', allowed are mse, pseudo_huber"),
        ({"loss_space": "score"}, "config.diffusion.loss_space: found 'score', allowed are prediction, noise, x0, velocity"),
        ({"loss_space": "x0", "min_snr": 5.0}, "config.diffusion.min_snr: found 5 with loss_space='x0'"),
    ],
)
def test_an_objective_with_a_wrong_name_is_refused(change, message):
    fields = default_config({}).diffusion
    fields.update(change)
    with pytest.raises(InputError, match=message):
        make_objective(fields)
