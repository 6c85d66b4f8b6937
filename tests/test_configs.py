"""The configurations: three are the release's recipe exactly, and every one has a `tiny` that runs."""

import gzip
import importlib.util
import json

import jax
import numpy as np
import pytest

from sdit_jax.config import duration_steps
from sdit_jax.laws.compute import cost
from sdit_jax.models import build
from sdit_jax.models.presets import defaults
from sdit_jax.training.plan import make_plan
from sdit_jax.training.sweep import read_sweep

RECIPE = {  # PAPER section 6.
    "batch_size": 256, "duration": "1600 epochs", "diffusion.schedule": "linear", "diffusion.timesteps": 1000,
    "diffusion.clip_x0": False, "optimizer.learning_rate": 1e-4, "optimizer.schedule": "constant",
    "optimizer.warmup": "0 steps", "optimizer.b1": 0.9, "optimizer.b2": 0.999, "optimizer.weight_decay": 0.01,
    "optimizer.clip_norm": 0.0, "ema.half_life": 0.0, "model.timesteps": 4, "model.tau": 2.0, "model.threshold": 1.0,
    "model.reset": "hard", "model.detach_reset": False, "model.surrogate": "atan", "model.normalized_currents": False,
    "model.gate_init": "random", "model.smooth_init": "random", "model.label_dropout": 0.1, "model.image_size": 28,
    "model.channels": 3, "model.learned_variance": True, "model.bidirectional": False, "model.skips": True,
    "diffusion.prediction": "noise", "diffusion.distribution": "uniform", "diffusion.min_snr": 0.0, "model.condition": "token",
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
def test_the_whole_recipe_makes_a_plan(get_config, tmp_path, name):
    zeros(tmp_path, name)
    config = get_config(name)
    config.data.dir = str(tmp_path)
    plan = make_plan(config)
    images = plan.batches.road.images.images
    assert images.shape == ((50_000, 28, 28, 3) if name == "cifar10" else (60_000, 28, 28, 3))
    assert plan.total_steps == 1600 * len(images) // 256
    assert plan.batches(0)["image"].shape == (256, 28, 28, 3)


@pytest.mark.filterwarnings("ignore")
def test_tiny_trains_from_the_original_files(small, tmp_path):
    zeros(tmp_path, "mnist")
    flags = ("--config=configs/mnist.py:tiny", f"--workdir={tmp_path / 'run'}", f"--config.data.dir={tmp_path}")
    done = small.run("train", *flags, preset=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "samples" / "00000020.png").is_file()


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_the_small_recipe_makes_a_plan_for_both_data_sets(get_config, tmp_path, name):
    zeros(tmp_path, name)
    config = get_config("small", None if name == "mnist" else name)
    config.data.dir = str(tmp_path)
    plan = make_plan(config)
    assert plan.batches(0)["image"].shape == (32, 28, 28, 1) and config.data.name == name
    parameters = sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(plan.new_state).params))
    assert 4 * parameters < 8e6  # What is shipped is small enough for a package.


def test_ablations_change_one_thing_each_and_the_release_is_the_release(small, get_config):
    runs = read_sweep(str(small.root / "configs" / "ablations.py"), get_config("ablations"))
    release, others = runs[3:5], runs[:3] + runs[5:]
    assert len(runs) == len({json.dumps(run.overrides) for run in runs})
    both = {"model.detach_reset": True, "diffusion.distribution": "logit_normal"}
    for run in others:  # With a seed of their own or without.
        assert (
            len(run.overrides.keys() - {"seed"}) <= 1
            or both.items() <= run.overrides.items()
            or "model.reconstruction" in run.overrides
        )
        for field, value in run.overrides.items():  # The seed of the first is that of the recipe.
            group, _, leaf = field.rpartition(".")
            recipe = get_config("ablations")
            assert (recipe[group] if group else recipe)[leaf] != value or run.index == 0, run.name
    sizes = {"image_size", "patch_size", "width", "depth"}
    for run in release:
        same = {name: value for name, value in run.config.model.items() if name not in sizes}
        assert same == {name: value for name, value in defaults().items() if name not in sizes}
    for field, value in RECIPE.items():
        group, _, leaf = field.rpartition(".")
        if field not in ("duration", "checkpoint.every", "samples.every", "seed"):
            assert (release[0].config[group] if group else release[0].config)[leaf] == value, field
    long = read_sweep(f"{small.root / 'configs' / 'ablations.py'}:long", get_config("ablations", "long"))
    long = {run.name: run.config for run in long}
    (found,) = (run.config for run in runs if run.overrides.get("optimizer.learning_rate") == 6e-3 and len(run.overrides) == 4)
    for group in ("model", "diffusion", "optimizer"):  # What was found is the recipe.
        for field, value in get_config("small")[group].items():
            if field not in (*sizes, "timesteps", "warmup"):
                assert long["000-recipe"][group][field] == value == found[group][field], field
    for name, run in (("003-release", release[0]), ("004-release_at_4e-3", release[1])):
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
    assert {(model.depth, model.timesteps) for model in spent[10.3]} == {(2, 1), (2, 2), (2, 4), (2, 8), (2, 16), (4, 4)}


def test_the_rates_are_those_of_both_widths_with_a_base_width_and_of_the_wider_without(small, get_config):
    runs = read_sweep(f"{small.root / 'configs' / 'scaling.py'}:rates", get_config("scaling", "rates"))
    found = [(run.config.model.width, run.config.optimizer.base_width) for run in runs]
    assert found == [(24, 24)] * 5 + [(96, 24)] * 5 + [(96, 0)] * 5
    assert len({run.config.optimizer.learning_rate for run in runs}) == 5
    assert make_plan(get_config("scaling")).total_steps == 1000
