"""Classifier-free guidance against its formula, and the number of its forward passes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdit_jax.diffusion.guidance import guided, passes

NULL, C = 10, 3
X = jax.random.normal(jax.random.key(0), (4, 2, 2, C))
T_B = jnp.array([7, 7, 3, 1])
Y_B = jnp.array([0, 9, 4, 4])


def network(channels, calls):
    """A function of x, t and y in all its channels, that records the labels it is called with."""

    def denoise(x, t, y):
        calls.append(y)
        base = jnp.concatenate([x, jnp.cos(x)], -1)[..., :channels]
        shape = (-1, 1, 1, 1)
        return base * t.reshape(shape) + (0 if y is None else jnp.sin(y + 1.0).reshape(shape) * jnp.arange(1.0, channels + 1))

    return denoise


@pytest.mark.parametrize("channels", [C, 2 * C])
@pytest.mark.parametrize("scale", [-1.0, 0.5, 1.5, 4.0])
def test_guidance_extrapolates_from_no_label_to_the_label(scale, channels):
    calls = []
    found = guided(network(channels, calls), Y_B, null=NULL, scale=scale, channels=C)(X, T_B)
    with_label = network(channels, [])(X, T_B, Y_B)
    without = network(channels, [])(X, T_B, jnp.full(4, NULL))
    expected = (1 - scale) * without[..., :C] + scale * with_label[..., :C]
    np.testing.assert_allclose(found[..., :C], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(found[..., C:], with_label[..., C:])  # The variance is not guided.
    assert len(calls) == 1 and sorted(calls[0].tolist()) == sorted([*Y_B.tolist(), *[NULL] * 4])


@pytest.mark.parametrize("scale, labels", [(1, Y_B), (1.0, Y_B), (0, jnp.full(4, NULL)), (0.0, jnp.full(4, NULL))])
def test_scales_one_and_zero_cost_one_prediction(scale, labels):
    calls = []
    found = guided(network(2 * C, calls), Y_B, null=NULL, scale=scale, channels=C)(X, T_B)
    assert [call.tolist() for call in calls] == [labels.tolist()]
    np.testing.assert_array_equal(found, network(2 * C, [])(X, T_B, labels))


@pytest.mark.parametrize("scale", [0, 3.0])
def test_outside_of_its_interval_guidance_costs_nothing(scale):
    where = {t: guided(network(C, []), Y_B, null=NULL, scale=scale, channels=C, interval=(3, 7)) for t in (2, 3, 7, 8)}
    for t, found in where.items():
        t_B, scale_here = jnp.full(4, t), scale if 3 <= t <= 7 else 1
        expected = guided(network(C, []), Y_B, null=NULL, scale=scale_here, channels=C)(X, t_B)
        np.testing.assert_allclose(found(X, t_B), expected, rtol=1e-5, atol=1e-5)
    sizes = []
    counting = lambda x, t, y: (jax.debug.callback(lambda n: sizes.append(int(n)), len(x)), network(C, [])(x, t, y))[1]
    ahead = jax.jit(guided(counting, Y_B, null=NULL, scale=3.0, channels=C, interval=(3, 7)))
    for t in (2, 5):
        ahead(X, jnp.full(4, t)).block_until_ready()
    jax.effects_barrier()
    assert sizes == [4, 8]


def test_without_labels_there_is_no_guidance():
    calls = []
    found = guided(network(C, calls), None, null=0, scale=3.0, channels=C)(X, T_B)
    assert calls == [None]
    np.testing.assert_array_equal(found, network(C, [])(X, T_B, None))


@pytest.mark.parametrize("scale", [0, 1, 0.5, 4.0])
def test_passes_are_network_evaluations_per_image(scale):
    calls = []
    guided(network(C, calls), Y_B, null=NULL, scale=scale, channels=C)(X, T_B)
    assert passes(scale) == len(calls[0]) / len(Y_B)
