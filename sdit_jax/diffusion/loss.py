"""Losses per example: those chosen by name, and the variational bound that trains a learned variance."""

import math

import jax
import jax.numpy as jnp

from sdit_jax.diffusion import process
from sdit_jax.diffusion.schedule import Schedule

GREY_LEVEL = 1 / 255  # Half the distance between two 8-bit levels on [-1, 1].
HUBER = 0.00054  # c / sqrt(dimensions), Song and Dhariwal 2023, section 3.3.


def mse(difference: jax.Array) -> jax.Array:
    """Mean squared error of each example."""
    return _mean(jnp.square(difference))


def pseudo_huber(difference: jax.Array) -> jax.Array:
    """sqrt(|d|^2 + c^2) - c of each example, c = 0.00054 sqrt(dimensions): less weight on outliers.

    Source: Song and Dhariwal 2023 (arXiv 2310.14189), equation 8.
    """
    dimensions = difference[0].size
    c = HUBER * math.sqrt(dimensions)
    return jnp.sqrt(dimensions * _mean(jnp.square(difference)) + c**2) - c


LOSSES = {"mse": mse, "pseudo_huber": pseudo_huber}


def variational_bound(schedule: Schedule, x0_predicted, v, x_0, x_t, t_B) -> jax.Array:
    """One term of the variational bound, in bits per dimension, shape (B,).

    KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)) for t > 0; for t = 0 the negative log-likelihood of 8-bit images.
    Source: Nichol and Dhariwal 2021 (arXiv 2102.09672), equations 4 to 7.
    """
    true_mean = process.posterior_mean(schedule, x_0, x_t, t_B)
    true_log_variance = process.at(schedule.posterior_log_variance, t_B, x_t)
    mean = process.posterior_mean(schedule, x0_predicted, x_t, t_B)
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

    The lowest and highest level include the tails. The normal CDF is Page's tanh approximation, as in the release.
    """
    centred, inverse = x - mean, jnp.exp(-log_scale)
    upper = _normal_cdf((centred + GREY_LEVEL) * inverse)
    lower = _normal_cdf((centred - GREY_LEVEL) * inverse)
    log = lambda p: jnp.log(jnp.maximum(p, 1e-12))
    return jnp.where(x < -0.999, log(upper), jnp.where(x > 0.999, log(1 - lower), log(upper - lower)))


def _normal_cdf(x):
    return 0.5 * (1 + jnp.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _mean(x):
    return x.reshape(x.shape[0], -1).mean(1)
