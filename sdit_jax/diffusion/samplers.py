"""Samplers: each one step of the reverse process; `sample` scans it over a whole trajectory."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sdit_jax.diffusion import process
from sdit_jax.diffusion.guidance import Denoise
from sdit_jax.diffusion.schedule import Schedule


def ddpm(schedule: Schedule, x, i, x_0, noise, v, key):
    """Ancestral sampling: x_{t-1} ~ N(mean(x_0 as predicted, x_t), variance), without noise at the last step.

    The variance is the learned one where the network predicts it, else the posterior variance. Source: Ho et al. 2020.
    """
    del noise
    mean = process.posterior_mean(schedule, x_0, x, i)
    if v is None:
        log_variance = process.at(schedule.posterior_log_variance, i, x)
    else:
        log_variance = process.learned_log_variance(schedule, v, i)
    fresh = normal(fold_in(key, i), x)
    return mean + jnp.where(i > 0, jnp.exp(log_variance / 2), 0) * fresh


def ddim(schedule: Schedule, x, i, x_0, noise, v, key):
    """The deterministic sampler, x_{t-1} = sqrt(abar_{t-1}) x_0 + sqrt(1 - abar_{t-1}) noise.

    Source: Song et al. 2021 (arXiv 2010.02502), eta = 0.
    """
    del v, key
    bar = schedule.alphas_bar_prev
    return process.at(np.sqrt(bar), i, x) * x_0 + process.at(np.sqrt(1 - bar), i, x) * noise


def normal(key: jax.Array, x: jax.Array) -> jax.Array:
    """Standard normal noise like x (B, ...): from one key for all, or from keys of shape (B,), each image from its own."""
    if key.ndim == 0:
        return jax.random.normal(key, x.shape, x.dtype)
    return jax.vmap(lambda one: jax.random.normal(one, x.shape[1:], x.dtype))(key)


def fold_in(key: jax.Array, number) -> jax.Array:
    """jax.random.fold_in, for one key or an array of keys."""
    return jax.random.fold_in(key, number) if key.ndim == 0 else jax.vmap(lambda one: jax.random.fold_in(one, number))(key)


SAMPLERS: dict[str, Callable] = {"ddpm": ddpm, "ddim": ddim}
STOCHASTIC = ("ddpm",)


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
      method: "ddpm" or "ddim".
      steps: how many steps, evenly spaced with both ends; None for all.
      timesteps: the steps themselves, descending; override `steps`.
      key: random key, needed by "ddpm"; or one key per image, (B,), so that an image does not depend on those beside it.
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
    chosen = schedule.spaced(len(schedule) if steps is None else steps)[::-1] if timesteps is None else timesteps
    if list(chosen) != sorted(chosen, reverse=True):
        raise ValueError(f"timesteps: found {list(chosen)}, must descend")
    respaced = schedule.respaced(chosen)
    told = jnp.asarray(respaced.timesteps, jnp.int32)
    move = SAMPLERS[method]

    def step(x, i):
        noise, v = process.split_prediction(denoise(x, jnp.full(x.shape[:1], told[i])), x)
        x_0 = process.predicted_x0(respaced, x, i, noise)
        if clip_x0:
            x_0 = jnp.clip(x_0, -1, 1)
            noise = process.implied_noise(respaced, x, i, x_0)
        return move(respaced, x, i, x_0, noise, v, key).astype(x.dtype), x_0 if path else None

    x_0, predicted = jax.lax.scan(step, x_T, jnp.arange(len(respaced))[::-1])
    return (x_0, predicted) if path else x_0
