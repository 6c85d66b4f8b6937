"""What WKV hands from one token to the next, and how the loops over tokens reach into their arrays."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

EMPTY = -1e38


class WKVState(NamedTuple):
    """All that the next token needs of the past, at least float32: the average of the values, the log of its total weight."""

    mean_BC: jax.Array
    log_mass_BC: jax.Array


def initial_state(batch: int, channels: int, dtype=jnp.float32) -> WKVState:
    """The state before the first token: no mass."""
    return WKVState(jnp.zeros((batch, channels), dtype), jnp.full((batch, channels), EMPTY, dtype))


# Tokens stay on axis 1: transposing to the front and back, as a scan wants it, costs as much as the recurrence.
def at(x_BLC: jax.Array, t) -> jax.Array:
    """Token t, (B, C)."""
    return jax.lax.dynamic_index_in_dim(x_BLC, t, 1, keepdims=False)


def put(x_BLC: jax.Array, x_BC: jax.Array, t) -> jax.Array:
    """x_BLC with token t replaced, in the dtype of x_BLC."""
    return jax.lax.dynamic_update_index_in_dim(x_BLC, x_BC.astype(x_BLC.dtype), t, 1)
