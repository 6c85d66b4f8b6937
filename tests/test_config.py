"""Durations, typed arguments, refusals with the field's name, and the saved configuration."""

import json
import re

import pytest

from sdit_jax import config, files
from sdit_jax.config import default_config
from sdit_jax.errors import InputError
from sdit_jax.models import preset


@pytest.mark.parametrize(
    "text, steps",
    [
        ("10 steps", 10),
        ("10", 10),
        ("1 step", 1),
        ("3 epochs", 15),
        ("1 epoch", 5),
        ("0.5 epochs", 2),
        ("1000 images", 5),
        ("1e3 images", 5),
        ("1.2e+1 steps", 12),
        ("1000 examples", 5),
        ("1 image", 1),
        ("25%", 50),
        ("25 %", 50),
        ("12.5 percent", 25),
        ("0.001%", 1),
        ("0 steps", 0),
        ("0%", 0),
        ("never", 0),
    ],
)
def test_durations_become_steps(text, steps):
    found = config.duration_steps(text, "config.every", batch_size=200, epoch_images=1000, total_steps=200)
    assert found == steps and isinstance(found, int)


@pytest.mark.parametrize(
    "text", ["", "ten steps", "10 days", "-1 steps", "10 steps more", "1e steps", "1e999 steps", "steps", "nan", "50%%"]
)
def test_what_is_no_duration_is_refused_with_the_units(text):
    with pytest.raises(InputError, match="^config.log.every.*steps, epochs, images, %") as error:
        config.duration_steps(text, "config.log.every", batch_size=1, epoch_images=1, total_steps=1)
    assert repr(text) in str(error.value)


@pytest.mark.parametrize(("text", "steps"), [("", None), ("100:105", (100, 105)), ("1:1", (1, 1))])
def test_steps_are_the_first_and_the_last(text, steps):
    assert config.parse_steps(text, "config.profile") == steps


@pytest.mark.parametrize("text", ["100", "0:5", "5:4", "1:2:3", "-1:2", "a:b", ":", "100: 105"])
def test_other_steps_are_refused(text):
    with pytest.raises(InputError, match=f"^config.profile: found '{text}', must be the first and the last step"):
        config.parse_steps(text, "config.profile")


def test_percent_of_itself_is_refused():
    with pytest.raises(InputError, match="config.duration.*'10%'"):
        config.duration_steps("10%", "config.duration", batch_size=1, epoch_images=1)


def test_the_release_recipe_is_the_default():
    fields = default_config(preset("sdit_mnist"))
    steps = config.duration_steps(fields.duration, "", batch_size=fields.batch_size, epoch_images=60_000)
    assert (fields.batch_size, steps) == (256, 375_000)
    assert fields.diffusion.to_dict() == {
        "schedule": "linear", "timesteps": 1000, "prediction": "noise", "distribution": "uniform",
        "loss": "mse", "loss_space": "prediction", "min_snr": 0.0,
        "clip_x0": False,
    }  # fmt: skip
    optimizer = fields.optimizer
    assert (optimizer.learning_rate, optimizer.b1, optimizer.b2, optimizer.weight_decay) == (1e-4, 0.9, 0.999, 0.01)
    assert (optimizer.schedule, optimizer.warmup, optimizer.clip_norm, fields.ema.half_life) == ("constant", "0 steps", 0, 0)


@pytest.mark.parametrize(
    "arg, expected",
    [
        (None, {}),
        ("", {}),
        ("tiny", {"tiny": True}),
        ("tiny=true,width=96", {"tiny": True, "width": 96}),
        ("tiny=1", {"tiny": True}),
        ("tiny=False", {"tiny": False}),
        ("tiny=0,rate=2", {"tiny": False, "rate": 2.0}),
        ("rate=1e-3,name=a b", {"rate": 1e-3, "name": "a b"}),
    ],
)
def test_arguments_are_typed(arg, expected):
    defaults = {"tiny": False, "width": 64, "rate": 0.5, "name": "x"}
    found = config.parse_arg(arg, **defaults).to_dict()
    assert found == defaults | expected
    assert {name: type(value) for name, value in found.items()} == {name: type(value) for name, value in defaults.items()}


@pytest.mark.parametrize(
    "arg, message",
    [
        ("large", "'large'.*tiny, width"),
        ("tiny,wdth=3", "'wdth'"),
        ("tiny=maybe", "'tiny'.*'maybe'.*true and false"),
        ("width", "'width'.*int"),
        ("width=2.5", "'width'.*'2.5'.*int"),
    ],
)
def test_leftover_and_mistyped_arguments_are_refused(arg, message):
    with pytest.raises(InputError, match=message):
        config.parse_arg(arg, tiny=False, width=64)


