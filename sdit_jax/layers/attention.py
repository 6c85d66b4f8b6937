"""Softmax attention between tokens (Vaswani et al. 2017, arXiv 1706.03762, section 3.2), each token with all others."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sdit_jax.layers.linear import XAVIER, Linear
from sdit_jax.sharding import constrained

INNER, OUTER = ("batch", "tokens", "inner"), ("batch", "tokens", "channels")


class Attention(nn.Module):
    """W_o [A_1 V_1 ; ... ; A_H V_H] + b with A_h = softmax(Q_h K_h^T / sqrt(C / H)), for H heads of C / H channels.

    Q, K and V are linear in x without a bias. Products are in `dtype`; logits and the softmax are float32, the result is in x's
    dtype. Q K^T and A V are L^2 C multiply-accumulates each, next to 4 L C^2 of the matrices.
    """

    heads: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x_BLC: jax.Array) -> jax.Array:
        B, L, C = x_BLC.shape

        def project(name):
            z_BLC = Linear(C, use_bias=False, dtype=self.dtype, kernel_init=XAVIER, name=name)(x_BLC)
            return constrained(z_BLC, *INNER).reshape(B, L, self.heads, C // self.heads)

        # XLA's form on every platform: cuDNN's takes 16-bit numbers only and hides its products from `analysis.operations`.
        z = jax.nn.dot_product_attention(project("query"), project("key"), project("value"), implementation="xla")
        output = Linear(C, dtype=self.dtype, out_dtype=x_BLC.dtype, kernel_init=XAVIER, name="output")
        return constrained(output(constrained(z.reshape(B, L, C), *INNER)), *OUTER)
