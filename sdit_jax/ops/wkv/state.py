"""The state that WKV carries from token to token, and indexing along the token axis."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

EMPTY = -1e38


class WKVState(NamedTuple):
    """The weighted average of past values and the logarithm of its total weight, at least float32."""

    mean_BC: jax.Array
    log_mass_BC: jax.Array


def initial_state(batch: int, channels: int, dtype=jnp.float32) -> WKVState:
    """The state before the first token: no mass."""
    return WKVState(jnp.zeros((batch, channels), dtype), jnp.full((batch, channels), EMPTY, dtype))


# Tokens stay on axis 1: moving them to the front for a scan, and back, would cost as much as the recurrence.
def at(x_BLC: jax.Array, t) -> jax.Array:
    """Token t, (B, C)."""
    return jax.lax.dynamic_index_in_dim(x_BLC, t, 1, keepdims=False)


def put(x_BLC: jax.Array, x_BC: jax.Array, t) -> jax.Array:
    """x_BLC with token t replaced, in the dtype of x_BLC."""
    return jax.lax.dynamic_update_index_in_dim(x_BLC, x_BC.astype(x_BLC.dtype), t, 1)
