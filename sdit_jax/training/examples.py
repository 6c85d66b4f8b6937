"""A noised batch: what a training step learns from."""

from typing import NamedTuple

import jax

from sdit_jax import images
from sdit_jax.diffusion.objective import Objective
from sdit_jax.diffusion.process import add_noise


class Examples(NamedTuple):
    """A noised batch: clean images in [-1, 1], timesteps, noise, noised images, labels."""

    x_0: jax.Array
    t_B: jax.Array
    noise: jax.Array
    x_t: jax.Array
    y_B: jax.Array


def noised(objective: Objective, batch, key) -> Examples:
    """Draws a timestep and noise for every uint8 image of a batch."""
    key_t, key_noise = jax.random.split(key)
    x_0 = images.from_uint8(batch["image"])
    t_B = objective.timesteps(key_t, x_0.shape[:1])
    noise = jax.random.normal(key_noise, x_0.shape)
    return Examples(x_0, t_B, noise, add_noise(objective.schedule, x_0, t_B, noise), batch["label"])
