"""Tokens from images, timesteps and labels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdit_jax.layers.embed import LabelEmbed, TimeEmbed, patchify, sinusoid, unpatchify


def images(B=2, side=12, C=3):
    return jnp.asarray(np.random.default_rng(0).normal(size=(B, side, side, C)), jnp.float32)


@pytest.mark.parametrize("p", [1, 2, 3, 4, 12])
def test_patches_come_in_raster_order_as_do_the_pixels_in_them(p):
    x, patches = images(), patchify(images(), p)
    n = 12 // p
    for i in range(n * n):
        top, left = p * (i // n), p * (i % n)
        np.testing.assert_array_equal(patches[:, i], x[:, top : top + p, left : left + p].reshape(2, -1))


@pytest.mark.parametrize("p", [1, 2, 3, 4, 12])
def test_unpatchify_is_the_inverse(p):
    np.testing.assert_array_equal(unpatchify(patchify(images(), p), p), images())


def test_the_sinusoid_is_cosines_then_sines_of_falling_frequency():
    t = np.array([0, 1, 17, 500, 999])
    angles = t[:, None] * np.exp(-np.log(10_000) * np.arange(128) / 128)
    found = sinusoid(jnp.asarray(t))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, np.concatenate([np.cos(angles), np.sin(angles)], 1), atol=2e-4)  # 999 in float32.
    np.testing.assert_allclose(found[:2], np.concatenate([np.cos(angles), np.sin(angles)], 1)[:2], atol=1e-6)


def test_the_time_embedding_is_two_linears_with_silu_between():
    t = jnp.array([0, 3, 999])
    variables = TimeEmbed(8).init(jax.random.key(0), t)
    variables = jax.tree.map(lambda leaf: leaf + 0.1 * jnp.cos(jnp.arange(leaf.size).reshape(leaf.shape)), variables)
    hidden, output = (variables["params"][name] for name in ("hidden", "output"))
    h = np.asarray(sinusoid(t), np.float64) @ hidden["kernel"] + hidden["bias"]
    expected = (h / (1 + np.exp(-h))) @ output["kernel"] + output["bias"]
    np.testing.assert_allclose(TimeEmbed(8).apply(variables, t), expected, atol=1e-4)


def test_linears_and_table_start_normal_and_biases_at_zero():
    params = TimeEmbed(256).init(jax.random.key(0), jnp.zeros(1, int))["params"]
    for linear in params.values():
        assert float(linear["kernel"].std()) == pytest.approx(0.02, rel=0.03)
        assert (linear["bias"] == 0).all()
    table = LabelEmbed(100, 256, 0.1).init(jax.random.key(0), jnp.zeros(1, int), False)["params"]["table"]
    assert table.shape == (101, 256)
    assert float(table.std()) == pytest.approx(0.02, rel=0.03)


@pytest.fixture
def labels():
    """(table, apply) of a label embedding whose every row differs."""
    variables = {"params": {"table": jnp.arange(11.0)[:, None] + jnp.arange(4) / 10}}
    module = LabelEmbed(10, 4, 0.3)

    def apply(y, train, seed=0):
        return module.apply(variables, y, train, rngs={"label_dropout": jax.random.key(seed)})

    return variables["params"]["table"], apply


def test_labels_take_their_row_and_the_null_label_the_last(labels):
    table, apply = labels
    y = jnp.array([0, 3, 9, 10])
    np.testing.assert_array_equal(apply(y, train=False), table[y])


def test_training_drops_labels_to_null_at_the_given_rate(labels):
    table, apply = labels
    y = jnp.arange(4000) % 10
    found = apply(y, train=True)
    dropped = (found == table[10]).all(1)
    np.testing.assert_array_equal(found, jnp.where(dropped[:, None], table[10], table[y]))
    assert dropped.mean() == pytest.approx(0.3, abs=5 * (0.3 * 0.7 / 4000) ** 0.5)
    assert not (dropped == (apply(y, train=True, seed=1) == table[10]).all(1)).all()


def test_without_dropout_training_needs_no_randomness():
    module = LabelEmbed(10, 4, 0.0)
    variables = module.init(jax.random.key(0), jnp.zeros(1, int), False)
    np.testing.assert_array_equal(module.apply(variables, jnp.arange(10), True), variables["params"]["table"][:10])


def test_a_table_of_numpy_is_applied_outside_of_a_compiled_program():
    table = np.arange(44, dtype=np.float32).reshape(11, 4)
    found = LabelEmbed(10, 4, 0.0).apply({"params": {"table": table}}, np.array([3, 10]), False)
    np.testing.assert_array_equal(found, table[[3, 10]])


@pytest.mark.parametrize("label", [-1, 11, 1000])
def test_labels_out_of_range_give_nan_rather_than_a_wrong_row(labels, label):
    _, apply = labels
    found = apply(jnp.array([label, 2]), train=False)
    assert jnp.isnan(found[0]).all() and jnp.isfinite(found[1]).all()
