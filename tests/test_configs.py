"""The configurations: three are the release's recipe exactly, and every one has a `tiny` that runs."""

import gzip
import importlib.util
import json

import jax
import numpy as np
import pytest

from sdit_jax.config import duration_steps, flattened
from sdit_jax.models import build, defaults, initial_variables
from sdit_jax.scaling_laws.compute import cost
from sdit_jax.training.setup import make_setup
from sdit_jax.training.sweep import read_sweep

RECIPE = {  # PAPER section 6.
    "batch_size": 256, "duration": "1600 epochs", "diffusion.schedule": "linear", "diffusion.timesteps": 1000,
    "diffusion.clip_x0": False, "optimizer.learning_rate": 1e-4, "optimizer.schedule": "constant",
    "optimizer.warmup": "0 steps", "optimizer.b1": 0.9, "optimizer.b2": 0.999, "optimizer.weight_decay": 0.01,
    "optimizer.clip_norm": 0.0, "ema.half_life": 0.0, "model.spiking_steps": 4, "model.tau": 2.0, "model.threshold": 1.0,
    "model.reset": "hard", "model.detach_reset": False, "model.surrogate": "atan", "model.normalized_currents": False,
    "model.gate_init": "random", "model.final_conv_init": "random", "model.label_dropout": 0.1, "model.image_size": 28,
    "model.channels": 3, "model.learned_variance": True, "model.bidirectional": False, "model.skips": True,
    "diffusion.prediction": "noise", "diffusion.distribution": "uniform", "diffusion.min_snr": 0.0,
    "model.conditioning": "token",
    "model.token_shift": "1d", "model.neuron": "lif",
}  # fmt: skip


@pytest.fixture
def get_config(small):
    def load(name, arg=None):
        file = importlib.util.spec_from_file_location(name, small.root / "configs" / f"{name}.py")
        module = importlib.util.module_from_spec(file)
        file.loader.exec_module(module)
        return module.get_config(arg)

    return load


@pytest.mark.parametrize(("name", "width", "depth"), [("mnist", 384, 4), ("fashion_mnist", 384, 4), ("cifar10", 512, 8)])
def test_the_releases_recipe_field_by_field(get_config, name, width, depth):
    config = get_config(name)
    for field, value in RECIPE.items():
        group, _, leaf = field.rpartition(".")
        assert (config[group] if group else config)[leaf] == value, field
    assert (config.data.name, config.model.width, config.model.depth) == (name, width, depth)
    assert build(config.model).width == width


def zeros(folder, name):
    """Original files of the right size, all zeros."""
    if name == "cifar10":
        for batch in range(1, 6):
            (folder / f"data_batch_{batch}.bin").write_bytes(bytes(10_000 * 3073))
    else:
        for kind, shape in (("images-idx3", (60_000, 28, 28)), ("labels-idx1", (60_000,))):
            header = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">i4").tobytes()
            data = gzip.compress(header + bytes(int(np.prod(shape))), compresslevel=1)
            (folder / f"train-{kind}-ubyte.gz").write_bytes(data)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
def test_the_whole_recipe_can_be_set_up(get_config, tmp_path, name):
    zeros(tmp_path, name)
    config = get_config(name)
    config.data.dir = str(tmp_path)
    setup = make_setup(config)
    images = setup.loader.images.images
    assert images.shape == ((50_000, 28, 28, 3) if name == "cifar10" else (60_000, 28, 28, 3))
    assert setup.cadence.total == 1600 * len(images) // 256
    assert setup.loader(0)["image"].shape == (256, 28, 28, 3)


@pytest.mark.filterwarnings("ignore")
def test_tiny_trains_from_the_original_files(small, tmp_path):
    zeros(tmp_path, "mnist")
    flags = ("--config=configs/mnist.py:tiny", f"--workdir={tmp_path / 'run'}", f"--config.data.dir={tmp_path}")
    done = small.run("train", *flags, preset=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "samples" / "00000020.png").is_file()


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize("recipe", ["small", "spike_driven"])
def test_the_small_recipes_can_be_set_up_for_both_data_sets(get_config, tmp_path, recipe, name):
    zeros(tmp_path, name)
    config = get_config(recipe, None if name == "mnist" else name)
    config.data.dir = str(tmp_path)
    setup = make_setup(config)
    assert setup.loader(0)["image"].shape == (32, 28, 28, 1) and config.data.name == name
    parameters = sum(leaf.size for leaf in jax.tree.leaves(setup.abstract_state().params))
    assert 4 * parameters < 8e6  # What is shipped is small enough for a package.


