"""Attention against PyTorch's multi-head attention."""

import jax
import numpy as np
import pytest

from sdit_jax.layers.attention import Attention

torch = pytest.importorskip("torch")
B, L, C = 2, 7, 12
RNG = np.random.default_rng(0)
X, G = RNG.normal(size=(2, B, L, C)).astype(np.float32)
PARAMS = {name: {"kernel": RNG.normal(size=(C, C)).astype(np.float32)} for name in ("query", "key", "value", "output")}
PARAMS["output"]["bias"] = RNG.normal(size=C).astype(np.float32)


def by_pytorch(heads):
    """The result, and the gradients of <result, G> by x and by the kernel of the queries, in float64."""
    module = torch.nn.MultiheadAttention(C, heads, batch_first=True, dtype=torch.float64)
    kernels = {name: torch.tensor(leaf["kernel"], dtype=torch.float64).T for name, leaf in PARAMS.items()}
    with torch.no_grad():
        module.in_proj_weight.copy_(torch.cat([kernels[name] for name in ("query", "key", "value")]))
        module.in_proj_bias.zero_()
        module.out_proj.weight.copy_(kernels["output"])
        module.out_proj.bias.copy_(torch.tensor(PARAMS["output"]["bias"]))
    x = torch.tensor(X, dtype=torch.float64, requires_grad=True)
    y = module(x, x, x, need_weights=False)[0]
    (y * torch.tensor(G)).sum().backward()
    return y.detach().numpy(), x.grad.numpy(), module.in_proj_weight.grad.numpy()[:C].T


@pytest.mark.parametrize("heads", [1, 3])
def test_result_and_gradients_are_pytorchs(heads):

    @jax.jit
    def pulled(params, x, g):
        y, pull = jax.vjp(lambda params, x: Attention(heads).apply({"params": params}, x), params, x)
        return y, *pull(g)

    y, d_params, d_x = pulled(PARAMS, X, G)
    for found, expected in zip((y, d_x, d_params["query"]["kernel"]), by_pytorch(heads), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
