"""Energy against sums by hand for networks of known spikes."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdit_jax.analysis import operations
from sdit_jax.analysis.energy import measure_energy
from sdit_jax.layers.spiking import Spiking
from sdit_jax.models import build, preset

SMALL = {"image_size": 8, "patch_size": 4, "width": 8, "depth": 2, "normalized_currents": True}


def inputs(model, B):
    x = jnp.sin(jnp.arange(B * model.image_size**2 * model.channels, dtype=jnp.float32))
    return x.reshape(B, model.image_size, model.image_size, model.channels), jnp.full(B, 7), jnp.arange(B) % 10


@pytest.mark.parametrize("name, macs, mJ", [("sdit_mnist", 4.0471e9, 18.6), ("sdit_cifar10", 12.8648e9, 59.2)])
def test_the_release_costs_what_the_paper_page_says(name, macs, mJ):
    total = operations.forward(build(preset(name))).macs
    assert total == pytest.approx(macs, abs=5e4) and 4.6e-9 * total == pytest.approx(mJ, abs=0.05)


@pytest.fixture(scope="module")
def started():
    """(model, energy at t = 0) of the small network, all of whose neurons fire except those of the middle block."""
    model = build(SMALL)
    x, t, y = inputs(model, 3)
    variables = jax.jit(model.init)(jax.random.key(0, impl="rbg"), x, t, y)
    for neurons in ("time_neurons", "channel_neurons"):
        variables["params"]["mid_block"][neurons]["norm"]["bias"] -= 100
    return model, measure_energy(model, {"params": variables["params"]}, x, 0 * t, y)


@pytest.mark.slow
def test_no_layer_of_the_release_is_spike_driven_and_the_result_says_so(started):
    """At t = 0 too, where the sinusoid is 0s and 1s, and behind silent neurons, where reconstruction tokens are still ones."""
    model, energy = started
    assert energy.spike_driven == () and energy.spike_driven_fraction == 0 and energy.acs == 0
    assert energy.macs == energy.baseline_macs == operations.forward(model).macs
    assert energy.pJ == pytest.approx(4.6 * energy.macs) and energy.pJ == pytest.approx(energy.baseline_pJ)
    assert energy.summary.startswith(f"No layer is spike-driven: all {len(energy.layers)} multiply real-valued inputs")
    assert energy.neuron_updates == 3 * 2 * 4 * 10 * 8  # Blocks, layers of neurons each, T, tokens, width.
    assert len(energy.left_out) == 5


def test_the_layers_are_the_modules_with_weights_and_wkv(started):
    names = [layer.name for layer in started[1].layers]
    assert len(set(names)) == len(names) == 3 + 2 + 3 * (4 + 1 + 3 + 2) + 1  # In and out, in each block, and one skip.
    first = ["time_embed.hidden", "time_embed.output", "patch_embed", "in_blocks.0.time_mix.key", "in_blocks.0.time_mix.value"]
    assert names[:5] == first and names[-2:] == ["head", "smooth"]
    assert {"mid_block.time_mix.wkv", "in_blocks.0.reconstruction.over_tokens", "out_blocks.0.skip"} < set(names)
    assert next(layer.macs for layer in started[1].layers if layer.name == "mid_block.time_mix.wkv") == 3 * 10 * 8


@pytest.mark.slow
def test_a_network_without_neurons_costs_what_the_baseline_does(started):
    model = build(SMALL | {"neuron": "gelu"})
    x, t, y = inputs(model, 3)
    energy = measure_energy(model, jax.jit(model.init)(jax.random.key(0, impl="rbg"), x, t, y), x, 0 * t, y)
    assert energy.neuron_updates == 0 and energy.spike_driven == ()
    assert energy.macs == energy.baseline_macs == started[1].baseline_macs


def test_memory_traffic_is_that_of_every_number_once(started):
    layers = {layer.name: layer for layer in started[1].layers}
    patches, mix, wkv = (layers[name] for name in ("patch_embed", "in_blocks.0.channel_mix.key", "in_blocks.0.time_mix.wkv"))
    assert patches.dram_pJ == 640 * (48 * 8 + 8) and patches.sram_pJ == 5 * (4 * 48 + 4 * 8)
    assert mix.dram_pJ == 640 * 8 * 32 and mix.sram_pJ == 5 * 10 * (8 + 32)
    assert wkv.dram_pJ == 640 * 2 * 8 and wkv.sram_pJ == 5 * 3 * 10 * 8
    memory = started[1].to_dict()["memory"]
    assert memory["dram_pJ"] == sum(layer.dram_pJ for layer in layers.values())
    assert memory["sram_pJ"] == sum(layer.sram_pJ for layer in layers.values())


class Small(nn.Module):
    """What a Network has besides its layers."""

    spiking_steps: int = 4
    image_size: int = 4
    channels: int = 2
    num_classes: int = 0

    def baseline(self):
        return self.clone(spiking_steps=1)

    def energy(self, x_BHWC):
        """With random weights."""
        t_B = jnp.zeros(len(x_BHWC))
        return measure_energy(self, self.init(jax.random.key(1), x_BHWC, t_B, None), x_BHWC, t_B, None)


class Gate(nn.Module):
    """A product that is no Dense layer."""

    @nn.compact
    def __call__(self, x):
        return x @ self.param("kernel", nn.initializers.ones, (x.shape[-1], 2))


class SpikeDriven(Small):
    """T spiking steps through the trunk: a real-valued encoder, then neurons before every matrix but the last."""

    silent: bool = False

    @nn.compact
    def __call__(self, x_BHWC, t_B, y_B):
        currents_TBHWC = jnp.broadcast_to(x_BHWC, (self.spiking_steps, *x_BHWC.shape)) - 10 * self.silent
        spikes = Spiking(name="first").fire(currents_TBHWC)
        spikes = Spiking(name="second").fire(2 * nn.Conv(5, (3, 3), name="convolve")(spikes))
        out_TBHWC = nn.Dense(7, name="output")(spikes)
        return Gate(name="gate")(nn.Dense(3, name="readout")(out_TBHWC.mean(0)))


B, T, H, C = 6, 4, 4, 2


@pytest.fixture(scope="module")
def images():
    return jnp.asarray(np.random.default_rng(0).normal(1, 1, (B, H, H, C)), jnp.float32)


def fired_by_hand(x_BHWC):
    """Spikes (T, ...) of LIF neurons at a constant current."""
    v, spikes = np.zeros(x_BHWC.shape), []
    for _ in range(T):
        h = (v + np.asarray(x_BHWC, np.float64)) / 2
        spikes.append(h >= 1)
        v = h * (h < 1)
    return np.stack(spikes)


def test_a_spike_driven_network_costs_its_spikes(images):
    energy = SpikeDriven().energy(images)
    layers = {layer.name: layer for layer in energy.layers}
    assert list(layers) == ["convolve", "output", "readout", "gate"] and energy.spike_driven == ("convolve", "output")
    first, second, readout, gate = layers.values()
    assert first.rate == pytest.approx(fired_by_hand(images).mean(), abs=1e-6) and 0.05 < first.rate < 0.95
    assert first.macs == T * H * H * 9 * C * 5
    assert first.acs == pytest.approx(fired_by_hand(images).sum(0).mean() * H * H * 9 * C * 5)
    assert first.pJ == pytest.approx(0.9 * first.acs) and first.weights == 9 * C * 5 + 5
    assert first.sram_pJ == pytest.approx(5 * (T * H * H * C / 32 + T * H * H * 5))

    assert 0 < second.rate < 1 and second.macs == T * H * H * 5 * 7
    assert readout.rate is None and readout.macs == H * H * 7 * 3
    assert gate.rate is None and gate.macs == H * H * 3 * 2 and gate.weights == 3 * 2
    real = readout.macs + gate.macs
    assert energy.pJ == pytest.approx(0.9 * (first.rate * first.macs + second.rate * second.macs) + 4.6 * real)
    assert energy.macs == real
    assert energy.spike_driven_fraction == pytest.approx(1 - real / (first.macs + second.macs + real))
    assert energy.baseline_macs == first.macs / T + second.macs / T + real
    assert energy.neuron_updates == T * H * H * (C + 5)
    assert "2 of 4 layers are spike-driven" in energy.summary


def test_a_layer_that_saw_no_spikes_is_not_called_spike_driven():
    assert "convolve" not in SpikeDriven(silent=True).energy(jnp.ones((2, H, H, C))).spike_driven


class Stepped(Small):
    """The same trunk at each spiking step, by a scan, with a neuron in front whose membrane is carried."""

    @nn.compact
    def __call__(self, x_BHWC, t_B, y_B):
        kernel = self.param("kernel", nn.initializers.normal(), (C, 5))

        def step(v_BHWC, _):
            h = (v_BHWC + x_BHWC) / 2
            spikes = (h >= 1).astype(jnp.float32)
            return h * (1 - spikes), spikes @ kernel

        return jax.lax.scan(step, jnp.zeros_like(x_BHWC), None, self.spiking_steps)[1].mean(0)


def test_rates_of_a_trunk_that_is_scanned_over_spiking_steps_are_means_over_the_steps(images):
    (layer,) = Stepped().energy(images).layers
    assert layer.rate == pytest.approx(fired_by_hand(images).mean(), abs=1e-6) and layer.macs == T * H * H * C * 5
    assert layer.inputs == layer.spikes == T * H * H * C and layer.weights == C * 5


class Attention(Small):
    """q k^T of spikes, times real-valued v."""

    @nn.compact
    def __call__(self, x_BHWC, t_B, y_B):
        q, k = (Spiking(name=name).fire(sign * x_BHWC.reshape(1, len(x_BHWC), -1, C))[0] for name, sign in (("q", 3), ("k", 2)))
        return (q @ k.swapaxes(1, 2)) @ nn.Dense(3, name="v")(x_BHWC.reshape(len(x_BHWC), -1, C))


def test_a_product_of_two_spikes_adds_where_both_fire(images):
    layers = Attention().energy(images).layers
    assert [layer.name for layer in layers] == ["network", "v", "network.1"]
    spikes, _, real = layers
    q, k = ((sign * np.asarray(images).reshape(B, H * H, C) / 2 >= 1).astype(float) for sign in (3, 2))
    assert spikes.macs == (H * H) ** 2 * C and spikes.acs == pytest.approx(np.einsum("bqc,bkc->", q, k) / B, rel=1e-5)
    assert spikes.inputs == spikes.spikes == 2 * H * H * C and spikes.weights == 0
    assert real.rate is None and real.macs == (H * H) ** 2 * 3 and real.spikes == 0


def test_totals_of_an_image_are_those_of_its_network_calls(started):
    energy = started[1]
    totals = energy.per_image(100)
    assert totals["forward_passes"] == 100 and totals["twin_pJ"] == 100 * energy.baseline_pJ
    assert totals["pJ"] == 100 * energy.pJ and totals["neuron_updates"] == 100 * energy.neuron_updates


def test_the_result_is_plain_json(started):
    energy = started[1]
    read = json.loads(json.dumps(energy.to_dict()))
    assert read == energy.to_dict()
    assert sum(layer["pJ"] for layer in read["layers"]) == pytest.approx(read["per_forward"]["pJ"]) == read["twin"]["pJ"]
