"""A network that the package has never seen, in one file: trained, resumed, sharded, sampled, exported, evaluated, planned.

It is convolutional, without spikes or blocks, and has what SDiT has not: running statistics and dropout.
"""

import json
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from sdit_jax import models, sharding
from sdit_jax.config import default_config, validate
from sdit_jax.errors import InputError
from sdit_jax.layers.embed import LabelEmbed, TimeEmbed
from sdit_jax.layers.fields import at_least, choice
from sdit_jax.models import Family, build, initial_variables, preset
from sdit_jax.sharding import Layout

pytestmark = pytest.mark.filterwarnings("ignore")


class Convolutional(nn.Module):
    """x + Conv(Dropout(f(BatchNorm(Conv(x) + condition)))), all at the resolution of the image."""

    image_size: int = at_least(1, 8)
    channels: int = at_least(1, 1)
    num_classes: int = at_least(0, 10)
    label_dropout: float = at_least(0, 0.1)
    width: int = at_least(1, 8)
    dropout: float = at_least(0, 0.2)
    activation: str = choice("gelu", "gelu", "relu")
    dtype: str = choice("float32", "float32", "bfloat16")
    spiking_steps = 1
    remat = "none"
    blocks = 1
    summary = "a convolutional network"
    layout = Layout(split=(("enter/kernel", (None, "tensor")), ("leave/kernel", ("tensor", None))))

    @nn.compact
    def __call__(self, x_BHWC, t_B, y_B=None, train=False):
        condition_BC = TimeEmbed(self.width, name="time_embed")(t_B)
        condition_BC += LabelEmbed(self.num_classes, self.width, self.label_dropout, name="label_embed")(y_B, train)
        h = nn.Conv(self.width, (3, 3), dtype=self.dtype, name="enter")(x_BHWC) + condition_BC[:, None, None]
        h = getattr(nn, self.activation)(nn.BatchNorm(not train, momentum=0.9, name="norm")(h))
        h = nn.Dropout(self.dropout, deterministic=not train)(h)
        return x_BHWC + nn.Conv(self.channels, (3, 3), dtype=self.dtype, name="leave")(h)

    def is_rounded(self, path):
        return path.endswith("/kernel")

    def baseline(self):
        return self


FAMILY = Family(Convolutional, presets={"plain": {}, "plain_wide": {"width": 16}})


def configuration(**changes):
    config = default_config(preset("plain"))
    config.data.name = "digits"
    config.update_from_flattened_dict({
        "batch_size": 16, "duration": "4 steps", "diffusion.schedule": "cosine", "diffusion.clip_x0": True,
        "ema.half_life": 100.0, "log.every": "1 steps", "checkpoint.every": "2 steps", "samples.every": "never",
        "samples.n": 4, "samples.steps": 2, "samples.sampler": "heun", "samples.guidance": 2.0, "optimizer.learning_rate": 1e-2,
    })  # fmt: skip
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
    return config


def train(config, workdir):
    from sdit_jax.training.loop import train_and_evaluate

    return train_and_evaluate(config, workdir)


@pytest.fixture(scope="module", autouse=True)
def registered():
    models.register("convolutional", FAMILY)
    yield
    models.unregister("convolutional")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("convolutional")
    return workdir, train(configuration(), workdir)


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(a), jax.device_get(b))


def test_fields_are_its_own_and_those_of_others_are_refused():
    assert isinstance(build({"name": "convolutional", "activation": "relu"}), Convolutional)
    with pytest.raises(InputError, match="config.model.activation: found 'tanh', allowed are gelu, relu"):
        build({"name": "convolutional", "activation": "tanh"})
    with pytest.raises(InputError, match="config.model.tau: unknown field; there are activation, channels, dropout"):
        build({"name": "convolutional", "tau": 2.0})
    with pytest.raises(InputError, match="config.model.name: found 'unet', allowed are .*sdit.*convolutional"):
        build({"name": "unet"})
    with pytest.raises(InputError, match="config.model.width: found 0, must be at least 1"):
        validate(configuration(model__width=0))
    assert preset("plain_wide").to_dict() == {**preset("plain").to_dict(), "width": 16}


