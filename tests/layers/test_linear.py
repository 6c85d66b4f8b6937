"""Products and broadcasts against float64, flax's Dense and their own definition in bfloat16."""

import re
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from sdit_jax.layers.linear import Linear, broadcast_batch, product

B, L, C, N = 3, 5, 8, 6
MATRIX_UNITS = "amx_bf16" in (cpu.read_text() if (cpu := Path("/proc/cpuinfo")).exists() else "")
RNG = np.random.default_rng(0)
X, W, G = (RNG.normal(size=shape).astype(np.float32) for shape in ((B, L, C), (C, N), (B, L, N)))


def rounded(x):
    return x.astype(ml_dtypes.bfloat16).astype(np.float64)


def pulled(dtype, out_dtype):
    y, pull = jax.vjp(lambda x, w: product(x, w, jnp.dtype(dtype), jnp.dtype(out_dtype)), jnp.asarray(X), jnp.asarray(W))
    return y, *pull(jnp.asarray(G, out_dtype))


@pytest.mark.parametrize("dtype, operand", [("float32", np.float64), ("bfloat16", rounded)])
def test_product_and_gradients_are_those_of_the_rounded_operands_summed_in_float32(dtype, operand):
    x, w, g = operand(X), operand(W), operand(G)
    expected = x @ w, g @ w.T, x.reshape(-1, C).T @ g.reshape(-1, N)
    found = pulled(dtype, "float32")
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == jnp.float32
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    if dtype == "bfloat16":  # The test can tell: not the product of the exact operands, nor a rounded result.
        assert np.abs(np.asarray(found[0]) - X @ W).max() > 1e-3 < np.abs(rounded(np.asarray(found[0])) - expected[0]).max()


def test_a_result_in_bfloat16_is_rounded_once_and_the_gradient_of_weights_not_at_all():
    y, d_x, d_w = pulled("bfloat16", "bfloat16")
    assert (y.dtype, d_x.dtype, d_w.dtype) == (jnp.bfloat16, jnp.float32, jnp.float32)
    np.testing.assert_array_equal(y, pulled("bfloat16", "float32")[0].astype(jnp.bfloat16))
    np.testing.assert_allclose(d_w, rounded(X).reshape(-1, C).T @ rounded(G).reshape(-1, N), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 5), (2,), (1, 7), (7, 1), (1, 1), (2, 3, 5)], ids=str)
@pytest.mark.parametrize("widths", [(4, 16), (16, 4), (1, 8), (8, 1), (8, 8)], ids=str)
def test_compiled_gradients_in_bfloat16_are_right_for_any_shape(shape, widths):
    """Compiled, since it is the compiler that chooses a kernel by shape; behind elementwise work that rounds nothing."""
    wide, narrow = widths
    x, w, g = (RNG.normal(size=size).astype(np.float32) for size in ((*shape, wide), widths, (*shape, narrow)))

    @jax.jit
    def run(x, w, g):
        y, pull = jax.vjp(lambda x, w: product(x / 2, -w, jnp.bfloat16, jnp.bfloat16), x, w)
        return y, *pull(g.astype(jnp.bfloat16))

    y, d_x, d_w = run(x, w, g)
    half_x, minus_w, g = rounded(x / 2), rounded(-w), rounded(g)
    np.testing.assert_allclose(np.asarray(y).astype(np.float64), half_x @ minus_w, rtol=5e-3, atol=1e-6)
    np.testing.assert_allclose(d_x, g @ minus_w.T / 2, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(d_w, -half_x.reshape(-1, wide).T @ g.reshape(-1, narrow), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("use_bias", [True, False])
def test_linear_is_dense(use_bias):
    fields = {"features": N, "use_bias": use_bias, "bias_init": nn.initializers.normal(1)}
    params = nn.Dense(**fields).init(jax.random.key(0), X)
    run = lambda module: jax.value_and_grad(lambda p, x: (module.apply(p, x) * G).sum(), (0, 1))(params, jnp.asarray(X))
    assert jax.tree.structure(Linear(**fields).init(jax.random.key(0), X)) == jax.tree.structure(params)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), run(Linear(**fields)), run(nn.Dense(**fields))
    )


def test_several_arrays_go_through_the_same_weights():
    module = Linear(N, bias_init=nn.initializers.normal(1))
    params = module.init(jax.random.key(0), X, X[0])
    first, second = module.apply(params, X, X[0, :2])
    np.testing.assert_array_equal(first, module.apply(params, X))
    np.testing.assert_array_equal(second, module.apply(params, X[0, :2]))


def test_the_gradient_of_broadcast_batch_is_the_sum_over_the_batch():
    one = jnp.asarray(X[0])
    each, pull = jax.vjp(lambda x: broadcast_batch(x, B), one)
    np.testing.assert_array_equal(each, np.stack([X[0]] * B))
    np.testing.assert_allclose(pull(jnp.asarray(X))[0], X.sum(0), rtol=1e-6, atol=1e-6)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="about XLA's CPU compiler")
def test_the_gradient_of_weights_transposes_no_operand():
    module, x = Linear(32, use_bias=False), jnp.zeros((16, 40, 24))
    params = module.init(jax.random.key(0), x)
    loss = lambda p, x: jnp.square(module.apply(p, jnp.tanh(x))).sum()
    text = jax.jit(jax.grad(loss)).lower(params, x).compile().as_text()
    assert "f32[640,24]" in text and "f32[24,640]" not in text and "f32[32,640]" not in text


@pytest.mark.skipif(
    jax.default_backend() != "cpu" or not MATRIX_UNITS, reason="about processors that multiply bfloat16 by themselves"
)
@pytest.mark.parametrize("widths", [(64, 256), (256, 64)], ids=str)
def test_products_in_bfloat16_and_their_gradients_reach_the_matrix_units(widths):
    """XLA leaves such products to a library; where it does not, it widens the operands first."""
    arrays = [jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in ((4, 64, widths[0]), widths, (4, 64, widths[1]))]

    def run(x, w, g):
        y, pull = jax.vjp(lambda x, w: product(x, w, x.dtype, x.dtype), x, w)
        return y, pull(g)

    text = jax.jit(run).lower(*arrays).compile().as_text()
    assert text.count(" dot(") == 3 and not re.search(r"= f32\S+ convert\(", text)
