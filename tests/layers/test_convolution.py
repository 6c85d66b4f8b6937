"""Convolutions and their gradients against PyTorch's in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdit_jax.layers.convolution import convolution

torch = pytest.importorskip("torch")


def in_pytorch(x_BHWC, kernel_HWCN, cotangent_BHWN, stride):
    """(result, gradient of x, gradient of the kernel); zeros are split as for "SAME", more of them behind."""
    x, kernel, cotangent = (torch.tensor(np.float64(a)).requires_grad_() for a in (x_BHWC, kernel_HWCN, cotangent_BHWN))
    padding = []
    for size, taps in zip(x_BHWC.shape[2:0:-1], kernel_HWCN.shape[1::-1], strict=True):  # The last axis first.
        total = max((-(-size // stride) - 1) * stride + taps - size, 0)
        padding += [total // 2, total - total // 2]
    padded = torch.nn.functional.pad(x.permute(0, 3, 1, 2), padding)
    y = torch.nn.functional.conv2d(padded, kernel.permute(3, 2, 0, 1), stride=stride).permute(0, 2, 3, 1)
    y.backward(cotangent)
    return [array.detach().numpy() for array in (y, x.grad, kernel.grad)]


@pytest.mark.parametrize(
    "H, W, taps, stride",
    [(6, 6, (3, 3), 1), (6, 6, (3, 3), 2), (7, 5, (3, 3), 2), (5, 4, (1, 1), 1), (9, 8, (5, 2), 3), (7, 7, (1, 1), 2)],
)
def test_a_convolution_has_the_values_and_gradients_of_pytorchs(H, W, taps, stride):
    rng = np.random.default_rng(0)
    x, kernel = (rng.normal(size=shape).astype(np.float32) for shape in ((3, H, W, 4), (*taps, 4, 5)))
    y, pull = jax.vjp(lambda x, kernel: convolution(x, kernel, stride, jnp.float32), x, kernel)
    cotangent = rng.normal(size=y.shape).astype(np.float32)
    for found, expected in zip((y, *pull(cotangent)), in_pytorch(x, kernel, cotangent, stride), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_operands_are_rounded_and_results_are_not():
    """Binary inputs are exact in bfloat16; weights and the gradient of the result are rounded to its 8 bits."""
    rng = np.random.default_rng(1)
    x, kernel = rng.integers(0, 2, (2, 4, 4, 3)).astype(np.float32), rng.normal(size=(3, 3, 3, 2)).astype(np.float32)
    rounded = lambda a: np.asarray(jnp.asarray(a).astype(jnp.bfloat16), np.float32)
    y, pull = jax.vjp(lambda x, kernel: convolution(x, kernel, 1, jnp.bfloat16), x, kernel)
    cotangent = rng.normal(size=y.shape).astype(np.float32)
    assert y.dtype == np.float32
    for found, expected in zip((y, *pull(cotangent)), in_pytorch(x, rounded(kernel), rounded(cotangent), 1), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
        assert found.dtype == np.float32
    assert np.abs(y - in_pytorch(x, kernel, cotangent, 1)[0]).max() > 1e-4
