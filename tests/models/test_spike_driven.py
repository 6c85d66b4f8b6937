"""The spike-driven network against its equations in float64 numpy, and its ways to run against each other."""

import jax
import numpy as np
import pytest

from sdit_jax.errors import InputError
from sdit_jax.layers.spiking import by_layer
from sdit_jax.models import build, initial_variables

SMALL = {"name": "spike_driven", "image_size": 8, "patch_size": 4, "width": 8, "depth": 2, "num_classes": 3}
MARGIN = 1e-4  # The network's rounding is a few 1e-6.
x_BHWC = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype(np.float32)
t_B, y_B = np.array([3, 700]), np.array([1, 3])


def variables(grid=None, **changes):
    """Random weights, of a size at which all layers fire; on a `grid` the matrices are multiples of it."""
    found = jax.jit(lambda: initial_variables(build(SMALL | changes), 0))()
    rng = np.random.default_rng(41)  # No membrane comes within MARGIN of a threshold, so that rounding flips no spike.

    def moved(path, leaf):
        moved = np.asarray(leaf) + rng.normal(0, 0.2, leaf.shape).astype(np.float32)
        matrix = "linear" in jax.tree_util.keystr(path)
        return np.round(moved / grid) * grid if grid and matrix else moved

    return jax.tree_util.tree_map_with_path(moved, found)


def run(weights, collections=("spikes", "raster"), **changes):
    model = build(SMALL | changes)
    return jax.jit(lambda w: model.apply(w, x_BHWC, t_B, y_B, mutable=list(collections)))(weights)


# The equations of models/spike_driven.py, for one pass; `fire(name, currents)` gives spikes.


def norm(x):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def shift(z, side):
    """Each quarter of the channels from the left, right, upper and lower neighbour on the image; none for the first token."""
    grid, moved = z[:, 1:].reshape(len(z), side, side, -1), np.zeros_like(z[:, 1:].reshape(len(z), side, side, -1))
    quarters = np.array_split(np.arange(z.shape[-1]), 4)
    moved[:, :, 1:, quarters[0]] = grid[:, :, :-1, quarters[0]]
    moved[:, :, :-1, quarters[1]] = grid[:, :, 1:, quarters[1]]
    moved[:, 1:, :, quarters[2]] = grid[:, :-1, :, quarters[2]]
    moved[:, :-1, :, quarters[3]] = grid[:, 1:, :, quarters[3]]
    return np.concatenate([np.zeros_like(z[:, :1]), moved.reshape(len(z), side**2, -1)], 1)


def wkv(decay, bonus, k, v):
    """Bidirectional: exp(-(|i - j| - 1) w) weights of all others, exp(u) of the token itself."""
    L = k.shape[1]
    distance = np.abs(np.arange(L)[:, None] - np.arange(L))[..., None]
    weight = np.where(distance > 0, np.exp(-(distance - 1) * decay), np.exp(bonus)) * np.exp(k)[:, None]
    return (weight * v[:, None]).sum(2) / weight.sum(2)


def network(weights, fire, squared_relu=False, amplitude=10.0):
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), weights["params"])
    dense = lambda p, x: x @ p["kernel"] + p.get("bias", 0)
    silu = lambda x: x * sigmoid(x)
    frequencies = np.exp(-np.log(10_000) * np.arange(128) / 128)
    angles = t_B[:, None] * frequencies
    time = dense(p["time_embed"]["hidden"], np.concatenate([np.cos(angles), np.sin(angles)], -1))
    cond = dense(p["time_embed"]["output"], silu(time)) + p["label_embed"]["table"][y_B]
    patches = x_BHWC.astype(np.float64).reshape(2, 2, 4, 2, 4).swapaxes(2, 3).reshape(2, 4, 16)
    x = dense(p["patch_embed"], patches) + cond[:, None]
    x = np.concatenate([cond[:, None], x], 1) + p["position"]

    def linear(p, name, z):
        return amplitude * dense(p["linear"], fire(name, p["gain"] * z + p["current_bias"]))

    def mixed(mu, z):
        return mu * z + (1 - mu) * shift(z, 2)

    def block(p, name, x, skip=None):
        if skip is not None:
            x = x + linear(p["skip"], f"{name}.skip", norm(skip))
        scale_1, shift_1, scale_2, shift_2 = np.split(dense(p["modulation"], silu(cond))[:, None], 4, -1)
        z, m = norm(x) * (1 + scale_1) + shift_1, p["time_mix"]
        k, v, r = (
            linear(m[each], f"{name}.time_mix.{each}", mixed(m[mu], z))
            for each, mu in (("key", "mu_k"), ("value", "mu_v"), ("receptance", "mu_r"))
        )
        y = sigmoid(r) * wkv(np.exp(m["time_decay"]), m["time_first"], k, v)
        x = x + linear(m["output"], f"{name}.time_mix.output", norm(y))
        z, m = norm(x) * (1 + scale_2) + shift_2, p["channel_mix"]
        h = linear(m["key"], f"{name}.channel_mix.key", mixed(m["mu_k"], z))
        h = np.maximum(h, 0) ** 2 if squared_relu else h
        return x + linear(m["value"], f"{name}.channel_mix.value", norm(h))

    first = lambda stack: jax.tree.map(lambda leaf: leaf[0], stack)
    x = skip = block(first(p["in_blocks"]), "in_blocks.0", x)
    x = block(p["mid_block"], "mid_block", x)
    x = block(first(p["out_blocks"]), "out_blocks.0", x, skip)
    x = linear(p["head"], "head", norm(x))[:, 1:]
    image = np.pad(x.reshape(2, 2, 2, 4, 4).swapaxes(2, 3).reshape(2, 8, 8), ((0, 0), (1, 1), (1, 1)))
    kernel = p["smooth"]["kernel"][..., 0, 0]
    windows = np.lib.stride_tricks.sliding_window_view(image, (3, 3), (1, 2))
    return (windows * kernel).sum((-2, -1))[..., None] + p["smooth"]["bias"]


