"""Presets: the sizes that were published and that the docstrings state, and what the quickstart's network promises."""

import importlib
import math
import re

import jax
import jax.numpy as jnp
import pytest

from sdit_jax.analysis import operations
from sdit_jax.models import build, defaults, families, initial_variables, preset, presets
from sdit_jax.models.sdit import PRESETS


@pytest.mark.parametrize(
    "name, count", [("sdit_mnist", 11_667_259), ("sdit_cifar10", 36_052_047), ("digits", 737_961), ("small", 1_446_106)]
)
def test_a_preset_has_as_many_parameters_as_published(name, count):
    shapes = jax.eval_shape(lambda: initial_variables(build(preset(name)), 0)["params"])
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == count


@pytest.mark.parametrize("name", presets())
def test_a_preset_is_as_large_as_the_docstring_of_its_network_says(name):
    docs = "".join(importlib.import_module(f"sdit_jax.models.{family}").__doc__ or "" for family in families())
    row = re.search(rf"\| `{name}` \|.*\| ([\d,]+) \| ([\d.]+) ([MG]) \|", docs)
    assert row, f"no row of {name}"
    parameters, macs, unit = row.groups()
    model = build(preset(name))
    shapes = jax.eval_shape(lambda: initial_variables(model, 0)["params"])
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == int(parameters.replace(",", ""))
    digits = len(macs.partition(".")[2])
    assert f"{operations.forward(model).macs / {'M': 1e6, 'G': 1e9}[unit]:.{digits}f}" == macs


@pytest.mark.parametrize("name", [name for name in PRESETS if name.startswith("sdit_")])
def test_presets_of_the_release_change_nothing_but_sizes(name):
    sizes = {"image_size", "channels", "patch_size", "width", "depth", "num_classes"}
    assert set(PRESETS[name]) <= sizes


def test_a_preset_is_a_whole_configuration_and_takes_changes():
    config = preset("sdit_cifar10", width=64, reset="soft")
    assert (config.name, config.width, config.depth, config.reset) == ("sdit", 64, 8, "soft")
    assert set(config) == set(defaults())


def test_an_unknown_preset_is_refused():
    with pytest.raises(KeyError, match="sdit_huge: no such preset; there are sdit_mnist, "):
        preset("sdit_huge")
    assert len(presets()) == len(set(presets()))


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
