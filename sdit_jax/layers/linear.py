"""Matrix products and broadcasts with custom gradients, for mixed precision and for speed on CPUs.

JAX's own gradient of a product over (B, L, C) contracts two axes at once; XLA's CPU compiler then writes transposed copies of
the operands. Its own gradient of a broadcast is a sum over the batch that runs 25 times slower than memory. And a product of
bfloat16 uses the CPU's matrix units only if its sums are float32 and its first operand is contiguous along the contracted axis.
The gradients here avoid all three (docs/performance.md); accelerators compile them as well as JAX's own.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from sdit_jax.ops.backend import backend

WEIGHTED = "weighted"
XAVIER = nn.initializers.xavier_uniform()
UNIFORM = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # +-1/sqrt(fan_in), PyTorch's.


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def product(x___C: jax.Array, kernel_CN: jax.Array, dtype: Any, out_dtype: Any) -> jax.Array:
    """x W over the last axis: operands rounded to `dtype`, sums in at least float32, the result in `out_dtype`.

    Gradients are products of operands in `dtype` too; they have the dtypes of x and W.
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
    return backend() == "cpu"


def _rows(x___C):
    return x___C.reshape(-1, x___C.shape[-1])


def _dot(a, b, axes, out_dtype):
    """The product of two matrices over these axes, summed in at least float32 on a CPU."""
    sums = jnp.promote_types(out_dtype, jnp.float32) if _on_cpu() else out_dtype
    return jax.lax.dot_general(a, b, ((axes[:1], axes[1:]), ((), ())), preferred_element_type=sums).astype(out_dtype)


def _summed_products(x___C, g___N, out_dtype):
    """x^T g, summed over all axes but the last: (C, N)."""
    if not _on_cpu() or x___C.dtype != jnp.bfloat16:
        return _dot(_rows(x___C), _rows(g___N), (0, 0), out_dtype)
    # The barriers keep the compiler from fusing the transposition of the narrower operand back into the product.
    columns = lambda a: jax.lax.optimization_barrier(jnp.moveaxis(a, -1, 0)).reshape(a.shape[-1], -1)
    if x___C.shape[-1] <= g___N.shape[-1]:
        return _dot(columns(x___C), _rows(g___N), (1, 0), out_dtype)
    return jax.lax.optimization_barrier(_dot(columns(g___N), _rows(x___C), (1, 0), out_dtype)).T


class Linear(nn.Dense):
    """x W + b over the last axis: flax's Dense with `product`, for one array or several.

    `dtype` is by default that of the input, and `out_dtype` that of the products. Neurons that follow need a float32 result.
    """

    out_dtype: Any = None

    @nn.compact
    def __call__(self, *inputs: jax.Array) -> Any:
        """The result for each input. Results are named WEIGHTED, so that rematerialisation can keep them."""
        kernel = self.param("kernel", self.kernel_init, (inputs[0].shape[-1], self.features), self.param_dtype)
        dtype = jnp.dtype(self.dtype or inputs[0].dtype)
        outputs = [product(x, kernel, dtype, jnp.dtype(self.out_dtype or dtype)) for x in inputs]
        outputs = [checkpoint_name(y, WEIGHTED) for y in outputs]
        if self.use_bias:
            bias = self.param("bias", self.bias_init, (self.features,), self.param_dtype)
            outputs = [y + bias.astype(y.dtype) for y in outputs]
        return outputs[0] if len(inputs) == 1 else outputs


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def broadcast_batch(x___: jax.Array, batch: int) -> jax.Array:
    """x repeated for each image of a batch: (batch, *x.shape)."""
    return jnp.broadcast_to(x___, (batch, *x___.shape))


def _broadcast_batch_fwd(x___, batch):
    return broadcast_batch(x___, batch), None


def _broadcast_batch_bwd(batch, _, g_B___):
    return (jnp.tensordot(jnp.ones(batch, g_B___.dtype), g_B___, 1, precision="highest"),)


broadcast_batch.defvjp(_broadcast_batch_fwd, _broadcast_batch_bwd)
