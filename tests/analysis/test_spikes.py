"""The probe against the same quantities computed one timestep and one layer at a time."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdit_jax.analysis.spikes import denoising, probe
from sdit_jax.diffusion.objective import Objective
from sdit_jax.diffusion.schedule import cosine, linear
from sdit_jax.errors import InputError
from sdit_jax.layers.spiking import Spiking, firing_rates
from sdit_jax.layers.streaming import streamed
from sdit_jax.models import build
from sdit_jax.sampling.generate import generate, make_sampler
from sdit_jax.sampling.how import Sampling

SMALL = {"image_size": 8, "patch_size": 4, "channels": 1, "width": 8, "depth": 2, "normalized_currents": True}
SCHEDULE = linear(1000)
TIMESTEPS = (999, 0, 400)
N = 3


@pytest.fixture(scope="module")
def tiny():
    """(model, variables, images, labels) of a network whose neurons fire and whose output depends on its input."""
    model = build(SMALL)
    start = jax.jit(model.init)(jax.random.key(0, impl="rbg"), jnp.zeros((1, 8, 8, 1)), jnp.zeros(1), jnp.zeros(1, int))
    params = jax.tree.map(lambda leaf: leaf + 0.1 * jnp.sin(jnp.arange(leaf.size)).reshape(leaf.shape), start["params"])
    return model, {"params": params}, np.random.default_rng(0).integers(0, 256, (N, 8, 8, 1), np.uint8), np.array([1, 4, 2])


def ask(tiny, timesteps=TIMESTEPS, n=N, seed=3, **options):
    model, variables, pictures, labels = tiny
    return probe(model, Objective(SCHEDULE), variables, pictures[:n], labels[:n], timesteps=timesteps, seed=seed, **options)


@pytest.fixture(scope="module")
def probed(tiny):
    return ask(tiny)


def noised(pictures, t, seed=3):
    """Clean image, noise and noised image, with the draws that the docstring promises."""
    keys = [jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), t), n) for n in range(len(pictures))]
    noise = np.stack([jax.random.normal(key, pictures.shape[1:]) for key in keys])
    x_0, bar = pictures / 127.5 - 1, np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[t]
    return x_0.astype(np.float32), noise, np.float32(np.sqrt(bar) * x_0 + np.sqrt(1 - bar) * noise)


def test_loss_and_rates_are_those_of_each_timestep_alone(tiny, probed):
    model, variables, pictures, labels = tiny
    apply = jax.jit(lambda x, t: model.apply(variables, x, t, labels, mutable=["spikes"]))
    assert probed.timesteps == TIMESTEPS and set(probed.terms) == {"mse", "vb", "loss"}
    for i, t in enumerate(TIMESTEPS):
        x_0, noise, x_t = noised(pictures, t)
        t_N = jnp.full(N, t)
        output, sown = apply(x_t, t_N)
        predicted = np.asarray(output)[..., : model.channels]
        assert probed.terms["mse"][i] == pytest.approx(np.square(noise - predicted).mean(), rel=1e-4)
        terms = Objective(SCHEDULE).losses(output, jnp.asarray(x_0), jnp.asarray(x_t), t_N, jnp.asarray(noise))
        for name, term in terms.items():
            assert probed.terms[name][i] == pytest.approx(float(term.mean()), rel=1e-4)
        rates = firing_rates(sown["spikes"])
        assert {f"firing_rate/{layer}" for layer in probed.rates} == set(rates)
        for layer, rate in probed.rates.items():
            assert rate[i] == pytest.approx(float(rates[f"firing_rate/{layer}"]), abs=1e-3)
    assert len(probed.rates) == 2 * (model.depth + 1) and all(rate.max() > 0 for rate in probed.rates.values())
    assert np.ptp(probed.terms["mse"]) > 0


def test_what_is_seen_is_a_function_of_the_seed_and_not_of_what_else_is_asked(tiny, probed):
    alone, other = ask(tiny, timesteps=[400]), ask(tiny, seed=4)
    for name, term in probed.terms.items():
        np.testing.assert_allclose(alone.terms[name], term[2:], rtol=1e-5)
        assert (other.terms[name] != term).all()


@pytest.mark.parametrize("layer", ["mid_block.time_neurons", "out_blocks.0.channel_neurons"])
def test_the_raster_holds_the_spikes_behind_the_rate_of_its_layer(tiny, layer):
    found = ask(tiny, n=1, raster_layer=layer, raster_timestep=400)
    model = tiny[0]
    assert found.raster_layer == layer and found.raster_timestep == 400
    assert found.raster_TLC is not None and found.raster_TLC.dtype == bool
    tokens = 2 * ((model.image_size // model.patch_size) ** 2 + 1)
    assert found.raster_TLC.shape == (model.spiking_steps, tokens, model.width) and 0 < found.raster_TLC.mean() < 1
    assert found.raster_TLC.mean() == pytest.approx(found.rates[layer][2], abs=1e-6)
    np.testing.assert_array_equal(found.spikes[layer], found.raster_TLC)
    assert {name: spikes.mean() for name, spikes in found.spikes.items()} == pytest.approx(
        {name: rates[2] for name, rates in found.rates.items()}, abs=1e-6
    )


def test_a_raster_keeps_the_first_channels_of_the_first_image(tiny, probed):
    found = ask(tiny, n=1, raster_channels=5).raster_TLC
    assert found is not None and found.any()
    np.testing.assert_array_equal(found, probed.raster_TLC[..., :5])
    assert probed.raster_timestep == 0 and probed.raster_layer.startswith("mid_block")


def test_a_network_without_neurons_has_losses_but_neither_rates_nor_raster(tiny):
    model, *rest = tiny
    found = ask((model.clone(neuron="identity"), *rest), timesteps=[400])
    assert found.rates == {} and found.raster_layer is None and found.raster_TLC is None and found.terms["mse"][0] > 0
    assert found.spikes == {}
    with pytest.raises(InputError, match="raster layer: found 'mid_block.time_neurons', allowed are none"):
        ask((model.clone(neuron="identity"), *rest), raster_layer="mid_block.time_neurons")


def test_the_raster_is_that_of_learned_thresholds_and_decays(tiny):
    model, variables, *images = tiny
    model = model.clone(learned_threshold=True, learned_decay=True)
    start = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 1)), jnp.zeros(1), jnp.zeros(1, int))["params"]
    known = dict(jax.tree_util.tree_leaves_with_path(variables["params"]))
    params = jax.tree_util.tree_map_with_path(lambda path, leaf: known.get(path, jnp.full(leaf.shape, -1.0)), start)
    found, plain = (ask(one, n=1, timesteps=[400]) for one in ((model, {"params": params}, *images), tiny))
    assert found.raster_layer == plain.raster_layer and found.raster_TLC is not None and plain.raster_TLC is not None
    assert found.raster_TLC.mean() == pytest.approx(found.rates[found.raster_layer][0], abs=1e-6)
    assert (found.raster_TLC != plain.raster_TLC).any()


def test_nothing_is_sown_but_rates_where_nobody_probes(tiny):
    model, variables, pictures, labels = tiny
    x = jnp.asarray(pictures, jnp.float32)
    _, sown = jax.eval_shape(lambda: model.apply(variables, x, jnp.zeros(N), labels, mutable=["spikes"]))
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(sown)]
    assert len(paths) == 6 and all(path[-2].key == "firing_rate" for path in paths)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"timesteps": [5, 1000]}, "timesteps: found 1000, need one or more of 0..999"),
        ({"timesteps": [-1]}, "timesteps: found -1"),
        ({"timesteps": []}, "timesteps: found none"),
        ({"raster_timestep": 2000}, "timesteps: found 2000"),
        ({"raster_layer": "head"}, "raster layer: found 'head', allowed are in_blocks.0.channel_neurons, "),
    ],
)
def test_what_is_not_there_is_refused(tiny, options, message):
    with pytest.raises(InputError, match=message):
        ask(tiny, **options)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_the_path_from_noise_ends_in_the_images_that_are_drawn(tiny, sampler):
    model, variables, _, _ = tiny
    labels, objective, sampling = np.array([3, 1, 4]), Objective(cosine(100)), Sampling(sampler, 10, 2.0, clip_x0=True)
    images, frames = denoising(model, objective, variables, labels, sampling, seed=5, frames=4)
    assert images.shape == (3, 8, 8, 1) and frames.shape == (4, 3, 8, 8, 1) and images.dtype == frames.dtype == np.uint8
    expected = generate(make_sampler(model, objective, sampling), variables, labels, seed=5, batch_size=3)
    np.testing.assert_allclose(images.astype(int), expected, atol=1)
    np.testing.assert_array_equal(frames[-1], images)
    assert (frames[0] != frames[1]).any() and (frames[-2] != frames[-1]).any()
    every = denoising(model, objective, variables, labels, sampling, seed=5, frames=99)[1]
    np.testing.assert_array_equal(every[[0, 3, 6, 9]], frames)


class Stepped(nn.Module):
    """Neurons that run through spiking steps, on images."""

    num_classes: int = 0

    @nn.compact
    def __call__(self, x_BHWC, t_B, y_B=None, train=False):
        spikes = Spiking(reset="soft", name="neurons")(jnp.stack([2 * x_BHWC + i for i in range(4)]), stepped=True)
        return spikes.mean(0)


def test_spikes_of_neurons_that_are_stepped_are_those_that_fired(tiny):
    _, _, pictures, labels = tiny
    found = probe(Stepped(), Objective(SCHEDULE), {"params": {}}, pictures, labels, timesteps=[400], seed=3)
    assert found.raster_layer == "neurons" and found.raster_TLC.shape == (4, 64, 1)
    x_t = noised(pictures, 400)[2]
    spikes = Spiking(reset="soft").apply({}, jnp.stack([2 * x_t + i for i in range(4)]), stepped=True)
    np.testing.assert_array_equal(found.raster_TLC, np.asarray(spikes, bool)[:, 0].reshape(4, 64, 1))
    assert found.rates["neurons"][0] == pytest.approx(float(spikes.mean()), abs=1e-3)


class Streamed(nn.Module):
    """Neurons in stacked blocks, one spiking step after the other through both."""

    num_classes: int = 0

    @nn.compact
    def __call__(self, x_BHWC, t_B, y_B=None, train=False):
        def step(module, membranes):
            def block(module, x, v):
                spikes, v = Spiking(reset="soft", name="neurons").step(x, v)
                return x, (spikes, v)

            scan = nn.scan(block, variable_axes={"params": 0, "spikes": 0, "raster": 0}, length=2)
            _, (spikes, v) = scan(module, 2 * x_BHWC, membranes.get("v"))
            return spikes.mean(0), {"v": v}

        return streamed(step, self, 4)


def test_spikes_of_a_network_that_is_streamed_have_its_steps(tiny):
    _, _, pictures, labels = tiny
    found = probe(Streamed(), Objective(SCHEDULE), {"params": {}}, pictures, labels, timesteps=[400], seed=3)
    currents = jnp.stack([2 * noised(pictures, 400)[2]] * 4)
    expected = np.asarray(Spiking(reset="soft").apply({}, currents, stepped=True))[:, 0].reshape(4, 64, 1)
    assert len(found.spikes) == 2 and expected.any() and (expected[0] != expected[1]).any()
    for spikes in found.spikes.values():
        np.testing.assert_array_equal(spikes, expected)
