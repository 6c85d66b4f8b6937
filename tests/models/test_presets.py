"""The named model configurations: sizes to the parameter, and what each promises."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import pytest

from sdit_jax.models import SDiT, build
from sdit_jax.models.presets import PRESETS, defaults, preset


def abstract(config):
    """Parameters of a configuration as shapes, without computing them."""
    model = build(config)
    x = jnp.zeros((1, model.image_size, model.image_size, model.channels))
    return jax.eval_shape(lambda: model.init(jax.random.key(0), x, jnp.zeros(1, int), jnp.zeros(1, int)))["params"]


@pytest.mark.parametrize("name, count", [("sdit_mnist", 11_667_259), ("sdit_cifar10", 36_052_047)])
def test_the_release_has_as_many_parameters_as_published(name, count):
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(abstract(preset(name)))) == count


@pytest.mark.parametrize("name", [name for name in PRESETS if name.startswith("sdit_")])
def test_presets_of_the_release_change_nothing_but_sizes(name):
    sizes = {"image_size", "channels", "patch_size", "width", "depth", "num_classes"}
    assert set(PRESETS[name]) <= sizes


def test_defaults_are_the_release_for_mnist():
    expected = {
        "image_size": 28, "channels": 3, "patch_size": 2, "width": 384, "depth": 4, "num_classes": 10, "label_dropout": 0.1,
        "timesteps": 4, "tau": 2.0, "threshold": 1.0, "reset": "hard", "detach_reset": False, "surrogate": "atan",
        "surrogate_slope": 2.0, "normalized_currents": False, "reconstruction": True, "gate_init": "random", "skips": True,
        "condition": "token", "bidirectional": False, "learned_variance": True,
    }  # fmt: skip
    assert {name: defaults()[name] for name in expected} == expected
    assert preset("sdit_mnist").to_dict() == defaults()


def test_defaults_are_all_fields_of_the_network():
    assert set(defaults()) == {field.name for field in dataclasses.fields(SDiT)} - {"parent", "name"}


def test_a_preset_takes_changes():
    config = preset("sdit_cifar10", width=64, reset="soft")
    assert (config.width, config.depth, config.reset) == (64, 8, "soft")


def test_an_unknown_preset_is_refused():
    with pytest.raises(KeyError, match="sdit_huge"):
        preset("sdit_huge")


def test_neurons_of_digits_fire_from_the_first_step_in_every_layer_and_the_rest_starts_at_identity():
    model = build(preset("digits"))
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 1))
    t, y = jnp.array([10, 900]), jnp.array([0, 7])

    @jax.jit
    def start(key):
        params = model.init(key, x, t, y)["params"]
        _, sown = model.apply({"params": params}, x, t, y, mutable=["spikes"])
        return params, jnp.concatenate([rate.ravel() for rate in jax.tree.leaves(sown)])

    params, rates = start(jax.random.key(0, impl="rbg"))  # A generator that compiles fast.
    assert len(rates) == 2 * 3 and 0.05 < rates.min() and rates.max() < 0.5
    for group in ("in_blocks", "mid_block", "out_blocks"):
        assert (params[group]["reconstruction"]["over_tokens"]["kernel"] == 0).all()
    assert params["smooth"]["kernel"].ravel().tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0]
