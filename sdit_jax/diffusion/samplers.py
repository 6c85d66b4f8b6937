"""Samplers: each one step of the reverse process; `sample` scans it over a whole trajectory.

A step takes x_t at place i of the schedule to the place before: what the network takes for clean image and noise there, v where
it predicts one, the random key, and `before`, the clean image of the step just done.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sdit_jax.diffusion import process
from sdit_jax.diffusion.guidance import Denoise
from sdit_jax.diffusion.schedule import Schedule


def ddpm(schedule: Schedule, x, i, x_0, noise, v, key, before):
    """Ancestral sampling: x_{t-1} ~ N(mean(x_0 as predicted, x_t), variance), without noise at the last step.

    The variance is the learned one where the network predicts it, else the posterior variance. Source: Ho et al. 2020.
    """
    del noise, before
    mean = process.posterior_mean(schedule, x_0, x, i)
    if v is None:
        log_variance = process.at(schedule.posterior_log_variance, i, x)
    else:
        log_variance = process.learned_log_variance(schedule, v, i)
    fresh = normal(fold_in(key, i), x)
    return mean + jnp.where(i > 0, jnp.exp(log_variance / 2), 0) * fresh


def ddim(schedule: Schedule, x, i, x_0, noise, v, key, before):
    """The deterministic sampler, x_{t-1} = sqrt(abar_{t-1}) x_0 + sqrt(1 - abar_{t-1}) noise.

    Source: Song et al. 2021 (arXiv 2010.02502), eta = 0.
    """
    del v, key, before
    bar = schedule.alphas_bar_prev
    return process.at(np.sqrt(bar), i, x) * x_0 + process.at(np.sqrt(1 - bar), i, x) * noise


def dpmpp_2m(schedule: Schedule, x, i, x_0, noise, v, key, before):
    """DPM-Solver++(2M): of second order, deterministic. A step of `ddim` with the clean image of `midpoint` and its noise.

    sigma_s / sigma_t x_t + alpha_s (1 - exp(-h)) midpoint, alpha = sqrt(abar), sigma = sqrt(1 - abar), h the gain of
    log(alpha / sigma), is that step. Source: Lu et al. 2022 (arXiv 2211.01095), algorithm 2.
    """
    del noise
    x_0 = midpoint(schedule, x_0, before, i)
    return ddim(schedule, x, i, x_0, process.implied_noise(schedule, x, i, x_0), v, key, before)


def dpmpp_2m_sde(schedule: Schedule, x, i, x_0, noise, v, key, before):
    """SDE-DPM-Solver++(2M): the same for the reverse SDE. A step of `ddpm` with the clean image of `midpoint`.

    exp(-h) sigma_s / sigma_t x_t + alpha_s (1 - exp(-2h)) midpoint + sigma_s sqrt(1 - exp(-2h)) fresh noise is that step with
    the posterior variance; a learned one is not used. Source: Lu et al. 2022 (arXiv 2211.01095).
    """
    del v
    return ddpm(schedule, x, i, midpoint(schedule, x_0, before, i), noise, None, key, before)


def midpoint(schedule: Schedule, x_0, before, i):
    """The clean image halfway through step i in log-SNR, on the line through the last two, before and x_0.

    x_0 + h_i / (2 h_{i+1}) (x_0 - before), with h_i the length of step i. It is x_0 itself, a step of first order, at the first
    step, which has none before, and at the last, from the lowest noise level visited to the clean image, where h is infinite:
    that one errs by the order of that level's variance, 1 - abar.
    """
    h, weight = np.diff(schedule.log_snr), np.zeros(len(schedule))
    weight[1:-1] = h[:-1] / (2 * h[1:])
    return x_0 + process.at(weight, i, x_0) * (x_0 - before)


def normal(key: jax.Array, x: jax.Array) -> jax.Array:
    """Standard normal noise like x (B, ...): from one key for all, or from keys of shape (B,), each image from its own."""
    if key.ndim == 0:
        return jax.random.normal(key, x.shape, x.dtype)
    return jax.vmap(lambda one: jax.random.normal(one, x.shape[1:], x.dtype))(key)


def fold_in(key: jax.Array, number) -> jax.Array:
    """jax.random.fold_in, for one key or an array of keys."""
    return jax.random.fold_in(key, number) if key.ndim == 0 else jax.vmap(lambda one: jax.random.fold_in(one, number))(key)


SAMPLERS: dict[str, Callable] = {"ddpm": ddpm, "ddim": ddim, "dpmpp_2m": dpmpp_2m, "dpmpp_2m_sde": dpmpp_2m_sde}
STOCHASTIC = ("ddpm", "dpmpp_2m_sde")
SECOND_ORDER = ("dpmpp_2m", "dpmpp_2m_sde")


def visited(schedule: Schedule, method: str, steps: int) -> np.ndarray:
    """The timesteps that `sample` visits, descending: evenly spaced, for samplers of second order in log-SNR.

    Those extrapolate over a step from the one before, which must not be much shorter in log-SNR. Few even steps end in a leap,
    and "dpmpp_2m" then misses by more than "ddim".
    """
    return schedule.spaced(steps, in_log_snr=method in SECOND_ORDER)[::-1]


def sample(
    denoise: Denoise,
    x_T: jax.Array,
    schedule: Schedule,
    *,
    method: str,
    steps: int | None = None,
    timesteps: Sequence[int] | None = None,
    key: jax.Array | None = None,
    clip_x0: bool = False,
    path: bool = False,
) -> Any:
    """Runs the reverse process from x_T to x_0 as one `jax.lax.scan`.

    Args:
      denoise: (x, t_B) -> predicted noise, or (noise, v) stacked on the last axis where the variance is learned.
      x_T: standard normal noise of any shape (B, ...), channels last.
      schedule: the schedule that `denoise` was trained with.
      method: one of SAMPLERS.
      steps: how many steps, chosen by `visited`; None for all.
      timesteps: the steps themselves, descending; override `steps`.
      key: random key, needed by STOCHASTIC ones; or one per image, (B,), so that an image does not depend on those beside it.
      clip_x0: whether predicted clean images are clipped to [-1, 1], and the noise made to agree. The release does not; the
        cosine schedule needs it, since its first steps multiply every error of the noise by 1 / sqrt(abar) in the thousands.
      path: whether to return also what each step took for the clean image.

    Returns:
      x_0, of the shape of x_T; with `path` (x_0, path): the predicted clean images, (steps, B, ...), in the order of the steps.

    Raises:
      ValueError: an unknown method, a stochastic method without key, or steps that are not in the schedule or not descending.
    """
    if method not in SAMPLERS:
        raise ValueError(f"sampler: found {method!r}, allowed are {', '.join(SAMPLERS)}")
    if method in STOCHASTIC and key is None:
        raise ValueError(f"sampler {method!r} is stochastic: pass key=jax.random.key(seed)")
    chosen = visited(schedule, method, len(schedule) if steps is None else steps) if timesteps is None else timesteps
    if list(chosen) != sorted(chosen, reverse=True):
        raise ValueError(f"timesteps: found {list(chosen)}, must descend")
    respaced = schedule.respaced(chosen)
    told = jnp.asarray(respaced.timesteps, jnp.int32)
    move = SAMPLERS[method]

    def step(carry, i):
        x, before = carry
        noise, v = process.split_prediction(denoise(x, jnp.full(x.shape[:1], told[i])), x)
        x_0 = process.predicted_x0(respaced, x, i, noise)
        if clip_x0:
            x_0 = jnp.clip(x_0, -1, 1)
            noise = process.implied_noise(respaced, x, i, x_0)
        moved = move(respaced, x, i, x_0, noise, v, key, before)
        return (moved.astype(x.dtype), x_0.astype(x.dtype)), x_0 if path else None

    (x_0, _), predicted = jax.lax.scan(step, (x_T, jnp.zeros_like(x_T)), jnp.arange(len(respaced))[::-1])
    return (x_0, predicted) if path else x_0