def at_once(steps, signed, rates):
    count = lambda c: np.clip(np.floor(steps * c + 0.5), 0, steps) / steps

    def fire(name, c):
        levels = steps * (np.abs(c) if signed else c) + 0.5
        assert np.abs(levels - np.clip(np.round(levels), 1, steps)).min() > MARGIN
        spikes = count(c) - count(-c) if signed else count(c)
        rates[name] = abs(spikes).mean()
        return spikes

    return fire


def stepwise(membranes, rates, leak=0.0):
    """Integrate-and-fire by one step, from membranes of 1/2."""

    def fire(name, c):
        v = membranes.get(name, np.full(c.shape, 0.5))
        h = v - leak * v + c
        assert np.abs(h - 1).min() > MARGIN
        membranes[name] = h - (h >= 1)
        rates.setdefault(name, []).append((h >= 1).mean())
        return (h >= 1).astype(float)

    return fire


@pytest.mark.parametrize(("steps", "signed"), [(4, False), (3, True)])
def test_the_network_computes_its_equations(steps, signed):
    weights, rates = variables(), {}
    found, sown = run(weights, spiking_steps=steps, signed=signed)
    np.testing.assert_allclose(found, network(weights, at_once(steps, signed, rates), squared_relu=signed), atol=2e-4)
    measured = by_layer(sown["spikes"], "firing_rate")
    assert {name.removesuffix(".0") if name.startswith("head") else name for name in measured} == set(rates)
    for name, rate in rates.items():
        assert float(measured[name]) == pytest.approx(rate, abs=1e-6)


def test_the_baseline_passes_currents_on_and_has_the_squared_rectifier_back():
    weights = variables()
    found = jax.jit(build(SMALL).baseline().apply)(weights, x_BHWC, t_B, y_B)
    np.testing.assert_allclose(found, network(weights, lambda name, c: c, squared_relu=True), atol=2e-3, rtol=1e-4)


@pytest.mark.parametrize("neuron", ["if", "lif"])
def test_streaming_carries_membranes_from_step_to_step(neuron):
    weights, membranes, rates = variables(), {}, {}
    found, sown = run(weights, timing="streaming", neuron=neuron, spiking_steps=3)
    fire = stepwise(membranes, rates, leak=0.5 if neuron == "lif" else 0.0)
    np.testing.assert_allclose(found, sum(network(weights, fire) for _ in range(3)) / 3, atol=2e-4)
    for name, rate in by_layer(sown["spikes"], "firing_rate").items():
        assert float(rate) == pytest.approx(np.mean(rates[name]), abs=1e-6)


@pytest.mark.parametrize(("steps", "signed", "grid"), [(4, False, 2**-6), (3, True, None)])
def test_counts_and_steps_agree(steps, signed, grid):
    """To the bit where matrices lie on a grid and T is a power of two, so that sums are exact; else to rounding."""
    weights, fields = variables(grid), {"spiking_steps": steps, "signed": signed}
    fields |= {"amplitude": 2.0} if grid else {}
    (counted, spikes), (stepped, others) = (run(weights, spiking=way, **fields) for way in ("rate", "steps"))
    jax.tree.map(np.testing.assert_array_equal, spikes["raster"], others["raster"])
    np.testing.assert_allclose(counted, stepped, atol=0 if grid else 1e-5)


def test_a_leak_needs_streaming():
    with pytest.raises(InputError, match=r"config\.model\.neuron: found 'lif', which needs config\.model\.timing 'streaming'"):
        build(SMALL | {"neuron": "lif"})
