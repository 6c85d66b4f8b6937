"""Classifier-free guidance: a conditional network becomes the `denoise(x, t)` that samplers want."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Denoise = Callable[[jax.Array, jax.Array], jax.Array]


def guided(denoise: Callable[..., Any], y_B: jax.Array | None, *, null: int, scale: float = 1.0, channels: int) -> Denoise:
    """A denoise(x, t): noise = (1 - scale) noise(x, t, null) + scale noise(x, t, y), as one batch of twice the size.

    Scales 1 (no guidance) and 0 (no labels) need one prediction and cost nothing more. A learned variance is the conditional
    one's. `channels` is the number of channels of x, after which the variance starts.
    Source: Ho and Salimans 2022 (arXiv 2207.12598), with scale = 1 + their w.
    """
    if y_B is None or scale == 1:
        return lambda x, t: denoise(x, t, y_B)
    null_B = jnp.full_like(y_B, null)
    if scale == 0:
        return lambda x, t: denoise(x, t, null_B)

    def both(x, t):
        output = denoise(jnp.concatenate([x, x]), jnp.concatenate([t, t]), jnp.concatenate([y_B, null_B]))
        with_label, without = jnp.split(output, 2)
        noise = without[..., :channels] + scale * (with_label[..., :channels] - without[..., :channels])
        return jnp.concatenate([noise, with_label[..., channels:]], -1)

    return both
