"""Classifier-free guidance."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Predict = Callable[[jax.Array, jax.Array], jax.Array]


def passes(scale: float) -> int:
    """Network evaluations for one guided prediction: 1 for scales 1 (no guidance) and 0 (no labels), else 2."""
    return 1 if scale in (0, 1) else 2


def guided(
    predict: Callable[..., jax.Array], y_B: jax.Array | None, *, null: int, scale: float = 1.0, channels: int,
    interval: tuple[int, ...] = (),
) -> Predict:  # fmt: skip
    """predict(x, t): (1 - scale) predict(x, t, null) + scale predict(x, t, y), as one batch of twice the size.

    This combines the network's outputs. Clean images are linear in them, so combining those instead gives the same. A learned
    variance, in the channels from `channels` on, is that of predict(x, t, y). With an `interval`, a lowest and a highest
    timestep, it is predict(x, t, y) outside of it, where all images must have the same t.
    Sources: Ho and Salimans 2022 (arXiv 2207.12598), with scale = 1 + their w; Kynkaanniemi et al. 2024 (arXiv 2404.07724).
    """
    with_label = lambda x, t: predict(x, t, y_B)
    if y_B is None or scale == 1:
        return with_label
    if scale == 0:
        inside = lambda x, t: predict(x, t, jnp.full_like(y_B, null))
    else:
        inside = lambda x, t: extrapolated(predict, x, t, y_B, null=null, scale=scale, channels=channels)
    if not interval:
        return inside
    return lambda x, t: jax.lax.cond((interval[0] <= t[0]) & (t[0] <= interval[1]), inside, with_label, x, t)


def extrapolated(predict, x: jax.Array, t: jax.Array, y_B: jax.Array, *, null: int, scale, channels: int) -> jax.Array:
    """The combination of `guided` at x, at any scale; two predictions for each image."""
    output = predict(jnp.concatenate([x, x]), jnp.concatenate([t, t]), jnp.concatenate([y_B, jnp.full_like(y_B, null)]))
    with_label, without = jnp.split(output, 2)
    combined = without[..., :channels] + scale * (with_label[..., :channels] - without[..., :channels])
    return jnp.concatenate([combined, with_label[..., channels:]], -1)
