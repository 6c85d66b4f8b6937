"""The training objective as named per-example terms (PAPER section 6)."""

import math

import jax
import jax.numpy as jnp

from sdit_jax.diffusion import process
from sdit_jax.diffusion.objective import Objective
from sdit_jax.diffusion.schedule import Schedule

GREY_LEVEL = 1 / 255  # Half the distance of two 8-bit levels on [-1, 1].


def diffusion_loss(
    objective: Objective, output: jax.Array, x_0: jax.Array, x_t: jax.Array, t_B: jax.Array, noise: jax.Array
) -> dict[str, jax.Array]:
    """Loss terms of shape (B,) for a network output on x_t.

    "mse": mean squared error of the noise that is predicted or implied, whatever the objective. Where the output holds v (twice
    the channels), also "vb": the variational bound in bits per dimension, with the mean detached so that it trains the variance
    alone, not rescaled. "loss", what is trained: the objective's weight times the squared error of what is predicted, and "vb".
    """
    predicted, v = process.split_prediction(output, x_t)
    error = _mean(jnp.square(objective.target(x_0, noise, t_B) - predicted))
    terms = {"mse": process.at(objective.noise_error**2, t_B, error) * error}
    loss = process.at(objective.weight, t_B, error) * error
    if v is not None:
        implied = jax.lax.stop_gradient(objective.noise(predicted, x_t, t_B))
        terms["vb"] = variational_bound(objective.schedule, implied, v, x_0, x_t, t_B)
        loss += terms["vb"]
    return terms | {"loss": loss}


def variational_bound(schedule: Schedule, noise, v, x_0, x_t, t_B) -> jax.Array:
    """One term of the variational bound, in bits per dimension, shape (B,).

    KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)) for t > 0; for t = 0 the negative log-likelihood of 8-bit images.
    Source: Nichol and Dhariwal 2021 (arXiv 2102.09672), equations 4 to 7.
    """
    true_mean = process.posterior_mean(schedule, x_0, x_t, t_B)
    true_log_variance = process.at(schedule.posterior_log_variance, t_B, x_t)
    mean = process.posterior_mean(schedule, process.predicted_x0(schedule, x_t, t_B, noise), x_t, t_B)
    log_variance = process.learned_log_variance(schedule, v, t_B)
    kl = gaussian_kl(true_mean, true_log_variance, mean, log_variance)
    nll = -discretized_log_likelihood(x_0, mean, log_variance / 2)
    return jnp.where(t_B == 0, _mean(nll), _mean(kl)) / math.log(2)


def gaussian_kl(mean_q, log_variance_q, mean_p, log_variance_p) -> jax.Array:
    """KL(q || p) of two diagonal Gaussians, elementwise, in nats."""
    ratio = log_variance_p - log_variance_q
    distance = jnp.square(mean_q - mean_p) * jnp.exp(-log_variance_p)
    return 0.5 * (ratio - 1 + jnp.exp(-ratio) + distance)


def discretized_log_likelihood(x, mean, log_scale) -> jax.Array:
    """log probability, in nats, of 8-bit levels x in [-1, 1] under a Gaussian integrated over each level.

    The outermost levels own the tails. The normal distribution function is Page's tanh approximation, as in the release.
    """
    centred, inverse = x - mean, jnp.exp(-log_scale)
    upper = _normal_cdf((centred + GREY_LEVEL) * inverse)
    lower = _normal_cdf((centred - GREY_LEVEL) * inverse)
    log = lambda p: jnp.log(jnp.maximum(p, 1e-12))  # noqa: E731
    return jnp.where(x < -0.999, log(upper), jnp.where(x > 0.999, log(1 - lower), log(upper - lower)))


def _normal_cdf(x):
    return 0.5 * (1 + jnp.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _mean(x):
    return x.reshape(x.shape[0], -1).mean(1)
