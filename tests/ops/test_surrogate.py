"""Surrogate derivatives against their definition: area 1, known height and width, and their use in the neuron's gradient."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

from sdit_jax.ops import lif
from sdit_jax.ops.surrogate import DERIVATIVES, parse

# For slope a: the height at x = 0 as a multiple of a, and the x at half of that height as a multiple of 1 / a.
HEIGHT = {"atan": 1 / 2, "sigmoid": 1 / 4, "triangular": 1.0, "rectangular": 1.0}
HALF_WIDTH = {"atan": 2 / math.pi, "sigmoid": math.acosh(3), "triangular": 1 / 2, "rectangular": 1 / 2}
DEFAULT_SLOPE = {"atan": 2.0, "sigmoid": 4.0, "triangular": 1.0, "rectangular": 1.0}


def test_every_surrogate_is_tested():
    assert set(HEIGHT) == set(HALF_WIDTH) == set(DEFAULT_SLOPE) == set(DERIVATIVES)


@pytest.mark.parametrize("slope", [0.7, 3.0])
@pytest.mark.parametrize("name", HEIGHT)
def test_the_area_is_one(name, slope):
    derivative, _ = DERIVATIVES[name]
    x_of = lambda s: math.copysign(math.expm1(abs(s)), s)  # Reaches the heavy tail of atan.
    integrand = lambda s: float(derivative(jnp.float32(x_of(s)), slope)) * math.exp(abs(s))
    edges = [0.0, math.log1p(0.5 / slope), math.log1p(1 / slope)]  # Where triangular and rectangular have kinks or jumps.
    area, _ = integrate.quad(integrand, -12, 12, points=sorted({*edges, *(-s for s in edges)}), epsabs=1e-4)
    assert area == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("slope", [0.7, 3.0])
@pytest.mark.parametrize("name", HEIGHT)
def test_height_and_width_follow_the_slope(name, slope):
    derivative, _ = DERIVATIVES[name]
    height, half = HEIGHT[name] * slope, HALF_WIDTH[name] / slope
    assert float(derivative(jnp.float32(0), slope)) == pytest.approx(height, rel=1e-6)
    for x in (-half, half):
        inside, outside = (float(derivative(jnp.float32(x * factor), slope)) for factor in (0.99, 1.01))
        assert inside > height / 2 > outside
        if name != "rectangular":
            assert float(derivative(jnp.float32(x), slope)) == pytest.approx(height / 2, rel=1e-5)


@pytest.mark.parametrize("name", HEIGHT)
def test_the_default_slope_is_the_documented_one(name):
    assert parse(name, None) == (name, DEFAULT_SLOPE[name])
    assert parse(name, 3) == (name, 3.0)


@pytest.mark.parametrize("slope", [None, 3.0])
@pytest.mark.parametrize("name", HEIGHT)
def test_the_neuron_uses_the_surrogate(name, slope):
    """One step with tau = 1 is s = [X >= threshold], so that ds/dX is the surrogate at X - threshold."""
    current = jnp.linspace(-1.03, 3.01, 101)
    spikes = lambda x: lif(x[None], tau=1.0, surrogate=name, surrogate_slope=slope)[0].sum()
    derivative, default = DERIVATIVES[name]
    expected = derivative(current - 1, slope or default)
    np.testing.assert_allclose(jax.grad(spikes)(current), expected, atol=1e-6)
    found, _ = lif(current[None], tau=1.0, surrogate=name)
    np.testing.assert_array_equal(found[0], current >= 1)


def test_the_gradient_has_the_dtype_of_the_current():
    _, pull = jax.vjp(lambda x: lif(x, tau=1.0)[0], jnp.ones((1, 3), jnp.bfloat16))
    (g,) = pull(jnp.array([[1, -2, 0.5]], jnp.bfloat16))
    assert g.dtype == jnp.bfloat16
    np.testing.assert_array_equal(g.astype(jnp.float32), [[1, -2, 0.5]])  # atan with slope 2 is 1 at the threshold.


@pytest.mark.parametrize(
    ("name", "slope", "message"), [("arctan", None, "arctan.*atan"), ("atan", 0.0, "positive"), ("atan", -1, "-1")]
)
def test_unknown_names_and_slopes_that_are_not_positive_are_errors(name, slope, message):
    with pytest.raises(ValueError, match=message):
        parse(name, slope)
    with pytest.raises(ValueError, match=message):
        lif(jnp.zeros((1, 1)), surrogate=name, surrogate_slope=slope)
