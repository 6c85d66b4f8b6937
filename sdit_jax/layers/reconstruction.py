"""The Reconstruction Module: learned tokens pass through a block and gate its output (PAPER section 4)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sdit_jax.layers.linear import XAVIER, Linear, broadcast_batch


class Reconstruction(nn.Module):
    """`append` puts learned tokens R0 after a sequence; after the block, `gate` splits them off as R and returns x (1 + G).

        G = ((R W1^T + b1)^T) W2^T + b2        W1: L x C over channels, W2: C x L over tokens

    R0 starts at ones. With gate_init="random" (the release) both matrices are Xavier uniform, and G starts with a standard
    deviation near 0.9; with "identity" W2 and G start at zero. Products are in `dtype`, the gate is in the dtype of x.
    """

    tokens: int
    width: int
    gate_init: str = "random"
    dtype: Any = jnp.float32

    def setup(self):
        init = XAVIER if self.gate_init == "random" else nn.initializers.zeros
        self.initial = self.param("tokens", nn.initializers.ones, (self.tokens, self.width))
        self.over_channels = Linear(self.tokens, dtype=self.dtype, kernel_init=XAVIER)
        self.over_tokens = Linear(self.width, dtype=self.dtype, out_dtype=self.initial.dtype, kernel_init=init)

    def append(self, x_BLC: jax.Array) -> jax.Array:
        return jnp.concatenate([x_BLC, broadcast_batch(self.initial, len(x_BLC))], 1)

    def gate(self, z_BLC: jax.Array) -> jax.Array:
        x, R = jnp.split(z_BLC, 2, 1)
        return x * (1 + self.over_tokens(self.over_channels(R).swapaxes(1, 2)))