def test_the_large_network_in_colour_has_the_recipe_of_the_small_one(get_config):
    small, large = get_config("spike_driven", "cifar10"), get_config("cifar10_large")
    assert large.diffusion == small.diffusion and large.optimizer == small.optimizer and large.data == small.data
    changed = {name for name, value in large.model.items() if value != small.model[name]}
    assert changed == {"width", "depth", "patch_size", "dtype"}
    shapes = jax.eval_shape(lambda: initial_variables(build(large.model), 0))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 39_502_835
    assert build(get_config("cifar10_large", "tiny").model).width == 32


@pytest.fixture
def ablations(small, get_config):
    """The runs of the sweep."""
    return read_sweep(str(small.root / "configs" / "ablations.py"), get_config("ablations"))


SIZES = {"image_size", "patch_size", "width", "depth"}
CHANGED_TOGETHER = ({"model.detach_reset", "diffusion.distribution"}, {"model.reconstruction"})


def test_ablations_change_one_thing_each(ablations, get_config):
    """But for a seed, and for what was found to help or belongs together; and each value is not the base's already."""
    assert len(ablations) == len({json.dumps(run.overrides) for run in ablations})
    base = flattened(get_config("ablations"))
    for run in ablations[:3] + ablations[5:]:
        changed = run.overrides.keys() - {"seed"}
        assert len(changed) <= 1 or any(together <= changed for together in CHANGED_TOGETHER), run.name
        assert all(base[field] != value for field, value in run.overrides.items()) or run.index == 0, run.name


def test_the_release_among_the_ablations_is_the_release(ablations):
    for run in ablations[3:5]:
        same = {name: value for name, value in run.config.model.items() if name not in SIZES}
        assert same == {name: value for name, value in defaults().items() if name not in SIZES}
    found = flattened(ablations[3].config)
    own = ("duration", "checkpoint.every", "samples.every", "seed")
    assert {field: found[field] for field in RECIPE if field not in own} == {f: v for f, v in RECIPE.items() if f not in own}


def test_the_long_runs_are_the_recipe_and_the_release(small, ablations, get_config):
    path = f"{small.root / 'configs' / 'ablations.py'}:long"
    long = {run.name: run.config for run in read_sweep(path, get_config("ablations", "long"))}
    best = [run for run in ablations if run.overrides.get("optimizer.learning_rate") == 6e-3 and len(run.overrides) == 4]
    for group in ("model", "diffusion", "optimizer"):  # What was found is the recipe.
        for field, value in get_config("small")[group].items():
            if field not in (*SIZES, "spiking_steps", "warmup"):
                assert long["000-recipe"][group][field] == value == best[0].config[group][field], field
    for name, run in (("003-release", ablations[3]), ("004-release_at_4e-3", ablations[4])):
        for group in ("model", "diffusion", "ema", "batch_size"):
            assert long[name][group] == run.config[group]


def test_the_scaling_runs_spend_their_budgets(small, get_config):
    """To a step of 64 images; with more spiking steps at the same cost, and deeper networks."""
    runs = [run.config for run in read_sweep(str(small.root / "configs" / "scaling.py"), get_config("scaling"))]
    spent = {}
    for config in runs:
        steps = duration_steps(config.duration, "", batch_size=64, epoch_images=1)
        spent.setdefault(round(np.log10(steps * 64 * cost(build(config.model)).training), 1), []).append(config.model)
    assert [len(models) for models in spent.values()] == [5, 5 + 4 + 2, 5]
    assert {(model.depth, model.spiking_steps) for model in spent[10.3]} == {(2, 1), (2, 2), (2, 4), (2, 8), (2, 16), (4, 4)}


def test_the_rates_are_those_of_both_widths_with_a_base_width_and_of_the_wider_without(small, get_config):
    runs = read_sweep(f"{small.root / 'configs' / 'scaling.py'}:rates", get_config("scaling", "rates"))
    found = [(run.config.model.width, run.config.optimizer.base_width) for run in runs]
    assert found == [(24, 24)] * 5 + [(96, 24)] * 5 + [(96, 0)] * 5
    assert len({run.config.optimizer.learning_rate for run in runs}) == 5
    assert make_setup(get_config("scaling")).cadence.total == 1000


def test_rivals_have_about_as_many_parameters_and_baselines_their_networks(small, get_config):
    path = f"{small.root / 'configs' / 'ablations.py'}:rivals"
    runs = {run.name.partition("-")[2]: build(run.config.model) for run in read_sweep(path, get_config("ablations", "rivals"))}
    weights = lambda model: jax.tree.leaves(jax.eval_shape(lambda: initial_variables(model, 0))["params"])
    count = lambda model: sum(leaf.size for leaf in weights(model))
    for name in ("spike_driven", "uvit", "spiking_unet"):
        assert count(runs[name]) == pytest.approx(count(runs["sdit"]), rel=0.05), name
    for name in ("sdit", "spike_driven", "spiking_unet"):
        assert runs[f"{name}_baseline"] == runs[name].baseline(), name
