"""What is predicted, at which timesteps, and what its errors count, against the equations in float64 and scipy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from sdit_jax.diffusion import process
from sdit_jax.diffusion.loss import diffusion_loss
from sdit_jax.diffusion.objective import PREDICTIONS, Objective
from sdit_jax.diffusion.samplers import sample
from sdit_jax.diffusion.schedule import cosine, linear

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
def test_the_target_is_its_definition_and_implies_the_noise(prediction):
    x_0, noise, x_t = draw()
    objective = Objective(SCHEDULE, prediction)
    target = objective.target(x_0, noise, T_B)
    np.testing.assert_allclose(target, truth(prediction, x_0, noise), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(objective.noise(target, x_t, T_B), noise, atol=2e-4)  # x_0 over sigma, 1 / 100 at t = 0.


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_errors_are_those_of_the_implied_noise_and_count_what_the_objective_says(prediction):
    x_0, noise, x_t = draw()
    wrong = jnp.asarray(truth(prediction, x_0, noise), jnp.float32) + 0.1 * draw(1)[0]
    own = np.square(0.1 * np.asarray(draw(1)[0], np.float64)).mean((1, 2, 3))
    terms = diffusion_loss(Objective(SCHEDULE, prediction), wrong, x_0, x_t, T_B, noise)
    implied = Objective(SCHEDULE, prediction).noise(wrong, x_t, T_B)
    np.testing.assert_allclose(terms["loss"], own, rtol=1e-4)
    np.testing.assert_allclose(terms["mse"], np.square(np.asarray(implied - noise, np.float64)).mean((1, 2, 3)), rtol=3e-3)

    snr = (ALPHA / SIGMA)[np.asarray(T_B)].ravel() ** 2  # The weights of the paper, section 3.4, for gamma = 5.
    count = {"noise": np.minimum(snr, 5) / snr, "x0": np.minimum(snr, 5), "velocity": np.minimum(snr, 5) / (snr + 1)}
    weighted = diffusion_loss(Objective(SCHEDULE, prediction, min_snr=5.0), wrong, x_0, x_t, T_B, noise)
    np.testing.assert_allclose(weighted["loss"], count[prediction] * own, rtol=1e-4)
    np.testing.assert_allclose(weighted["mse"], terms["mse"], rtol=1e-6)


@pytest.mark.parametrize("error_of", PREDICTIONS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_squared_error_is_of_what_the_objective_says(prediction, error_of):
    x_0, noise, x_t = draw()
    alpha, sigma = ALPHA[np.asarray(T_B)], SIGMA[np.asarray(T_B)]
    wrong_noise = np.asarray(noise, np.float64) + 0.1 * np.asarray(draw(1)[0])
    wrong_x0 = (alpha * np.asarray(x_0) + sigma * np.asarray(noise) - sigma * wrong_noise) / alpha
    predicted = jnp.asarray(truth(prediction, wrong_x0, wrong_noise), jnp.float32)
    found = diffusion_loss(Objective(SCHEDULE, prediction, error_of=error_of), predicted, x_0, x_t, T_B, noise)["loss"]
    error = truth(error_of, wrong_x0, wrong_noise) - truth(error_of, np.asarray(x_0), np.asarray(noise))
    np.testing.assert_allclose(found, np.square(error).mean((1, 2, 3)), rtol=1e-3)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_learned_variance_is_passed_on_and_its_bound_takes_the_implied_noise(prediction):
    x_0, noise, x_t = draw()
    v = jnp.tanh(draw(2)[0])
    output = jnp.concatenate([Objective(SCHEDULE, prediction).target(x_0, noise, T_B) + 0.1, v], -1)
    denoised = Objective(SCHEDULE, prediction).denoised(output, x_t, T_B)
    assert (denoised[..., 2:] == v).all()
    found = diffusion_loss(Objective(SCHEDULE, prediction), output, x_0, x_t, T_B, noise)
    expected = diffusion_loss(Objective(SCHEDULE), denoised, x_0, x_t, T_B, noise)
    np.testing.assert_allclose(found["vb"], expected["vb"], rtol=1e-3)
    np.testing.assert_allclose(found["loss"] - found["vb"], 0.01, rtol=2e-3)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_whatever_is_predicted_right_is_sampled_right(prediction):
    """One picture is all there is: its exact prediction leads there from any noise, on the schedule that ends in pure noise."""
    schedule, picture = cosine(1000), jnp.tanh(draw()[0][:1])
    objective = Objective(schedule, prediction)

    def denoise(x, t_B):
        noise = process.implied_noise(schedule, x, t_B, picture)
        return objective.denoised(objective.target(jnp.broadcast_to(picture, x.shape), noise, t_B), x, t_B)

    x_T = jax.random.normal(jax.random.key(0), (3, *picture.shape[1:]))
    drawn = sample(denoise, x_T, schedule, method="ddim", steps=10, clip_x0=True)
    np.testing.assert_allclose(drawn, jnp.broadcast_to(picture, drawn.shape), atol=1e-3)


def test_timesteps_are_drawn_as_their_names_say():
    N, key = 20_000, jax.random.key(0)
    uniform = np.asarray(Objective(SCHEDULE).timesteps(key, (N,)))
    assert (uniform == jax.random.randint(key, (N,), 0, 1000)).all()  # The draws of the release's recipe.
    logit_normal = np.asarray(Objective(SCHEDULE, distribution="logit_normal").timesteps(key, (N,)))
    assert logit_normal.min() >= 0 and logit_normal.max() <= 999 and logit_normal.dtype == np.int32
    way = (logit_normal + 0.5) / 1000
    assert stats.kstest(np.log(way / (1 - way)), "norm").statistic < 0.015
