"""Streaming against the same network stepped by hand in float64."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdit_jax.analysis.operations import trace
from sdit_jax.layers.convolution import Convolution
from sdit_jax.layers.linear import Linear
from sdit_jax.layers.spiking import Spiking, firing_rates
from sdit_jax.layers.streaming import streamed

X = np.random.default_rng(0).normal(0, 2, (5, 12)).astype(np.float32)
BLOCKS, C = 3, 8


class Block(nn.Module):
    """x + W LIF(x)."""

    @nn.compact
    def __call__(self, x_BC, membranes):
        spikes, v = Spiking(reset="soft", name="neurons").step(x_BC, membranes.get("neurons"))
        return x_BC + Linear(C, name="linear")(spikes), {"neurons": v}


class Net(nn.Module):
    """Outside of the steps a Linear; inside neurons, a stack of blocks and a Linear."""

    steps: int
    unroll: int = 1

    @nn.compact
    def __call__(self, x_BC):
        current = Linear(C, name="enter")(x_BC)

        def step(network, membranes):
            spikes, v = Spiking(tau=3.0, name="neurons").step(current, membranes.get("neurons"))
            collections = {"params": 0, "spikes": 0, "raster": 0}
            stack = nn.scan(Block, variable_axes=collections, split_rngs={"params": True}, in_axes=0, length=BLOCKS)
            y, inside = stack(name="blocks")(current + spikes, membranes.get("blocks", {}))
            return Linear(4, name="leave")(y), {"neurons": v, "blocks": inside}

        return streamed(step, self, self.steps, unroll=self.unroll)


def parameters():
    shapes = jax.eval_shape(Net(1).init, jax.random.key(0), X)["params"]
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: rng.normal(0, 1, leaf.shape).astype(np.float32), shapes)


def lif(v, x, tau=2.0, soft=False):
    h = v + (x - v) / tau
    s = (h >= 1).astype(float)
    return s, h - s if soft else h * (1 - s)


def by_hand(params, steps):
    """(mean output, firing rate of each layer)."""
    params = jax.tree.map(np.float64, params)
    linear = lambda name, x: x @ params[name]["kernel"] + params[name]["bias"]
    v, inside, outputs, spikes = np.zeros((5, C)), np.zeros((BLOCKS, 5, C)), [], {}
    for _ in range(steps):
        s, v = lif(v, linear("enter", X), tau=3.0)
        spikes.setdefault("neurons", []).append(s)
        y = linear("enter", X) + s
        for i in range(BLOCKS):
            s, inside[i] = lif(inside[i], y, soft=True)
            spikes.setdefault(f"blocks.{i}.neurons", []).append(s)
            block = params["blocks"]["linear"]
            y = y + s @ block["kernel"][i] + block["bias"][i]
        outputs.append(linear("leave", y))
    return np.mean(outputs, 0), {layer: np.mean(each) for layer, each in spikes.items()}


@pytest.mark.parametrize("steps, unroll", [(1, 1), (4, 1), (5, 5)])
def test_membranes_are_carried_from_step_to_step(steps, unroll):
    """Outputs and firing rates, those of stacked blocks too; and one step after another differs from steps from rest."""
    params = parameters()
    found, sown = jax.jit(lambda: Net(steps, unroll).apply({"params": params}, X, mutable=["spikes"]))()
    expected, rates = by_hand(params, steps)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert firing_rates(sown["spikes"]) == {f"firing_rate/{layer}": pytest.approx(rates[layer], abs=1e-6) for layer in rates}
    if steps > 1:
        assert all(0.05 < rate < 0.95 for rate in rates.values())
        assert np.abs(expected - by_hand(params, 1)[0]).max() > 0.1


def test_gradients_are_those_of_the_steps_written_out():
    """Through membranes, stacked ones too: against a network that calls its layers once per step, without a scan."""

    class WrittenOut(nn.Module):
        @nn.compact
        def __call__(self, x_BC):
            current, v, inside, outputs = Linear(C, name="enter")(x_BC), None, [None] * BLOCKS, []
            neurons, leave = Spiking(tau=3.0, name="neurons"), Linear(4, name="leave")
            kernel = self.param("kernel", nn.initializers.zeros, (BLOCKS, C, C))
            bias = self.param("bias", nn.initializers.zeros, (BLOCKS, C))
            for _ in range(3):
                spikes, v = neurons.step(current, v)
                y = current + spikes
                for i in range(BLOCKS):
                    spikes, inside[i] = Spiking(reset="soft").step(y, inside[i])
                    y += spikes @ kernel[i] + bias[i]
                outputs.append(leave(y))
            return sum(outputs) / 3

    params = parameters()
    linear = params["blocks"]["linear"]
    flat = {name: params[name] for name in ("enter", "leave")} | linear
    value = lambda net: lambda params: (net.apply({"params": params}, X) * jnp.sin(jnp.arange(4.0))).sum()
    found, grads = jax.jit(jax.value_and_grad(value(Net(3))))(params)
    expected, flat_grads = jax.jit(jax.value_and_grad(value(WrittenOut())))(flat)
    assert float(found) == pytest.approx(float(expected), abs=1e-4)
    grads = {name: grads[name] for name in ("enter", "leave")} | grads["blocks"]["linear"]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), grads, flat_grads)


def test_the_raster_has_the_steps_in_front():
    params = parameters()
    _, sown = jax.jit(lambda: Net(4).apply({"params": params}, X[:, None], mutable=["raster"]))()
    (spikes,) = sown["raster"]["neurons"]["spikes_by_step"]
    (stacked,) = sown["raster"]["blocks"]["neurons"]["spikes_by_step"]
    rates = by_hand(params, 4)[1]
    assert spikes.shape == (4, 5, 1, C) and float(spikes.mean()) == pytest.approx(rates["neurons"])
    for i in range(BLOCKS):
        assert float(stacked[:, i].mean()) == pytest.approx(rates[f"blocks.{i}.neurons"])


@pytest.mark.parametrize(
    "fields", [{}, {"normalized_currents": True, "learned_threshold": True, "learned_decay": True, "reset": "soft"}]
)
def test_a_step_of_neurons_is_one_of_all_steps_at_once(fields):
    neurons = Spiking(**fields)
    currents = np.random.default_rng(2).normal(1, 2, (4, 2, 3, 6)).astype(np.float32)
    params = neurons.init(jax.random.key(0), currents[0]).get("params", {})
    params = {"params": jax.tree.map(lambda leaf: leaf + 0.3 * jnp.cos(jnp.arange(leaf.size)), params)}
    at_once = neurons.apply(params, currents, stepped=True)
    v = None
    for current, expected in zip(currents, at_once, strict=True):
        spikes, v = neurons.apply(params, current, v, method="step")
        np.testing.assert_array_equal(spikes, expected)
    assert 0.1 < at_once.mean() < 0.9


def test_neurons_that_do_not_spike_have_no_membrane():
    out, v = Spiking(neuron="identity").apply({}, X, method="step")
    assert out is X or jnp.array_equal(out, X)
    assert v is None


class Counter(nn.Module):
    """Perfect integrators that start at `rest`: how many steps until one of constant current 0.3 spikes?"""

    rest: float

    @nn.compact
    def __call__(self, x):
        def step(network, membranes):
            v = membranes.get("v", jnp.full_like(x, self.rest)) + x
            spikes = (v >= 1).astype(x.dtype)
            return spikes, {"v": v - spikes}

        return streamed(step, self, steps=4, rest=self.rest)


@pytest.mark.parametrize("rest, spikes", [(0.0, 1), (0.5, 1), (0.9, 2)])
def test_membranes_start_at_rest(rest, spikes):
    """v = rest + 0.3 t crosses 1 and 2 as often as floor(rest + 1.2)."""
    assert float(Counter(rest).apply({}, jnp.float32(0.3))) == spikes / 4 == np.floor(rest + 1.2) / 4


class Convolutional(nn.Module):
    """Everything in the step."""

    steps: int

    @nn.compact
    def __call__(self, x):
        def step(network, membranes):
            spikes, v = Spiking(name="neurons").step(Convolution(6, name="enter")(x), membranes.get("neurons"))
            return Convolution(2, stride=2, name="leave")(spikes), {"neurons": v}

        return streamed(step, self, self.steps)


def test_operations_are_t_times_those_of_a_step():
    x = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
    variables = jax.eval_shape(Convolutional(1).init, jax.random.key(0), x)
    one, five = (trace(Convolutional(steps).apply, {"params": variables["params"]}, x) for steps in (1, 5))
    macs = {"enter": 8 * 8 * 9 * 3 * 6, "leave": 4 * 4 * 9 * 6 * 2}
    assert {each.layer: each.macs for each in one.operations if each.is_product} == macs
    assert {each.layer: each.macs for each in five.operations if each.is_product} == {name: 5 * macs[name] for name in macs}
    assert [(each.layer, each.updates) for each in five.operations if each.updates] == [("neurons", 5 * 8 * 8 * 6)]
