"""Matrix products and broadcasts with gradients of their own: in mixed precision, and laid out for speed.

Left to itself, the gradient of a product over (B, L, C) contracts two axes at once, for which XLA's CPU compiler writes
transposed copies of its operands, and computes them anew; and that of a broadcast sums over the batch, for which it has a
kernel 25 times slower than memory. In bfloat16 it reaches the processor's matrix units only where the sums come out in float32
and the first operand lies in rows along what is summed over. Measured in docs/performance.md; other devices do not mind.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

WEIGHTED = "weighted"


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def product(x___C: jax.Array, kernel_CN: jax.Array, dtype: Any, out_dtype: Any) -> jax.Array:
    """x W over the last axis: operands rounded to `dtype`, sums in at least float32, the result in `out_dtype`.

    So are the gradients: that of x in the dtype of x, that of W in the dtype of W, from operands in `dtype`.
    """
    y = _dot(_rows(x___C).astype(dtype), kernel_CN.astype(dtype), (1, 0), out_dtype)
    return y.reshape(*x___C.shape[:-1], -1)


def _product_fwd(x___C, kernel_CN, dtype, out_dtype):
    x___C, like = x___C.astype(dtype), jnp.zeros((), x___C.dtype)
    return product(x___C, kernel_CN, dtype, out_dtype), (x___C, kernel_CN, like)


def _product_bwd(dtype, out_dtype, residuals, g___N):
    del out_dtype
    x___C, kernel_CN, like = residuals
    g___N = g___N.astype(dtype)
    d_x = _dot(_rows(g___N), kernel_CN.astype(dtype), (1, 1), like.dtype)
    return d_x.reshape(x___C.shape), _summed_products(x___C, g___N, kernel_CN.dtype)


product.defvjp(_product_fwd, _product_bwd)


def _on_cpu() -> bool:
    return jax.default_backend() == "cpu"


def _rows(x___C):
    return x___C.reshape(-1, x___C.shape[-1])


def _dot(a, b, axes, out_dtype):
    """Product of two matrices over these axes, with sums in at least float32."""
    sums = jnp.promote_types(out_dtype, jnp.float32) if _on_cpu() else out_dtype
    return jax.lax.dot_general(a, b, ((axes[:1], axes[1:]), ((), ())), preferred_element_type=sums).astype(out_dtype)


def _summed_products(x___C, g___N, out_dtype):
    """x^T g, summed over all axes but the last: (C, N)."""
    if not _on_cpu() or x___C.dtype != jnp.bfloat16:
        return _dot(_rows(x___C), _rows(g___N), (0, 0), out_dtype)
    # The barriers keep the compiler from taking the transposition of the narrower one back into the product.
    columns = lambda a: jax.lax.optimization_barrier(jnp.moveaxis(a, -1, 0)).reshape(a.shape[-1], -1)
    if x___C.shape[-1] <= g___N.shape[-1]:
        return _dot(columns(x___C), _rows(g___N), (1, 0), out_dtype)
    return jax.lax.optimization_barrier(_dot(columns(g___N), _rows(x___C), (1, 0), out_dtype)).T


class Linear(nn.Dense):
    """x W + b over the last axis: flax's Dense, but with `product`, and for several arrays at once.

    `dtype` None takes that of the input; `out_dtype`, that of the result, is by default `dtype`; float32 where neurons follow.
    """

    out_dtype: Any = None

    @nn.compact
    def __call__(self, *inputs: jax.Array) -> Any:
        """One array, or as many as were given. Results are named WEIGHTED, for rematerialisation to keep."""
        kernel = self.param("kernel", self.kernel_init, (inputs[0].shape[-1], self.features), self.param_dtype)
        dtype = jnp.dtype(self.dtype or inputs[0].dtype)
        outputs = [product(x, kernel, dtype, jnp.dtype(self.out_dtype or dtype)) for x in inputs]
        outputs = [checkpoint_name(y, WEIGHTED) for y in outputs]
        if self.use_bias:
            bias = self.param("bias", self.bias_init, (self.features,), self.param_dtype)
            outputs = [y + bias.astype(y.dtype) for y in outputs]
        return outputs[0] if len(inputs) == 1 else outputs


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def for_each(x___: jax.Array, batch: int) -> jax.Array:
    """x once for each image of a batch: (batch, *x.shape)."""
    return jnp.broadcast_to(x___, (batch, *x___.shape))


def _for_each_fwd(x___, batch):
    return for_each(x___, batch), None


def _for_each_bwd(batch, _, g_B___):
    return (jnp.tensordot(jnp.ones(batch, g_B___.dtype), g_B___, 1, precision="highest"),)


for_each.defvjp(_for_each_fwd, _for_each_bwd)
