"""Convolutions of images with a custom gradient, and their normalisation, for speed on CPUs.

Inside of a loop, such as the scan over spiking steps, XLA's CPU compiler runs JAX's own gradient of a convolution some 40 times
slower than the convolution itself: it only has a fast program for arrays in the order of `DIMENSIONS`. The gradients here are
convolutions in that order. Accelerators compile them as well as JAX's own.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from sdit_jax.layers.linear import UNIFORM, WEIGHTED

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolution(x_BHWC: jax.Array, kernel_HWCN: jax.Array, stride: int, dtype: Any) -> jax.Array:
    """x * kernel with zeros around x ("SAME"): ceil(H / stride) rows. Operands are rounded to `dtype`; the result is float32.

    Gradients are convolutions of operands in `dtype` too; they have the dtypes of x and of the kernel.
    """
    pads = [_pads(*sizes, stride) for sizes in zip(x_BHWC.shape[1:3], kernel_HWCN.shape[:2], strict=True)]
    return _convolved(x_BHWC.astype(dtype), kernel_HWCN.astype(dtype), pads, window_strides=(stride, stride))


def _pads(size, taps, stride):
    """Zeros before and after; out[o] = sum_i kernel[i] x[stride o + i - before]."""
    total = max((-(-size // stride) - 1) * stride + taps - size, 0)
    return total // 2, total - total // 2


def _convolved(x, kernel, pads, window_strides=(1, 1), **dilation):
    return jax.lax.conv_general_dilated(
        x, kernel, window_strides, pads, dimension_numbers=DIMENSIONS, preferred_element_type=jnp.float32, **dilation
    )


def _forward(x_BHWC, kernel_HWCN, stride, dtype):
    x_BHWC, like = x_BHWC.astype(dtype), jnp.zeros((), x_BHWC.dtype)
    return convolution(x_BHWC, kernel_HWCN, stride, dtype), (x_BHWC, kernel_HWCN, like)


def _backward(stride, dtype, residuals, g_BHWN):
    x_BHWC, kernel_HWCN, like = residuals
    g_BHWN, d_x_pads, d_kernel_pads = g_BHWN.astype(dtype), [], []
    for size, taps, outputs in zip(x_BHWC.shape[1:3], kernel_HWCN.shape[:2], g_BHWN.shape[1:3], strict=True):
        before, after = _pads(size, taps, stride)
        spread = stride * (outputs - 1) + 1  # Rows of g with stride - 1 zeros between them.
        d_x_pads.append((taps - 1 - before, size - spread + before))
        d_kernel_pads.append((before, taps - 1 + spread - size - before))
    flipped_HWNC = kernel_HWCN[::-1, ::-1].swapaxes(2, 3).astype(dtype)
    d_x = _convolved(g_BHWN, flipped_HWNC, d_x_pads, lhs_dilation=(stride, stride))
    x_CHWB, g_HWBN = x_BHWC.transpose(3, 1, 2, 0), g_BHWN.transpose(1, 2, 0, 3)
    d_kernel_CHWN = _convolved(x_CHWB, g_HWBN, d_kernel_pads, rhs_dilation=(stride, stride))
    return d_x.astype(like.dtype), d_kernel_CHWN.transpose(1, 2, 0, 3).astype(kernel_HWCN.dtype)


convolution.defvjp(_forward, _backward)


class Convolution(nn.Module):
    """A convolution of `size` x `size` taps, of operands rounded to `dtype`. The result is named WEIGHTED."""

    features: int
    size: int = 3
    stride: int = 1
    dtype: Any = "float32"
    use_bias: bool = False
    kernel_init: Any = UNIFORM

    @nn.compact
    def __call__(self, x_BHWC: jax.Array) -> jax.Array:
        kernel: Any = self.param("kernel", self.kernel_init, (self.size, self.size, x_BHWC.shape[-1], self.features))
        y_BHWN = checkpoint_name(convolution(x_BHWC, kernel, self.stride, jnp.dtype(self.dtype)), WEIGHTED)
        return y_BHWN + self.param("bias", nn.initializers.zeros, (self.features,)) if self.use_bias else y_BHWN


class GroupNorm(nn.Module):
    """scale * (gain * (x - mean) / sqrt(variance + 1e-6) + bias), over the pixels of an image and the channels of a group.

    `gain` and `bias`, of each channel, are learned from 1 and 0. Pixels are summed by channel first: on a CPU this is several
    times faster than flax's GroupNorm. Source: Wu and He 2018, arXiv 1803.08494.
    """

    groups: int
    scale: float = 1.0

    @nn.compact
    def __call__(self, x_BHWC: jax.Array) -> jax.Array:
        B, H, W, C = x_BHWC.shape
        gain: Any = self.param("scale", nn.initializers.ones, (C,))
        bias: Any = self.param("bias", nn.initializers.zeros, (C,))
        group_mean = lambda sum_BC: sum_BC.reshape(B, self.groups, -1).mean(-1) / (H * W)
        by_channel = lambda mean_BG: jnp.repeat(mean_BG, C // self.groups, -1)
        mean_BG, square_BG = group_mean(x_BHWC.sum((1, 2))), group_mean(jnp.square(x_BHWC).sum((1, 2)))
        variance_BG = jnp.maximum(square_BG - jnp.square(mean_BG), 0)
        gain_BC = by_channel(jax.lax.rsqrt(variance_BG + 1e-6)) * gain
        bias_BC = bias - by_channel(mean_BG) * gain_BC
        return x_BHWC * (self.scale * gain_BC)[:, None, None] + (self.scale * bias_BC)[:, None, None]
