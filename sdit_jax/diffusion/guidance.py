"""Classifier-free guidance."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Predict = Callable[[jax.Array, jax.Array], jax.Array]


def passes(scale: float) -> int:
    """Network evaluations for one guided prediction: 1 for scales 1 (no guidance) and 0 (no labels), else 2."""
    return 1 if scale in (0, 1) else 2


def guided(
    predict: Callable[..., jax.Array], y_B: jax.Array | None, *, null: int, scale: float = 1.0, channels: int
) -> Predict:
    """predict(x, t): (1 - scale) predict(x, t, null) + scale predict(x, t, y), as one batch of twice the size.

    This combines the network's outputs. Clean images are linear in them, so combining those instead gives the same. A learned
    variance, in the channels from `channels` on, is that of predict(x, t, y).
    Source: Ho and Salimans 2022 (arXiv 2207.12598), with scale = 1 + their w.
    """
    if y_B is None or scale == 1:
        return lambda x, t: predict(x, t, y_B)
    null_B = jnp.full_like(y_B, null)
    if scale == 0:
        return lambda x, t: predict(x, t, null_B)

    def both(x, t):
        output = predict(jnp.concatenate([x, x]), jnp.concatenate([t, t]), jnp.concatenate([y_B, null_B]))
        with_label, without = jnp.split(output, 2)
        combined = without[..., :channels] + scale * (with_label[..., :channels] - without[..., :channels])
        return jnp.concatenate([combined, with_label[..., channels:]], -1)

    return both