def test_the_default_configuration_is_valid():
    config.validate(default_config(preset("sdit_mnist")))


def test_an_integer_passes_where_a_float_is_meant():
    fields = default_config(preset("digits"))
    fields.optimizer = fields.optimizer.to_dict() | {"learning_rate": 1, "weight_decay": 0}
    config.validate(fields)


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("batchsize", 3, "unknown field.*batch_size"),
        ("optimizer.lr", 1e-4, "unknown field.*learning_rate"),
        ("batch_size", "256", "'256'.*int"),
        ("batch_size", True, "True.*int"),
        ("batch_size", 2.5, "2.5.*int"),
        ("batch_size", 0, "0.*at least 1"),
        ("duration", 1600, "1600.*str"),
        ("duration", "long", "'long'"),
        ("seed", -1, "-1.*must be in 0"),
        ("data.name", None, "None.*str"),
        ("data.flip", "yes", "'yes'.*bool"),
        ("data.margin", -1, "-1.*0 or more"),
        ("data.memory_GiB", -1.0, "0 or more"),
        ("data.memory_GiB", float("inf"), "inf"),
        ("diffusion", "linear", "group"),
        ("diffusion.timesteps", 0, "at least 1"),
        ("optimizer.learning_rate", 0.0, "0.0.*positive"),
        ("optimizer.learning_rate", -1e-4, "positive"),
        ("optimizer.learning_rate", float("nan"), "nan"),
        ("optimizer.learning_rate", "fast", "'fast'.*float"),
        ("optimizer.learning_rate", True, "True.*float"),
        ("optimizer.weight_decay", -0.1, "0 or more"),
        ("optimizer.clip_norm", float("inf"), "inf"),
        ("optimizer.base_width", -1, "-1.*0 or more"),
        ("optimizer.base_width", 0.5, "0.5.*int"),
        ("optimizer.warmup", "a while", "'a while'"),
        ("ema.half_life", -1.0, "0 or more"),
        ("ema.ramp", -0.1, "0 or more"),
        ("checkpoint.keep", 0, "at least 1"),
        ("checkpoint.every", "5 parsecs", "'5 parsecs'"),
        ("log.every", "", "''"),
        ("samples.n", 0, "at least 1"),
        ("samples.steps", 0, "at least 1"),
        ("samples.every", "20 epoch s", "'20 epoch s'"),
    ],
)
def test_a_wrong_value_is_refused_with_the_name_of_its_field(field, value, message):
    fields = default_config(preset("digits")).to_dict()
    *groups, name = field.split(".")
    group = fields
    for part in groups:
        group = group[part]
    group[name] = value
    with pytest.raises(InputError, match=f"^config.{re.escape(field)}: .*{message}") as error:
        config.validate(config.ml_collections.ConfigDict(fields))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("field", ["seed", "ema", "optimizer.b1"])
def test_a_missing_field_is_refused(field):
    fields = default_config(preset("digits")).to_dict()
    *groups, name = field.split(".")
    del (fields[groups[0]] if groups else fields)[name]
    with pytest.raises(InputError, match=f"^config.{field}: missing"):
        config.validate(config.ml_collections.ConfigDict(fields))


@pytest.mark.parametrize("field", ["model.tau", "samples.guidance", "optimizer.b1"])
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_number_that_is_not_finite_is_refused(field, value):
    fields = default_config(preset("digits", leak=False))
    fields.update_from_flattened_dict({field: value})
    with pytest.raises(InputError, match=f"^config.{field}: found {value}, must be finite"):
        config.validate(fields)


def test_a_saved_configuration_is_loaded_unchanged(tmp_path):
    fields = default_config(preset("digits", width=96))
    fields.optimizer.learning_rate = 3e-4
    files.write_json(tmp_path / "config.json", fields.to_dict())
    found = config.load(tmp_path)
    assert found.to_dict() == fields.to_dict()
    config.validate(found)
    assert json.loads((tmp_path / "config.json").read_text())["model"]["width"] == 96


def test_a_run_folder_that_is_missing_empty_or_damaged_is_named(tmp_path):
    with pytest.raises(InputError, match=f"^{re.escape(str(tmp_path / 'none'))}: no such run folder"):
        config.load(tmp_path / "none")
    with pytest.raises(InputError, match=f"^{re.escape(str(tmp_path))}: .*config.json"):
        config.load(tmp_path)
    for damaged in (b'{"seed": 0', b"\xff\xfe\x00", b""):
        (tmp_path / "config.json").write_bytes(damaged)
        with pytest.raises(InputError, match=f"^{re.escape(str(tmp_path / 'config.json'))}: damaged"):
            config.load(tmp_path)
