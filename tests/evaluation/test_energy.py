"""Energy by hand for a network of known spikes, and multiply-accumulates against those of the traced program."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdit_jax.evaluation.energy import count_macs, measure_energy
from sdit_jax.layers.spiking import Spiking
from sdit_jax.models import build
from sdit_jax.models.presets import PRESETS, preset

SMALL = {"image_size": 8, "patch_size": 4, "width": 8, "depth": 4, "normalized_currents": True}


def inputs(model, B=1):
    x = jnp.sin(jnp.arange(B * model.image_size**2 * model.channels, dtype=jnp.float32))
    return x.reshape(B, model.image_size, model.image_size, model.channels), jnp.full(B, 7), jnp.arange(B) % 10


def wkv_macs(model):
    tokens = (model.image_size // model.patch_size) ** 2 + 1
    tokens *= 2 if model.reconstruction else 1  # Reconstruction tokens double the sequence.
    return 3 * tokens * model.width * (model.depth + 1)


@pytest.mark.parametrize(
    "config", [*PRESETS, SMALL | {"remat": "blocks"}, SMALL | {"skips": False, "bidirectional": True, "token_shift": "2d"}]
)
def test_multiply_accumulates_are_those_of_the_traced_program(config, program_macs):
    model = build(preset(config) if isinstance(config, str) else config)
    x, t, y = inputs(model)
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), x, t, y))
    traced = jax.make_jaxpr(lambda params: model.apply(params, x, t, y))(params)
    found = count_macs(model, x, t, y)
    averages = [macs for name, macs in found.items() if name.endswith("time_mix.wkv")]
    assert len(averages) == model.depth + 1
    assert sum(averages) == wkv_macs(model) * (5 if model.bidirectional else 3) / 3
    assert sum(found.values()) - sum(averages) == program_macs(traced.jaxpr)


@pytest.mark.parametrize("name, macs, mJ", [("sdit_mnist", 4.0471e9, 18.6), ("sdit_cifar10", 12.8648e9, 59.2)])
def test_the_release_costs_what_the_paper_page_says(name, macs, mJ):
    model = build(preset(name))
    total = sum(count_macs(model, *inputs(model)).values())
    assert total == pytest.approx(macs, abs=5e4) and 4.6e-9 * total == pytest.approx(mJ, abs=0.05)


@pytest.fixture(scope="module")
def started():
    """(model, energy at t = 0) of the small network, whose neurons fire but for the middle block's."""
    model = build(SMALL | {"depth": 2})
    x, t, y = inputs(model, 3)
    params = jax.jit(model.init)(jax.random.key(0, impl="rbg"), x, t, y)["params"]
    for neurons in ("time_neurons", "channel_neurons"):
        params["mid_block"][neurons]["norm"]["bias"] -= 100
    return model, measure_energy(model, params, x, 0 * t, y)


def test_no_layer_of_the_release_is_spike_driven_and_the_result_says_so(started):
    """At t = 0 too, where the sinusoid is 0s and 1s, and behind silent neurons, where reconstruction tokens are still ones."""
    model, energy = started
    assert energy.spike_driven == () and energy.spike_driven_fraction == 0 and energy.acs == 0
    counts = count_macs(model, *inputs(model))
    assert {layer.name: layer.macs for layer in energy.layers} == counts
    assert energy.macs == energy.twin_macs == sum(counts.values())
    assert energy.pJ == pytest.approx(4.6 * energy.macs) and energy.pJ == pytest.approx(energy.twin_pJ)
    assert energy.summary.startswith(f"No layer is spike-driven: all {len(counts)} multiply real-valued inputs")
    assert energy.neuron_updates == 3 * 2 * 4 * 10 * 8  # Blocks, layers of neurons each, T, tokens, width.
    assert len(energy.left_out) == 5


def test_a_network_without_neurons_costs_what_the_twin_does(started):
    model = build(SMALL | {"depth": 2, "neuron": "gelu"})
    x, t, y = inputs(model, 3)
    params = jax.jit(model.init)(jax.random.key(0, impl="rbg"), x, t, y)["params"]
    energy = measure_energy(model, params, x, 0 * t, y)
    assert energy.neuron_updates == 0 and energy.spike_driven == ()
    assert energy.macs == energy.twin_macs == started[1].twin_macs


