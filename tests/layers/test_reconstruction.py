"""The Reconstruction Module against its equation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdit_jax.layers.reconstruction import Reconstruction

B, L, C = 2, 5, 7


def z(seed=0, shape=(B, 2 * L, C)):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def initialised(module, z):
    return module.init(jax.random.key(0), z, method="gate")


def test_the_learned_tokens_come_after_the_sequence_and_start_at_ones():
    module, x = Reconstruction(L, C), z(shape=(B, L, C))
    variables = initialised(module, z())
    np.testing.assert_array_equal(module.apply(variables, x, method="append"), jnp.concatenate([x, jnp.ones_like(x)], 1))
    variables["params"]["tokens"] = z(1, (L, C))
    found = module.apply(variables, x, method="append")
    for i in range(B):
        np.testing.assert_array_equal(found[i], jnp.concatenate([x[i], variables["params"]["tokens"]]))


def test_the_gate_is_the_equation_in_float64():
    module = Reconstruction(L, C)
    rng = np.random.default_rng(1)
    variables = jax.tree.map(lambda a: a + jnp.asarray(0.3 * rng.normal(size=a.shape), a.dtype), initialised(module, z()))
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), variables["params"])
    x, R = np.split(np.asarray(z(), np.float64), 2, 1)
    inner = np.einsum("blc,cm->bml", R, p["over_channels"]["kernel"]) + p["over_channels"]["bias"][:, None]
    G = np.einsum("bml,lc->bmc", inner, p["over_tokens"]["kernel"]) + p["over_tokens"]["bias"]
    np.testing.assert_allclose(module.apply(variables, z(), method="gate"), x * (1 + G), rtol=1e-4, atol=1e-5)


def test_the_gate_can_start_at_identity():
    module = Reconstruction(L, C, gate_init="identity")
    variables = initialised(module, z())
    np.testing.assert_array_equal(module.apply(variables, z(), method="gate"), z()[:, :L])
    assert float(jnp.abs(variables["params"]["over_channels"]["kernel"]).min()) > 0  # Or W2 would get no gradient.


def test_a_random_gate_starts_with_the_deviation_of_the_paper():
    module, ones = Reconstruction(197, 384), jnp.ones((1, 394, 384))
    G = module.apply(initialised(module, ones), ones, method="gate") - 1
    assert float(G.std()) == pytest.approx(0.9, abs=0.15)


def test_both_matrices_start_xavier_uniform_with_zero_bias():
    params = initialised(Reconstruction(40, 60), jnp.zeros((1, 80, 60)))["params"]
    bound = (6 / 100) ** 0.5
    for name in ("over_channels", "over_tokens"):
        kernel = params[name]["kernel"]
        assert 0.99 * bound < float(jnp.abs(kernel).max()) <= bound
        assert float(kernel.std()) == pytest.approx(bound / 3**0.5, rel=0.03)
        assert (params[name]["bias"] == 0).all()
