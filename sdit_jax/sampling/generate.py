"""Images from trained weights: network, guidance and sampler as one compiled program."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from sdit_jax import images
from sdit_jax.diffusion.guidance import guided
from sdit_jax.diffusion.samplers import sample
from sdit_jax.diffusion.schedule import Schedule
from sdit_jax.models import SDiT


def make_sampler(model: SDiT, schedule: Schedule, *, method: str, steps: int, guidance: float, clip_x0: bool) -> Callable:
    """Compiled (params, labels_B or None, key) -> uint8 images (B, H, W, C): a whole trajectory from noise."""

    def trajectory(params, y_B, key, batch: int):
        key_noise, key_steps = jax.random.split(key)
        x_T = jax.random.normal(key_noise, (batch, model.image_size, model.image_size, model.channels))
        denoise = guided(
            lambda x, t, y: model.apply({"params": params}, x, t, y),
            y_B if model.num_classes else None,
            null=model.num_classes, scale=guidance, channels=model.channels,
        )  # fmt: skip
        return images.to_uint8(sample(denoise, x_T, schedule, method=method, steps=steps, key=key_steps, clip_x0=clip_x0))

    return jax.jit(trajectory, static_argnames="batch")


def generate(sampler: Callable, params, labels_N: np.ndarray, *, seed: int, batch_size: int, progress=iter) -> np.ndarray:
    """One image per label, in batches; a function of (seed, labels, batch_size). `progress` wraps the list of batches."""
    batch_size = min(batch_size, len(labels_N))
    starts = range(0, len(labels_N), batch_size)
    made = []
    for start in progress(starts):
        y_B = np.resize(labels_N[start : start + batch_size], batch_size)  # The last batch is filled up by repetition.
        key = jax.random.fold_in(jax.random.key(seed), start // batch_size)
        made.append(np.asarray(sampler(params, jnp.asarray(y_B, jnp.int32), key, batch=batch_size)))
    return np.concatenate(made)[: len(labels_N)]


def example_labels(n: int, num_classes: int) -> np.ndarray:
    """Labels 0, 1, 2, ... over and over, one per image."""
    return np.arange(n) % max(1, num_classes)
