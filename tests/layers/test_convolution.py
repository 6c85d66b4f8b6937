"""Convolutions and norms, with their gradients, against PyTorch's in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdit_jax.layers.convolution import GroupNorm, convolution

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


@pytest.mark.parametrize("groups", [1, 3, 6])
def test_a_group_norm_has_the_values_and_gradients_of_pytorchs(groups):
    rng = np.random.default_rng(2)
    x, cotangent = rng.normal(0.7, 2, (2, 5, 4, 6)).astype(np.float32), rng.normal(size=(2, 5, 4, 6)).astype(np.float32)
    params = {"scale": rng.normal(1, 0.5, 6).astype(np.float32), "bias": rng.normal(0, 0.5, 6).astype(np.float32)}
    norm = GroupNorm(groups, scale=0.3)
    y, pull = jax.vjp(lambda x, params: norm.apply({"params": params}, x), x, params)
    theirs = [torch.tensor(np.float64(a)).requires_grad_() for a in (x, params["scale"], params["bias"])]
    expected = 0.3 * torch.nn.functional.group_norm(theirs[0].permute(0, 3, 1, 2), groups, *theirs[1:], 1e-6).permute(
        0, 2, 3, 1
    )
    expected.backward(torch.tensor(np.float64(cotangent)))
    d_x, d_params = pull(cotangent)
    np.testing.assert_allclose(y, expected.detach(), atol=1e-5)
    for found, array in zip((d_x, d_params["scale"], d_params["bias"]), theirs, strict=True):
        np.testing.assert_allclose(found, array.grad, rtol=1e-4, atol=1e-4)
    constant = norm.apply({"params": params}, np.full_like(x, 3.7))  # No variance: nothing but rounding over 1e-3.
    np.testing.assert_allclose(constant, np.broadcast_to(0.3 * params["bias"], x.shape), atol=1e-2)
