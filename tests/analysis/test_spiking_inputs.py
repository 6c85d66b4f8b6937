"""What counts as a spiking input of a product, and its rate, against the numbers themselves."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdit_jax.analysis import operations
from sdit_jax.analysis.energy import measure_energy
from sdit_jax.ops import firing_rate, lif
from sdit_jax.ops.marks import NEURONS, mark

T = 3  # Thirds are rounded.


def steps_of(change, fired=lambda x: firing_rate(x, T)):
    """The `steps` of the input of a product behind neurons and a function of their output."""
    variables = {"kernel": jax.ShapeDtypeStruct((8, 2), jnp.float32)}

    def function(variables, x_BLC):
        moved = change(fired(x_BLC))
        return moved.reshape(-1, 8) @ variables["kernel"].astype(moved.dtype)

    (product,) = [
        each
        for each in operations.trace(function, variables, jax.ShapeDtypeStruct((2, 4, 8), jnp.float32)).operations
        if each.is_product
    ]
    return product.operands[0].steps


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s, lambda s: s[:, ::2], lambda s: s.swapaxes(0, 1), lambda s: s.astype(jnp.bfloat16), lambda s: s[None, ::-1],
        lambda s: jnp.pad(s, ((0, 0), (1, 0), (0, 0)))[:, :-1], lambda s: jnp.concatenate([s, s[:1]]),
        lambda s: jnp.concatenate([jnp.zeros_like(s), s], 1), lambda s: s[:, jnp.array([2, 0])],
        lambda s: jnp.where(jnp.arange(8) % 2, s, 0.0), lambda s: jnp.concatenate(jnp.split(s, 2, 1)[::-1], 1),
        lambda s: jax.lax.optimization_barrier(s), lambda s: jax.checkpoint(jax.jit(lambda s: s[0]))(s),
        lambda s: jax.lax.scan(lambda carry, x: (x, carry), jnp.zeros_like(s[0]), s)[1],
        lambda s: jax.lax.cond(s.sum() > 0, lambda: s, lambda: jnp.flip(s)),
    ],
)  # fmt: skip
def test_spikes_that_are_moved_stay_spikes(change):
    assert steps_of(change) == T
    assert steps_of(change, lambda x: lif(jnp.stack([x] * T))[0][0]) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda s: 0.25 * s + 0.75 * jnp.roll(s, 1, 1), lambda s: s + s[::-1], lambda s: s * jnp.arange(8.0), lambda s: s - 1,
        lambda s: jnp.pad(s, ((0, 0), (1, 0), (0, 0)), constant_values=0.5), lambda s: jnp.cumsum(s, 1), jnp.sqrt,
        lambda s: jnp.concatenate([s, jnp.ones_like(s)]), lambda s: jnp.where(s > 0.5, s, 0.5),
        lambda s: s.astype(int).astype(float), lambda s: jnp.concatenate([s, firing_rate(s, T + 1)]),
        lambda s: jax.lax.scan(lambda carry, x: (carry + x, carry), jnp.zeros_like(s[0]), s)[1],
        lambda s: jax.lax.cond(s.sum() > 0, lambda: s, lambda: 2 * s), lambda s: firing_rate(s, 2) * s,
    ],
)  # fmt: skip
def test_spikes_that_are_changed_are_real_valued(change):
    assert steps_of(change) is None


class Inputs(nn.Module):
    """Layers of one weight matrix each, behind neurons or not."""

    spiking_steps: int = T
    image_size: int = 4
    channels: int = 2
    num_classes: int = 0

    @nn.compact
    def __call__(self, x_BHWC, t_B, y_B):
        inputs = inputs_of(x_BHWC)
        return sum(nn.Dense(3, dtype=value.dtype, name=name)(value).mean() for name, value in inputs.items()) + jnp.zeros(
            len(t_B)
        )

    def baseline(self):
        return self


def inputs_of(x_BHWC):
    rate = firing_rate(2 * x_BHWC, T)
    count = jnp.clip(jnp.round(T * x_BHWC / 2), -T, T)
    return {
        "rate": rate, "bfloat16": rate.astype(jnp.bfloat16), "shifted": jnp.pad(rate, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1],
        "mixed": 0.5 * rate + 0.5 * rate[:, ::-1], "mean": jnp.mean(lif(jnp.stack([x_BHWC] * T))[0], 0),
        "signed": mark(count / T, NEURONS, T), "unmarked": count / T, "not_spikes": mark(x_BHWC, NEURONS, T),
        "too_many": mark(2 * count / T, NEURONS, T), "ternary": jnp.sign(x_BHWC) * (abs(x_BHWC) > 1),
        "train": lif(jnp.stack([2 * x_BHWC] * T))[0], "silent": firing_rate(x_BHWC - 100, T),
    }  # fmt: skip


@pytest.fixture(scope="module")
def found():
    """(layers by name, their inputs) of a batch of images."""
    images = jnp.asarray(np.random.default_rng(0).normal(0.3, 1, (5, 4, 4, 2)), jnp.float32)
    variables = jax.jit(Inputs().init)(jax.random.key(0, impl="rbg"), images, jnp.zeros(5), None)
    layers = {layer.name: layer for layer in measure_energy(Inputs(), variables, images, jnp.zeros(5), None).layers}
    return layers, {name: np.asarray(value, np.float64) for name, value in inputs_of(images).items()}


def test_inputs_behind_neurons_and_binary_ones_are_spikes(found):
    layers, _ = found
    spiking = {name: layer.steps for name, layer in layers.items() if layer.binary}
    assert spiking == {"rate": T, "bfloat16": T, "shifted": T, "signed": T, "ternary": 1, "train": 1}
    assert {name for name, layer in layers.items() if layer.signed} == {"signed", "ternary"}
    assert {name: layer.repeats for name, layer in layers.items() if layer.repeats > 1} == {"train": T}


def test_rates_are_spikes_per_neuron_and_step(found):
    layers, inputs = found
    for name in ("rate", "shifted", "signed", "ternary", "train"):
        assert layers[name].rate == pytest.approx(abs(inputs[name]).mean(), rel=1e-5)
    assert layers["bfloat16"].rate == pytest.approx(layers["rate"].rate, rel=1e-2)
    assert layers["train"].rate == pytest.approx(layers["rate"].rate, rel=1e-5)
    macs = 4 * 4 * 2 * 3
    assert layers["rate"].macs == macs and layers["train"].macs == T * macs
    assert layers["rate"].acs == pytest.approx(T * inputs["rate"].mean() * macs) == pytest.approx(layers["train"].acs)


def test_neurons_are_active_that_spike_in_any_step(found):
    layers, inputs = found
    for name in ("rate", "signed", "ternary"):
        assert layers[name].active == pytest.approx((inputs[name] != 0).mean(), rel=1e-6)
    assert layers["train"].active == pytest.approx(inputs["train"].any(0).mean(), rel=1e-6) == layers["rate"].active
    assert layers["train"].rate < layers["train"].active < T * layers["train"].rate
