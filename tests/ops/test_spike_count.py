"""Counts of spikes against their definition in numpy and against stepped neurons, ours and spikingjelly's; gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdit_jax.ops import spike_rate, spike_train
from sdit_jax.ops.surrogate import DERIVATIVES

RANDOM = np.random.default_rng(0).normal(size=20_000).astype(np.float32)
DYADIC = np.arange(-96, 97, dtype=np.float32) / 32  # Every membrane is exact in float32, those at the threshold included.
each_neuron = pytest.mark.parametrize(("steps", "signed"), [(T, signed) for T in range(1, 9) for signed in (False, True)])


def counts(current, steps, signed):
    """The number of levels d - 1/2, d = 1..T, that T c has reached, in float64."""
    levels = np.arange(1, steps + 1) - 0.5
    reached = lambda x: (steps * x[:, None] >= levels).sum(1)
    current = current.astype(np.float64)
    return reached(current) - reached(-current) if signed else reached(current)


def stepped(current, steps, signed):
    return spike_train(jnp.broadcast_to(current, (steps, *current.shape)), signed=signed)[0]


@each_neuron
def test_a_rate_is_the_number_of_levels_that_the_current_reaches(steps, signed):
    for current in (RANDOM, DYADIC):
        rate, expected = spike_rate(current, steps, signed=signed), counts(current, steps, signed)
        np.testing.assert_array_equal(np.rint(steps * rate), expected)
        np.testing.assert_allclose(rate, expected / steps, rtol=2e-7)  # Compilers multiply by 1 / T.


@each_neuron
def test_stepped_neurons_spike_as_often_to_the_bit_on_a_grid(steps, signed):
    spikes = np.asarray(stepped(DYADIC, steps, signed))
    assert set(np.unique(spikes)) == ({-1, 0, 1} if signed else {0, 1})
    np.testing.assert_array_equal(spikes.sum(0), counts(DYADIC, steps, signed))


@each_neuron
def test_and_elsewhere_unless_a_membrane_lies_within_rounding_of_the_threshold(steps, signed):
    found = np.asarray(stepped(RANDOM, steps, signed)).sum(0)
    level = steps * np.abs(RANDOM.astype(np.float64)) - 0.5
    close = np.abs(level - np.round(level)) < 1e-5
    assert close.mean() < 0.01
    np.testing.assert_array_equal(found[~close], counts(RANDOM, steps, signed)[~close])


def test_from_an_empty_membrane_half_of_the_counts_are_wrong():
    current = RANDOM[(RANDOM > 0) & (RANDOM < 1)]
    spikes, _ = spike_train(jnp.broadcast_to(current, (4, *current.shape)), jnp.zeros_like(current))
    assert 0.3 < np.mean(np.asarray(spikes).sum(0) != counts(current, 4, False)) < 0.6


def test_spikes_and_membranes_are_those_of_spikingjelly():
    torch, neuron = pytest.importorskip("torch"), pytest.importorskip("spikingjelly.activation_based.neuron")
    node = neuron.IFNode(v_threshold=1.0, v_reset=None, step_mode="m")
    currents = np.random.default_rng(1).normal(0.4, 1, (6, 500)).astype(np.float32)
    node.v = torch.full((500,), 0.5)
    expected = node(torch.from_numpy(currents)).numpy()
    first, v = spike_train(jnp.asarray(currents[:2]))  # In two parts: the membrane is carried.
    second, v = spike_train(jnp.asarray(currents[2:]), v)
    np.testing.assert_array_equal(np.concatenate([first, second]), expected)
    np.testing.assert_allclose(v, node.v.numpy(), atol=1e-6)


@pytest.mark.parametrize("signed", [False, True])
def test_the_gradient_passes_straight_through_inside_the_window(signed):
    current = jnp.array([-1.01, -1.0, -0.3, 0.0, 0.3, 0.625, 1.0, 1.01])
    gradient = jax.vmap(jax.grad(lambda c: spike_rate(c, 4, signed=signed)))(current)
    np.testing.assert_array_equal(gradient, [0, 1, 1, 1, 1, 1, 1, 0] if signed else [0, 0, 0, 1, 1, 1, 1, 0])


@pytest.mark.parametrize("surrogate", DERIVATIVES)
@pytest.mark.parametrize("signed", [False, True])
def test_other_surrogates_replace_each_step_of_the_count(surrogate, signed):
    """The rate with every step function smoothed: the integral of its surrogate, differentiated numerically in float64."""
    current, slope, grid = np.linspace(-1.4, 1.4, 57) + 0.004, 1.7, np.linspace(-40, 40, 800_001)
    bump = np.asarray(DERIVATIVES[surrogate][0](jnp.asarray(grid), slope), np.float64)
    smooth_step = lambda x: np.interp(x, grid, np.cumsum(bump) * (grid[1] - grid[0]))
    smooth = lambda c: sum(smooth_step(3 * c - d + 0.5) for d in (1, 2, 3)) / 3
    rate = (lambda c: smooth(c) - smooth(-c)) if signed else smooth
    expected = (rate(current + 1e-3) - rate(current - 1e-3)) / 2e-3
    of = lambda c: spike_rate(c, 3, signed=signed, surrogate=surrogate, surrogate_slope=slope)
    found = jax.vmap(jax.grad(of))(jnp.asarray(current, jnp.float32))
    np.testing.assert_allclose(found, expected, atol=2e-2 if surrogate == "rectangular" else 3e-3)
    np.testing.assert_array_equal(jax.vmap(lambda c: jax.jvp(of, (c,), (1.0,))[1])(jnp.asarray(current, jnp.float32)), found)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"steps": 0}, "steps: found 0"), ({"surrogate": "step"}, "surrogate: found 'step'"), ({"surrogate_slope": 0.0}, "slope")],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        spike_rate(jnp.zeros(3), **({"steps": 4} | arguments))
