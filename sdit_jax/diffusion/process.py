"""The forward process and its posterior, for images x (B, ...) at levels t_B of a schedule."""

import jax
import jax.numpy as jnp
import numpy as np

from sdit_jax.diffusion.schedule import Schedule


def at(table: np.ndarray, index: jax.Array, like: jax.Array) -> jax.Array:
    """A float64 table at index_B (or a scalar index), float32, shaped to broadcast over `like` (B, ...)."""
    return _broadcast(jnp.asarray(table, jnp.float32)[index], like)


def _broadcast(value, like):
    return value.reshape(value.shape + (1,) * (like.ndim - value.ndim))


def add_noise(schedule: Schedule, x_0: jax.Array, t_B: jax.Array, noise: jax.Array) -> jax.Array:
    """x_t = alpha_t x_0 + sigma_t noise, for integer or real t."""
    return _broadcast(schedule.alpha(t_B), x_0) * x_0 + _broadcast(schedule.sigma(t_B), x_0) * noise


def implied_noise(schedule: Schedule, x_t: jax.Array, index, x_0: jax.Array) -> jax.Array:
    """The noise in x_t for a clean image: (x_t - alpha_t x_0) / sigma_t."""
    alphas, sigmas = schedule.alphas, schedule.sigmas
    return at(1 / sigmas, index, x_t) * x_t - at(alphas / sigmas, index, x_t) * x_0


def noised_back(schedule: Schedule, x: jax.Array, index, noise: jax.Array) -> jax.Array:
    """x_t given x_{t-1}: r x_{t-1} + sqrt(sigma_t^2 - r^2 sigma_{t-1}^2) noise, r = alpha_t / alpha_{t-1}."""
    ratio = schedule.alphas / schedule.alphas_prev
    spread = np.sqrt(np.maximum(schedule.sigmas**2 - ratio**2 * schedule.sigmas_prev**2, 0))
    return at(ratio, index, x) * x + at(spread, index, x) * noise


def posterior_mean(schedule: Schedule, x_0: jax.Array, x_t: jax.Array, index) -> jax.Array:
    """Mean of x_{t-1} given x_t and x_0."""
    return at(schedule.posterior_mean_x0, index, x_t) * x_0 + at(schedule.posterior_mean_xt, index, x_t) * x_t


def learned_log_variance(schedule: Schedule, v: jax.Array, index) -> jax.Array:
    """log variance = f log beta + (1 - f) log posterior variance, f = (v + 1) / 2 (PAPER section 6)."""
    f = (v + 1) / 2
    return f * at(np.log(schedule.betas), index, v) + (1 - f) * at(schedule.posterior_log_variance, index, v)


def split_prediction(output: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array | None]:
    """(prediction, v) of a network output: v is None unless the output has twice the channels of x.

    Raises ValueError for any other number of channels.
    """
    C = x.shape[-1]
    if output.shape == x.shape:
        return output, None
    if output.shape != (*x.shape[:-1], 2 * C):
        raise ValueError(f"prediction: found shape {output.shape} for x {x.shape}, need {C} or {2 * C} channels last")
    return output[..., :C], output[..., C:]
