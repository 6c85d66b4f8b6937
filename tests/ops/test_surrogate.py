"""Spikes are a step forward and a bump of area 1 backward."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdit_jax.ops.surrogate import DERIVATIVES, spike

FORMULAS = {
    "atan": lambda x, a: a / 2 / (1 + (np.pi / 2 * a * x) ** 2),
    "sigmoid": lambda x, a: a * np.exp(-a * np.abs(x)) / (1 + np.exp(-a * np.abs(x))) ** 2,
    "triangular": lambda x, a: a * np.clip(1 - a * np.abs(x), 0, None),
    "rectangular": lambda x, a: a * (np.abs(x) < 1 / (2 * a)),
}
DEFAULT_SLOPES = {"atan": 2.0, "sigmoid": 4.0, "triangular": 1.0, "rectangular": 1.0}


def gradient(x, name, slope=None):
    return jax.jit(jax.vmap(jax.grad(lambda x: spike(x, name, slope))))(jnp.asarray(x, jnp.float32))


def test_every_surrogate_is_tested():
    assert set(FORMULAS) == set(DEFAULT_SLOPES) == set(DERIVATIVES)


@pytest.mark.parametrize("name", FORMULAS)
def test_a_spike_is_x_at_least_zero(name):
    x = jnp.array([-5.0, -1e-6, 0.0, 1e-6, 5.0])
    np.testing.assert_array_equal(spike(x, name), [0, 0, 1, 1, 1])


@pytest.mark.parametrize("slope", [None, 0.7, 3.0])
@pytest.mark.parametrize("name", FORMULAS)
def test_the_gradient_is_the_formula(name, slope):
    x = np.linspace(-2.03, 2.01, 101)
    expected = FORMULAS[name](x, slope or DEFAULT_SLOPES[name])
    np.testing.assert_allclose(gradient(x, name, slope), expected, atol=1e-6)


@pytest.mark.parametrize("slope", [None, 3.0])
@pytest.mark.parametrize("name", FORMULAS)
def test_the_gradient_has_area_one(name, slope):
    s = np.linspace(-12, 12, 100_001)  # x = sinh(s) reaches far enough for the heavy tail of atan.
    area = np.trapezoid(np.asarray(gradient(np.sinh(s), name, slope), np.float64) * np.cosh(s), s)
    assert area == pytest.approx(1, abs=1e-3)


def test_the_gradient_scales_with_the_cotangent_and_keeps_the_dtype():
    _, pull = jax.vjp(lambda x: spike(x), jnp.zeros(3, jnp.bfloat16))
    (g,) = pull(jnp.array([1, -2, 0.5], jnp.bfloat16))
    assert g.dtype == jnp.bfloat16
    np.testing.assert_array_equal(g.astype(jnp.float32), [1, -2, 0.5])


@pytest.mark.parametrize(
    "name, slope, message", [("arctan", None, "arctan.*atan"), ("atan", 0.0, "positive"), ("atan", -1, "-1")]
)
def test_wrong_arguments_are_refused(name, slope, message):
    with pytest.raises(ValueError, match=message):
        spike(jnp.zeros(1), name, slope)