def test_it_learns_with_running_statistics_and_dropout(trained):
    """Statistics move toward those of the data, the average follows them, and dropout draws anew at every step."""
    workdir, state = trained
    start = initial_variables(build(configuration().model), 0)
    assert set(state.variables) == set(state.ema) == {"params", "batch_stats"}
    moved = np.abs(state.variables["batch_stats"]["norm"]["mean"] - start["batch_stats"]["norm"]["mean"])
    assert (moved > 1e-4).all()
    mean = lambda variables: np.asarray(variables["batch_stats"]["norm"]["mean"])
    assert 0 < np.abs(mean(state.ema) - mean(start)).max() < np.abs(mean(state.variables) - mean(start)).max()
    losses = [json.loads(line)["loss"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == 4 and losses[-1] < losses[0]


@pytest.mark.parametrize("microbatches", [1, 2])
def test_it_resumes_to_the_bit(tmp_path, trained, microbatches):
    straight = trained[1] if microbatches == 1 else train(configuration(microbatches=2), tmp_path / "straight")
    train(configuration(microbatches=microbatches, duration="2 steps"), tmp_path / "resumed")
    resumed = train(configuration(microbatches=microbatches), tmp_path / "resumed")
    assert int(resumed.step) == 4
    equal(resumed, straight)


def test_dropout_is_drawn_from_its_own_stream(tmp_path, trained):
    """With another rate of dropout the same run ends elsewhere; without, two runs agree to the bit (above)."""
    other = train(configuration(model__dropout=0.5), tmp_path)
    assert (
        np.abs(
            np.asarray(other.variables["params"]["leave"]["kernel"] - trained[1].variables["params"]["leave"]["kernel"])
        ).max()
        > 1e-4
    )


def test_it_is_sampled_and_exported_with_its_statistics(trained, tmp_path):
    from sdit_jax.sampling import weights
    from sdit_jax.sampling.run import open_run

    run = open_run(trained[0])
    equal(run.variables, trained[1].ema)
    path = tmp_path / "plain.safetensors"
    weights.write(path, run.config, run.variables, weights=run.weights, step=run.step, dtype="float32")
    again = open_run(path)
    equal(again.variables, run.variables)
    first, second = (one.sample([3, 1, 4], steps=3, guidance=2.0, seed=5) for one in (run, again))
    assert first.shape == (3, 8, 8, 1) and first.std() > 10
    np.testing.assert_array_equal(first, second)
    raw = open_run(trained[0], "raw").sample([3, 1, 4], steps=3, guidance=2.0, seed=5)
    assert (raw != first).any()


def test_its_energy_is_that_of_its_convolutions(trained):
    from sdit_jax.analysis.energy import measure_energy
    from sdit_jax.sampling.run import open_run

    run = open_run(trained[0])
    x = jnp.sin(jnp.arange(2 * 64.0)).reshape(2, 8, 8, 1)
    energy = measure_energy(run.model, run.variables, x, jnp.array([3, 500]), jnp.array([1, 2]))
    macs = {layer.name: layer.macs for layer in energy.layers}
    assert macs["enter"] == 8 * 8 * 9 * 1 * 8 and macs["leave"] == 8 * 8 * 9 * 8 * 1
    assert energy.neuron_updates == 0 and energy.spike_driven == () and energy.baseline_macs == sum(macs.values())


def test_it_is_evaluated_with_a_report(trained, tmp_path):
    """By what the command calls: a command in another process would not know a network that is registered in this one."""
    from sdit_jax.metrics.evaluate import evaluate
    from sdit_jax.metrics.features import make_extractor
    from sdit_jax.metrics.reference import load_references
    from sdit_jax.report import write_report
    from sdit_jax.report.build import build_report, energy_of
    from sdit_jax.sampling.how import Sampling
    from sdit_jax.sampling.run import open_run
    from sdit_jax.sampling.samples import draw

    run, sampling = open_run(trained[0]), Sampling("heun", 2, 2.0, clip_x0=True)
    references = load_references("digits", "", ("train", "test"), 8)
    samples = draw(run, tmp_path, n=100, sampling=sampling, seed=0, batch_size=100)
    found = evaluate(samples, [make_extractor("fd_classifier", "digits")], references, "digits", with_yardsticks=False)
    values = {record["name"]: record["value"] for record in found.values}
    assert values["fd_classifier"] > 0 and 0 <= values["accuracy_classifier"] <= 1
    energy = energy_of(run, references["train"], sampling)
    assert energy["per_image"]["forward_passes"] == 2 * (2 * 2 - 1)
    write_report(tmp_path / "report.html", build_report(samples, found, references, run, energy))
    text = (tmp_path / "report.html").read_text()
    assert "without spikes" in text and "leave" in text


def test_it_is_planned(trained):
    from sdit_jax.analysis import chips
    from sdit_jax.planner.prediction import predict

    one, two = (predict(configuration(batch_size=64, mesh__tensor=tensor), chips.find("v5p"), 4) for tensor in (1, 2))
    assert one.fits and one.parameters == sum(leaf.size for leaf in jax.tree.leaves(trained[1].variables["params"]))
    # FLOPs of an image: two convolutions of 64 pixels, the first without a gradient of its input, and two layers for the time.
    convolutions, first, second = 2 * (2 + 3) * 64 * 9 * 8, 2 * 2 * 256 * 8, 2 * 8 * 8
    assert one.device.flops == 16 * (convolutions + first + 3 * second)
    # Split in two: the convolutions, and both gradients of the second layer, whose result is added to a split one.
    assert two.device.flops == 32 * (convolutions / 2 + first + (1 + 2 / 2) * second)


def test_it_is_sharded(trained, virtual_devices, tmp_path):
    """Eight devices, every axis of the mesh: the state is split as its layout says, and training ends where one device ends."""
    mesh = jax.sharding.AbstractMesh((2, 2, 2), ("data", "fsdp", "tensor"))
    model = build(configuration(model__width=64).model)
    shapes = jax.eval_shape(lambda: initial_variables(model, 0))
    layout = sharding.shardings(mesh, shapes, model.layout)
    assert layout["params"]["enter"]["kernel"].spec[-1] == "tensor" and layout["params"]["leave"]["kernel"].spec[-2] == "tensor"
    assert layout["params"]["time_embed"]["hidden"]["kernel"].spec == PartitionSpec("fsdp", None)

    command = [sys.executable, __file__, str(tmp_path / "eight")]
    done = subprocess.run(command, env=virtual_devices(8), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "eight.npy")
    np.testing.assert_allclose(found, trained[1].variables["params"]["leave"]["kernel"], atol=2e-5)


if __name__ == "__main__":
    models.register("convolutional", FAMILY)
    place = sys.argv[1]
    from pathlib import Path

    ended = train(configuration(mesh__data=2, mesh__fsdp=2, mesh__tensor=2), Path(place))
    np.save(f"{place}.npy", np.asarray(ended.variables["params"]["leave"]["kernel"]))
