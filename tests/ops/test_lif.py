"""The neuron against PAPER's table and a plain float64 loop, with gradients."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdit_jax.ops import firing_rate, lif

# Constant current X, T = 4: rate, and d rate / dX with the reset in the gradient and without (PAPER section 4).
TABLE = [
    (-1.0, 0, 0.023914, 0.023679),
    (0.5, 0, 0.166104, 0.172670),
    (1.05, 0, 0.452690, 0.607616),
    (1.1, 0.25, 0.459722, 0.633560),
    (1.5, 0.5, 0.363564, 0.479518),
    (2.1, 1.0, 0.348092, 0.487960),
    (3.0, 1.0, 0.123816, 0.144200),
]
VARIANTS = {
    "release": {},
    "soft": {"v_reset": None},
    "soft_detached": {"v_reset": None, "detach_reset": True},
    "detached": {"detach_reset": True},
    "other_rest": {"v_reset": -0.3, "tau": 3.0},
    "undecayed_input": {"decay_input": False, "v_threshold": 0.8},
    "undecayed_input_soft": {"decay_input": False, "v_reset": None, "tau": 1.5},
    "undecayed_input_other_rest": {"decay_input": False, "v_reset": 0.2},
    "forgetful": {"tau": 1.0},
    "leakless": {"tau": math.inf, "decay_input": False},
    "leakless_soft": {"tau": math.inf, "decay_input": False, "v_reset": None},
    "steep": {"surrogate_slope": 5.0},
}


def loop(currents, v, *, tau=2.0, v_threshold=1.0, v_reset=0.0, decay_input=True, detach_reset=False, surrogate_slope=2.0):
    """The definition step by step; d spike / dh comes from the integral of the surrogate, as a straight-through estimate."""
    rest = 0.0 if v_reset is None else v_reset
    spikes = []
    for x in currents:
        h = v - (v - rest) / tau + (x / tau if decay_input else x)
        smooth = jnp.arctan(jnp.pi / 2 * surrogate_slope * (h - v_threshold)) / jnp.pi
        s = jnp.where(h >= v_threshold, 1.0, 0.0) + (smooth - jax.lax.stop_gradient(smooth))
        spikes.append(s)
        r = jax.lax.stop_gradient(s) if detach_reset else s
        v = h - r * v_threshold if v_reset is None else h - r * (h - v_reset)
    return jnp.stack(spikes), v


@pytest.mark.parametrize("X, rate, slope, detached_slope", TABLE)
def test_rates_and_gradients_are_those_of_the_paper(X, rate, slope, detached_slope):
    for detach, expected in ((False, slope), (True, detached_slope)):
        found = jax.value_and_grad(lambda x: lif(jnp.broadcast_to(x, (4,)), detach_reset=detach)[0].mean())(X)
        assert found[0] == rate
        assert float(found[1]) == pytest.approx(expected, abs=1e-5)


NO_LEAK = {"tau": math.inf, "decay_input": False}
STAIRCASES = [
    ({}, (16 / 15, 4 / 3, 2, 2)),  # The paper's.
    ({"v_reset": None}, (16 / 15, 4 / 3, 28 / 15, 2)),
    (NO_LEAK, (1 / 4, 1 / 2, 1, 1)),
    (NO_LEAK | {"v_reset": None}, (1 / 4, 1 / 2, 3 / 4, 1)),
]


@pytest.mark.parametrize("options, currents", STAIRCASES)
def test_the_rate_is_a_staircase_of_the_current(options, currents):
    """A quarter at the first of these currents, a half at the second, ..."""
    X = np.arange(-3, 4, 1e-3) + 3e-4
    expected = sum((X >= current) / 4 for current in currents)
    np.testing.assert_array_equal(firing_rate(jnp.asarray(X, jnp.float32), 4, **options), expected)


@pytest.mark.parametrize("T", [3, 4, 12])
def test_without_leak_and_with_soft_reset_levels_are_even(T):
    X = np.append(np.random.default_rng(0).normal(0.5, 1, 1000), np.arange(5) / 4).astype(np.float32)
    found = firing_rate(jnp.asarray(X), T, v_threshold=0.5, v_reset=None, **NO_LEAK)
    np.testing.assert_allclose(found, np.clip(np.floor(T * X / 0.5) / T, 0, 1), atol=1e-6)


def test_a_membrane_exactly_at_threshold_fires():
    spikes, v = lif(jnp.array([[2.0, 1.9999]]))
    np.testing.assert_array_equal(spikes, [[1, 0]])
    assert v[0] == 0 and v[1] > 0.99


@pytest.mark.parametrize("variant, T", [("release", 1), ("release", 4), *((variant, 9) for variant in VARIANTS)])
def test_spikes_membrane_and_gradients_equal_the_loop(variant, T):
    options = VARIANTS[variant]
    rng = np.random.default_rng(T)
    with jax.enable_x64(True):
        currents, v = jnp.asarray(rng.normal(0.8, 1.5, (T, 256))), jnp.asarray(rng.normal(0, 0.7, 256))
        cotangents = jnp.asarray(rng.normal(size=(T, 256))), jnp.asarray(rng.normal(size=256))

        ours = jax.jit(lambda x, v: lif(x, v_init=v, **options))
        (spikes, membrane), pull = jax.vjp(ours, currents, v)
        (expected_spikes, expected_membrane), expected_pull = jax.vjp(lambda x, v: loop(x, v, **options), currents, v)
        np.testing.assert_array_equal(spikes, expected_spikes)
        np.testing.assert_allclose(membrane, expected_membrane, atol=1e-12)
        assert 0.02 < spikes.mean() < 0.98
        for gradient, expected in zip(pull(cotangents), expected_pull(cotangents), strict=True):
            np.testing.assert_allclose(gradient, expected, atol=1e-11)


@pytest.mark.parametrize("T", [1, 4, 11])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_rate_and_its_gradient_are_the_mean_of_the_loops_spikes(variant, T):
    options = VARIANTS[variant]
    rest = options.get("v_reset", 0.0) or 0.0
    with jax.enable_x64(True):
        current, cotangent = jnp.asarray(np.random.default_rng(T).normal(0.8, 1.5, (2, 128)))
        rate, pull = jax.vjp(jax.jit(lambda x: firing_rate(x, T, **options)), current)
        expected, expected_pull = jax.vjp(lambda x: loop(jnp.broadcast_to(x, (T, 128)), rest, **options)[0].mean(0), current)
        np.testing.assert_allclose(rate, expected, atol=1e-12)
        np.testing.assert_allclose(pull(cotangent)[0], expected_pull(cotangent)[0], atol=1e-11)


def test_the_gradient_keeps_nothing_but_the_currents():
    """Not the membranes of the spiking steps, nor T copies of a constant current."""
    x = jnp.zeros(1000)
    for function, currents in ((lambda x: firing_rate(x, 4), x), (lambda x: lif(x)[0], jnp.zeros((4, 1000)))):
        pull = jax.eval_shape(lambda x, function=function: jax.vjp(function, x)[1], currents)
        kept = sum(leaf.size for leaf in jax.tree.leaves(pull))
        assert kept <= currents.size + 1000 + 2  # The first membrane, tau, the threshold.


@pytest.mark.parametrize("variant", VARIANTS)
def test_neurons_start_at_rest(variant):
    rest = VARIANTS[variant].get("v_reset", 0.0) or 0.0
    currents = jax.random.normal(jax.random.key(0), (3, 64)) * 1.5 + 0.8
    spikes, v = lif(currents, **VARIANTS[variant])
    expected_spikes, expected_v = loop(currents, rest, **VARIANTS[variant])
    np.testing.assert_array_equal(spikes, expected_spikes)
    np.testing.assert_allclose(v, expected_v, atol=1e-6)


@pytest.mark.parametrize("detach_reset", [False, True])
@pytest.mark.parametrize("shape", [(32,), (3, 1), (1, 32), ()])
@pytest.mark.parametrize("v_reset", [0.0, None])
def test_a_learned_threshold_has_the_gradient_of_the_loop(v_reset, shape, detach_reset):
    options = {"v_reset": v_reset, "detach_reset": detach_reset}
    with jax.enable_x64(True):
        currents = jnp.asarray(np.random.default_rng(0).normal(1, 1.5, (5, 3, 32)))
        threshold = jnp.linspace(0.5, 1.5, math.prod(shape)).reshape(shape)

        def total(neuron, threshold):
            spikes, v = neuron(threshold)
            return (spikes * jnp.arange(5.0)[:, None, None]).sum() + (v**2).sum()

        ours = jax.grad(lambda c: total(lambda c: lif(currents, v_threshold=c, **options), c))(threshold)
        plain = jax.grad(lambda c: total(lambda c: loop(currents, 0.0, v_threshold=c, **options), c))(threshold)
        np.testing.assert_allclose(ours, plain, atol=1e-11)


@pytest.mark.parametrize("variant", ["release", "soft", "other_rest", "undecayed_input_other_rest", "undecayed_input_soft"])
@pytest.mark.parametrize("shape, T", [((32,), 4), ((3, 1), 9), ((), 4)])
def test_a_learned_tau_has_the_gradient_of_the_loop(variant, shape, T):
    options = VARIANTS[variant]
    rest = options.get("v_reset", 0.0) or 0.0
    with jax.enable_x64(True):
        currents = jnp.asarray(np.random.default_rng(0).normal(0.6, 1.5, (T, 3, 32)))
        tau = jnp.linspace(1.0, 4.0, math.prod(shape)).reshape(shape)
        weights = jnp.arange(1.0, T + 1)[:, None, None]

        def total(spikes, v):
            return (spikes * weights).sum() + (v**2).sum()

        given = {name: value for name, value in options.items() if name != "tau"}
        ours = jax.grad(lambda tau: total(*lif(currents, tau=tau, **given)))(tau)
        plain = jax.grad(lambda tau: total(*loop(currents, rest, tau=tau, **given)))(tau)
        np.testing.assert_allclose(ours, plain, atol=1e-10)
        assert jnp.abs(plain).mean() > 1e-2

        constant = jnp.broadcast_to(currents[:1], currents.shape)
        ours = jax.grad(lambda tau: firing_rate(currents[0], T, tau=tau, **given).sum())(tau)
        plain = jax.grad(lambda tau: loop(constant, rest, tau=tau, **given)[0].mean(0).sum())(tau)
        np.testing.assert_allclose(ours, plain, atol=1e-11)


@pytest.mark.parametrize("T", [4, 12])
def test_a_tau_that_is_not_learned_costs_nothing(T):
    """The compiler drops it from the gradient of the currents."""
    cost = lambda f, *args: jax.jit(jax.grad(f)).lower(*args).compile().cost_analysis()["flops"]
    x, tau = jnp.zeros(1000), jnp.full(1000, 2.0)
    alone = cost(lambda x: firing_rate(x, T).sum(), x)
    assert alone + 2000 * T < cost(lambda both: firing_rate(both[0], T, tau=both[1]).sum(), (x, tau))


def test_the_reset_passes_no_gradient_where_it_is_detached():
    """The membrane after a hard reset is a constant 0; only the surrogate of the reset itself sees the current."""
    membrane = lambda x, detach: lif(x[None], detach_reset=detach)[1]
    assert jax.grad(membrane)(jnp.float32(2.4), True) == 0
    assert jax.grad(membrane)(jnp.float32(2.4), False) == pytest.approx(-0.5 * 1.2 / (1 + (np.pi * 0.2) ** 2), rel=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_passes_joined_by_the_membrane_equal_one(variant):
    options = VARIANTS[variant]
    currents = jax.random.normal(jax.random.key(0), (10, 64)) * 1.5 + 0.8
    run = jax.jit(lambda currents, v: lif(currents, v_init=v, **options))
    v_0 = jnp.full(64, 0.1)
    whole, v_whole = run(currents, v_0)
    first, v = run(currents[:3], v_0)
    second, v_split = run(currents[3:], v)
    np.testing.assert_array_equal(jnp.concatenate([first, second]), whole)
    np.testing.assert_allclose(v_split, v_whole, atol=1e-6)


def test_bfloat16_currents_give_bfloat16_spikes_and_a_float32_membrane():
    currents = (jax.random.normal(jax.random.key(1), (12, 256)) * 1.5 + 0.8).astype(jnp.bfloat16)
    spikes, v = lif(currents, tau=3.0)
    expected_spikes, expected_v = lif(currents.astype(jnp.float32), tau=3.0)
    assert spikes.dtype == jnp.bfloat16 and v.dtype == jnp.float32
    np.testing.assert_array_equal(spikes.astype(jnp.float32), expected_spikes)
    np.testing.assert_allclose(v, expected_v, atol=1e-6)


@pytest.mark.parametrize(
    "currents, options, message",
    [
        (jnp.ones((4, 2)), {"tau": 0.5}, "tau.*0.5"),
        (jnp.ones((4, 2)), {"tau": math.nan}, "tau.*nan"),
        (jnp.ones((4, 2)), {"tau": math.inf}, "tau.*inf, must be finite where it divides the input"),
        (jnp.float32(1), {}, "step"),
        (jnp.ones((0, 2)), {}, r"\(0, 2\)"),
        (jnp.ones((4, 2)), {"surrogate": "arctan"}, "arctan"),
    ],
)
def test_wrong_arguments_are_refused(currents, options, message):
    with pytest.raises(ValueError, match=message):
        lif(currents, **options)
    with pytest.raises(ValueError, match="timesteps.*0"):
        firing_rate(jnp.ones(2), 0)
