"""From currents to firing rates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdit_jax.layers.spiking import Spiking
from sdit_jax.ops import firing_rate, lif


def currents(scale=1.0):
    return jnp.asarray(np.random.default_rng(0).normal(0, scale, (2, 5, 64)), jnp.float32)


def rates(X, T, threshold=1.0, soft=False):
    """The firing rate of a constant current from its definition, one step at a time."""
    v, fired = np.zeros(X.shape), np.zeros(X.shape)
    for _ in range(T):
        h = v + (X - v) / 2
        s = h >= threshold
        fired += s
        v = h - s * threshold if soft else h * (1 - s)
    return fired / T


@pytest.mark.parametrize("T", [1, 4, 6])
@pytest.mark.parametrize("fields", [{}, {"reset": "soft"}, {"threshold": 0.5}, {"reset": "soft", "threshold": 2.0}])
def test_a_current_becomes_the_rate_of_its_neuron(fields, T):
    X = currents(2)
    found, sown = Spiking(spiking_steps=T, **fields).apply({}, X, mutable=["spikes"])
    expected = rates(np.asarray(X, np.float64), T, fields.get("threshold", 1.0), fields.get("reset") == "soft")
    np.testing.assert_allclose(found, expected, atol=1e-6)
    (rate,) = jax.tree.leaves(sown)
    assert float(rate) == pytest.approx(expected.mean(), abs=1e-6) and 0.01 < rate < 0.99


def test_the_gradient_of_the_surrogate_arrives_with_its_slope():
    for slope in (2.0, 5.0):  # One step from rest: h = x / 2.
        module = Spiking(spiking_steps=1, surrogate_slope=slope)
        gradient = jax.grad(lambda x: module.apply({}, x).sum())(jnp.ones((1, 1, 1)))
        assert float(gradient[0, 0, 0]) == pytest.approx(slope / 4 / (1 + (np.pi / 4 * slope) ** 2), rel=1e-5)


def test_the_reset_is_detached_where_asked():
    for detach, expected in ((False, 0.363564), (True, 0.479518)):  # PAPER section 4.
        module = Spiking(detach_reset=detach)
        gradient = jax.grad(lambda x: module.apply({}, x).sum())(jnp.full((1, 1, 1), 1.5))
        assert float(gradient[0, 0, 0]) == pytest.approx(expected, abs=1e-5)


def test_without_normalisation_there_is_nothing_to_learn():
    assert Spiking().init(jax.random.key(0), currents()).get("params", {}) == {}


@pytest.mark.parametrize("threshold", [0.5, 1.0, 3.0])
def test_normalised_currents_are_brought_to_threshold_scale(threshold):
    """Rates are those of threshold (gain LN(current) + bias): the scale of the current no longer matters."""
    module = Spiking(normalized_currents=True, threshold=threshold)
    gain, bias = np.linspace(0.5, 2, 64), np.linspace(-0.3, 0.8, 64)
    X = np.asarray(currents(0.06), np.float64)
    normal = (X - X.mean(-1, keepdims=True)) / np.sqrt(X.var(-1, keepdims=True) + 1e-6)
    variables = {"params": {"norm": {"scale": jnp.asarray(gain, jnp.float32), "bias": jnp.asarray(bias, jnp.float32)}}}
    expected = rates(threshold * (gain * normal + bias), 4, threshold)
    np.testing.assert_allclose(module.apply(variables, currents(0.06)), expected, atol=1e-6)


def test_normalised_neurons_fire_from_the_start_where_those_of_the_release_are_silent():
    X = currents(0.06)
    assert (Spiking().apply({}, X) == 0).all()
    module = Spiking(normalized_currents=True)
    rate = module.apply({"params": module.init(jax.random.key(0), X)["params"]}, X)
    expected = rates(np.random.default_rng(1).normal(1, 1, size=100_000), 4).mean()  # Currents start around the threshold.
    assert float(rate.mean()) == pytest.approx(expected, abs=0.03) and expected > 0.2


def test_thresholds_and_decays_are_learned_from_the_fields():
    module = Spiking(threshold=0.7, tau=3.0, learned_threshold=True, learned_decay=True, reset="soft")
    X = currents(2)
    params = module.init(jax.random.key(0), X)["params"]
    assert {name: leaf.shape for name, leaf in params.items()} == {"threshold_scale": (64,), "decay_shift": (64,)}
    plain = Spiking(threshold=0.7, tau=3.0, reset="soft")
    np.testing.assert_array_equal(module.apply({"params": params}, X), plain.apply({}, X))

    a, b = np.linspace(-1, 1, 64, dtype=np.float32), np.linspace(2, -2, 64, dtype=np.float32)
    moved = {"threshold_scale": jnp.asarray(a), "decay_shift": jnp.asarray(b)}
    sigmoid = 1 / (1 + np.exp(-(b - np.log(2.0))))  # 1 / tau, a third at b = 0.
    loss = lambda function, *args: (function(*args) * jnp.sin(X)).sum()
    learned = lambda threshold, tau: firing_rate(X, 4, v_threshold=threshold, tau=tau, v_reset=None)
    found, grads = jax.value_and_grad(lambda p: loss(module.apply, {"params": p}, X))(moved)
    threshold, tau = jnp.asarray(0.7 * np.exp(a)), jnp.asarray(1 / sigmoid, jnp.float32)
    expected, (d_threshold, d_tau) = jax.value_and_grad(lambda *args: loss(learned, *args), (0, 1))(threshold, tau)
    assert float(found) == pytest.approx(float(expected), abs=1e-3)
    np.testing.assert_allclose(grads["threshold_scale"], d_threshold * threshold, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(grads["decay_shift"], d_tau * (1 - tau), rtol=1e-3, atol=1e-4)  # d tau / db = -(tau - 1).


def test_currents_are_brought_to_the_scale_of_the_field_whatever_the_threshold_has_learned():
    module, X = Spiking(normalized_currents=True, learned_threshold=True, threshold=0.5), currents()
    params = module.init(jax.random.key(0), X)["params"]
    params["threshold_scale"] += np.log(2.0)
    normal = (X - X.mean(-1, keepdims=True)) / jnp.sqrt(X.var(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(module.apply({"params": params}, X), rates(np.asarray(0.5 * (normal + 1)), 4, 1.0), atol=1e-6)


def test_without_leak_currents_are_summed():
    X = currents()
    for reset, expected in (("soft", np.clip(np.floor(4 * X / 0.8) / 4, 0, 1)), ("hard", None)):
        found = Spiking(leak=False, reset=reset, threshold=0.8, tau=5.0).apply({}, X)
        plain = lif(
            jnp.broadcast_to(X, (4, *X.shape)),
            tau=1e9,
            decay_input=False,
            v_threshold=0.8,
            v_reset=None if reset == "soft" else 0.0,
        )[0].mean(0)
        np.testing.assert_allclose(found, plain if expected is None else expected, atol=1e-6)
        gradient = jax.grad(lambda x, reset=reset: Spiking(leak=False, reset=reset).apply({}, x).sum())(X)
        assert jnp.isfinite(gradient).all() and (gradient != 0).all()


@pytest.mark.parametrize("fields", [{}, {"normalized_currents": True, "learned_threshold": True, "learned_decay": True}])
def test_stepped_neurons_are_those_behind_the_rate_of_a_constant_current(fields):
    """T equal currents: the same norm and learned constants, the same rate sown; and changing currents carry the membrane."""
    module, X = Spiking(reset="soft", **fields), currents(2)
    params = module.init(jax.random.key(0), X).get("params", {})
    params = jax.tree.map(lambda leaf: leaf + 0.3 * jnp.sin(jnp.arange(leaf.size)), params)
    rate, sown = module.apply({"params": params}, X, mutable=["spikes"])
    spikes, stepped = module.apply({"params": params}, jnp.stack([X] * 4), stepped=True, mutable=["spikes"])
    np.testing.assert_allclose(spikes.mean(0), rate, atol=1e-6)
    assert set(np.unique(spikes)) == {0, 1}
    np.testing.assert_allclose(*(jax.tree.leaves(found)[0] for found in (stepped, sown)), atol=1e-6)
    changing = module.apply({"params": params}, jnp.stack([0 * X, 0 * X, 0 * X, X]), stepped=True)
    assert (changing[3] != spikes[3]).any() and not jnp.array_equal(changing, spikes)