def test_memory_traffic_is_that_of_every_number_once(started):
    layers = {layer.name: layer for layer in started[1].layers}
    patches, mix = layers["patch_embed"], layers["in_blocks.0.channel_mix.key"]
    assert patches.dram_pJ == 640 * (48 * 8 + 8) and patches.sram_pJ == 5 * (4 * 48 + 4 * 8)
    assert mix.dram_pJ == 640 * 8 * 32 and mix.sram_pJ == 5 * 10 * (8 + 32)
    memory = started[1].to_dict()["memory"]
    assert memory["dram_pJ"] == sum(layer.dram_pJ for layer in layers.values())
    assert memory["sram_pJ"] == sum(layer.sram_pJ for layer in layers.values())


class Gate(nn.Module):
    """A layer with weights of a kind that is not known."""

    @nn.compact
    def __call__(self, x):
        return x @ self.param("kernel", nn.initializers.ones, (x.shape[-1], 2))


class SpikeDriven(nn.Module):
    """T carried through: real-valued encoder, then a neuron before every weight."""

    timesteps: int = 4
    silent: bool = False

    @nn.compact
    def __call__(self, x_BHWC, t_B, y_B):
        del t_B, y_B
        currents_TBHWC = jnp.broadcast_to(x_BHWC, (self.timesteps, *x_BHWC.shape)) - 10 * self.silent
        spikes = Spiking(name="first").fire(currents_TBHWC)
        spikes = Spiking(name="second").fire(2 * nn.Conv(5, (3, 3), name="convolve")(spikes))
        out_TBHWC = nn.Dense(7, name="output")(spikes)
        return Gate(name="gate")(nn.Dense(3, name="readout")(out_TBHWC.mean(0)))


def test_a_spike_driven_network_costs_its_spikes():
    B, T, H, C = 6, 4, 4, 2
    x = jnp.asarray(np.random.default_rng(0).normal(1, 1, (B, H, H, C)), jnp.float32)
    model = SpikeDriven()
    params = model.init(jax.random.key(1), x, None, None)["params"]
    energy = measure_energy(model, params, x, jnp.zeros(B), None)
    layers = {layer.name: layer for layer in energy.layers}
    assert set(layers) == {"convolve", "output", "readout"} and energy.spike_driven == ("convolve", "output")

    v, fired = np.zeros(x.shape), np.zeros(x.shape)
    for _ in range(T):
        h = (v + np.asarray(x, np.float64)) / 2
        fired, v = fired + (h >= 1), h * (h < 1)
    first, second, readout = (layers[name] for name in ("convolve", "output", "readout"))
    assert first.rate is not None and second.rate is not None and readout.rate is None
    assert first.rate == pytest.approx(fired.mean() / T, abs=1e-6) and 0.05 < first.rate < 0.95
    assert first.macs == T * H * H * 9 * C * 5
    assert first.acs == pytest.approx(fired.mean() * H * H * 9 * C * 5) and first.pJ == pytest.approx(0.9 * first.acs)
    assert first.sram_pJ == pytest.approx(5 * (T * H * H * C / 32 + T * H * H * 5))

    assert 0 < second.rate < 1 and second.macs == T * H * H * 5 * 7
    assert not readout.binary and readout.macs == H * H * 7 * 3
    assert energy.pJ == pytest.approx(0.9 * (first.rate * first.macs + second.rate * second.macs) + 4.6 * readout.macs)
    assert energy.macs == readout.macs
    assert energy.spike_driven_fraction == pytest.approx(1 - readout.macs / (first.macs + second.macs + readout.macs))
    assert energy.twin_macs == first.macs / T + second.macs / T + readout.macs
    assert energy.neuron_updates == T * H * H * (C + 5)
    assert "2 of 3 layers are spike-driven" in energy.summary
    assert energy.left_out[-1] == "gate: a layer not known here"


def test_a_layer_that_saw_no_spikes_is_not_called_spike_driven():
    x = jnp.ones((2, 4, 4, 2))
    model = SpikeDriven(silent=True)
    energy = measure_energy(model, model.init(jax.random.key(1), x, None, None)["params"], x, jnp.zeros(2), None)
    assert "convolve" not in energy.spike_driven


def test_totals_of_an_image_count_two_passes_under_guidance(started):
    energy = started[1]
    for guidance, passes in ((1, 50), (0, 50), (2.0, 100), (0.5, 100)):
        totals = energy.per_image(50, guidance)
        assert totals["forward_passes"] == passes
        assert totals["pJ"] == passes * energy.pJ and totals["neuron_updates"] == passes * energy.neuron_updates


def test_the_result_is_plain_json(started):
    energy = started[1]
    read = json.loads(json.dumps(energy.to_dict()))
    assert read == energy.to_dict()
    assert sum(layer["pJ"] for layer in read["layers"]) == pytest.approx(read["per_forward"]["pJ"]) == read["twin"]["pJ"]
