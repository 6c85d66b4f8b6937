"""The configuration: every field with its default, its checks, typed string arguments, durations, saved configurations.

A config file is a Python file with `get_config(arg)` that returns `default_config(model)` with some fields changed. Fields are
overridden on the command line with `--config.FIELD=VALUE`; the resolved configuration is saved in the run folder. The config
files that are shipped are found by name.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import ml_collections

from sdit_jax import models
from sdit_jax.errors import InputError, unknown_field

Config: TypeAlias = Any  # An ml_collections.ConfigDict, whose fields no type checker knows.
MAX_SEED = 2**32 - 1  # JAX's keys take no more.
UNITS = ("steps", "epochs", "images", "%")
PACKAGE = Path(__file__).parent


def default_config(model: Mapping) -> Config:
    """The release's recipe (PAPER section 6) for a model, with the fields that the release does not have switched off.

    `model` holds fields of config.model, `name` among them; those left out take their defaults.
    """
    config: Config = ml_collections.ConfigDict()
    config.seed = 0  # Of weights, data order, timesteps, noise and dropout.
    config.batch_size = 256  # Over all devices.
    config.microbatches = 1  # Parts of a batch that are worked on one after the other: less memory, the same step.
    config.duration = "1600 epochs"  # Durations: "N steps", "N epochs", "N images", "N%" of the whole run, or "never".
    config.init = ""  # Weights to start from: a run folder, a .safetensors file, or pretrained:NAME. "": new ones.
    config.init_new = ""  # Of those, arrays that start anew, and so may differ in shape: regular expressions, by commas.
    config.profile = ""  # Steps that are traced into RUN/profile, the first and the last of them: "100:105". "": none.
    config.spike_penalty = 0.0  # This many times the mean firing rate of all layers of neurons is added to the loss.

    config.mesh = ml_collections.ConfigDict()  # All devices as data x fsdp x tensor; one may be -1, for all that are left.
    config.mesh.data = -1  # Splits batches.
    config.mesh.fsdp = 1  # Splits batches, and weights and optimizer state too.
    config.mesh.tensor = 1  # Splits the inner channels of products.

    config.model = ml_collections.ConfigDict(models.defaults(model.get("name", models.DEFAULT)) | dict(model))

    config.data = ml_collections.ConfigDict()
    config.data.name = "mnist"  # "NAME" or "NAME:REST", see data.sources: digits, mnist, cifar10, tfds:..., folder:..., npz:...
    config.data.dir = ""  # Where the data are, if the name does not say; "digits" needs none, "tfds" has a default.
    config.data.split = "train"  # Of the data set; "test" is kept for evaluation.
    config.data.flip = False  # Half of the images are shown mirrored left to right.
    config.data.resize = "bilinear"  # One of data.transforms.FILTERS.
    config.data.margin = 0  # Images are fitted to this many pixels more than the model takes, and a random window is shown.
    config.data.memory_GiB = 4.0  # Encoded images that take more when they are fitted are decoded while training runs.
    config.data.resident = "auto"  # Whether images live on the devices: "auto" (on accelerators with room), "always", "never".

    config.diffusion = ml_collections.ConfigDict()
    config.diffusion.schedule = "linear"  # One of diffusion.schedule.SCHEDULES.
    config.diffusion.timesteps = 1000  # Noise levels.
    config.diffusion.prediction = "noise"  # What the network predicts, one of diffusion.objective.PREDICTIONS.
    config.diffusion.distribution = "uniform"  # Of timesteps in training, one of diffusion.objective.DISTRIBUTIONS.
    config.diffusion.loss = "mse"  # One of diffusion.loss.LOSSES.
    config.diffusion.loss_space = "prediction"  # Space in which errors are measured: that of the prediction, or one of those.
    config.diffusion.min_snr = 0.0  # Gamma of min-SNR loss weights, in place of loss_space; 0 is off.
    config.diffusion.clip_x0 = False  # Whether samplers clip predicted images to [-1, 1]; the cosine schedule needs it.

    config.distillation = ml_collections.ConfigDict()  # What a network learns from a trained one (training.distillation).
    config.distillation.teacher = ""  # Its weights, as config.init. "": images alone are learned from.
    config.distillation.guidance = 1.0  # The scale of its guidance, which the network then has without guidance.
    config.distillation.levels = "999,749,499,249"  # The timesteps at which the network is to be called.
    config.distillation.stride = 50  # Timesteps of one step of the teacher.

    config.optimizer = ml_collections.ConfigDict()
    config.optimizer.name = "adamw"  # Or "muon", for hidden matrices; all other parameters keep AdamW.
    config.optimizer.learning_rate = 1e-4  # At its peak.
    config.optimizer.schedule = "constant"  # "constant", "linear" or "cosine" decay to final_fraction of the learning rate.
    config.optimizer.warmup = "0 steps"  # Linear, from 0 to the peak.
    config.optimizer.restart = 0  # Step at which a run had ended and was made longer; set by itself.
    config.optimizer.final_fraction = 0.0  # Of the peak, after the decay.
    config.optimizer.b1 = 0.9  # Decay of the mean of gradients.
    config.optimizer.b2 = 0.999  # Decay of the mean of their squares.
    config.optimizer.weight_decay = 0.01  # Decoupled, times the learning rate.
    config.optimizer.clip_norm = 0.0  # Of the global gradient; 0 for none.
    config.optimizer.base_width = 0  # Width the rate is meant for; that of hidden matrices is times base_width / width. 0: all.

    config.ema = ml_collections.ConfigDict()
    config.ema.half_life = 0.0  # In images; 0 keeps no average.
    config.ema.ramp = 0.05  # The half-life is at most this fraction of the images seen, so that early weights are forgotten.

    config.checkpoint = ml_collections.ConfigDict()
    config.checkpoint.every = "5 epochs"  # And before evaluations, and at the end.
    config.checkpoint.keep = 2  # The newest ones.
    config.checkpoint.keep_every = "never"  # A multiple of `every`: these are kept, too.

    config.log = ml_collections.ConfigDict()
    config.log.every = "50 steps"  # Means since the last line.

    config.samples = ml_collections.ConfigDict()  # The grids drawn on the way.
    config.samples.every = "20 epochs"  # And at the end.
    config.samples.n = 40  # Images in a grid.
    config.samples.sampler = "ddim"  # One of diffusion.samplers.SAMPLERS.
    config.samples.steps = 50  # Sampling steps.
    config.samples.guidance = 1.0  # Scale of classifier-free guidance; 1 is none.

    config.evaluation = ml_collections.ConfigDict()  # What is measured on the way, of averaged and of raw weights.
    config.evaluation.every = "never"  # And at the end, unless "never".
    config.evaluation.names = "fd_classifier"  # Of training.evaluators.NAMES, separated by commas.
    config.evaluation.n = 1000  # Samples drawn for distances.
    config.evaluation.batch_size = 250  # Samples that each device draws at once.
    config.evaluation.sampler = "ddim"  # As those of the grids, for distances.
    config.evaluation.steps = 50  # Sampling steps.
    config.evaluation.guidance = 1.0  # Scale of classifier-free guidance; 1 is none.
    config.evaluation.classifier = ""  # Of fd_classifier: a shipped one, or a file; that of the data set where none is named.
    config.evaluation.inception = ""  # The weights file of fid; fetched where none is named.
    return config


def cut_to_a_minute(config: Config) -> None:
    """Makes a recipe a look at the machinery on a CPU, not at the quality: few small batches, one grid at the end."""
    config.batch_size = 16
    config.duration = "20 steps"
    config.checkpoint.every = "never"
    config.log.every = "10 steps"
    config.samples.every = "never"
    config.samples.n = 10
    config.samples.steps = 10


def validate(config: Config) -> None:
    """Raises InputError where a field is unknown, missing, of another type than its default, or out of its range."""
    kind: Any = ml_collections.ConfigDict
    if not isinstance(config, kind) and not hasattr(config, "model"):  # Where its file could not be read, this raises why.
        raise InputError(f"config: found {config!r}, get_config must return a ConfigDict")
    _compare(config, default_config(config.get("model", {})), "config")
    models.build(config.model)
    for name in ("batch_size", "microbatches", "diffusion.timesteps", "checkpoint.keep", "samples.n", "samples.steps",
        "evaluation.n", "evaluation.batch_size", "evaluation.steps",
    ):  # fmt: skip
        value = _get(config, name)
        if value < 1:
            raise InputError(f"config.{name}: found {value}, must be at least 1")
    for name in ("data.margin", "optimizer.base_width"):
        if _get(config, name) < 0:
            raise InputError(f"config.{name}: found {_get(config, name)}, must be 0 or more")
    positive = ("optimizer.learning_rate",)
    for name in (
        *positive, "spike_penalty", "diffusion.min_snr",
        "optimizer.weight_decay", "optimizer.clip_norm", "ema.half_life", "ema.ramp", "data.memory_GiB",
    ):  # fmt: skip
        value = _get(config, name)
        if value < 0 or (value == 0 and name in positive):
            raise InputError(f"config.{name}: found {value}, must be {'positive' if name in positive else '0 or more'}")
    if not 0 <= config.seed <= MAX_SEED:
        raise InputError(f"config.seed: found {config.seed}, must be in 0..{MAX_SEED}")
    for name in (
        "duration", "optimizer.warmup", "checkpoint.every", "checkpoint.keep_every", "log.every", "samples.every",
        "evaluation.every",
    ):  # fmt: skip
        parse_duration(_get(config, name), f"config.{name}")
    parse_steps(config.profile, "config.profile")


def _get(config, name):
    for part in name.split("."):
        config = config[part]
    return config


def _compare(found, default, path):
    for name in found:
        if name not in default:
            raise unknown_field(f"{path}.{name}", default)
    for name, value in default.items():
        if name not in found:
            raise InputError(f"{path}.{name}: missing; its default is {value!r}")
        if isinstance(value, ml_collections.ConfigDict):
            if not isinstance(found[name], ml_collections.ConfigDict):
                raise InputError(f"{path}.{name}: found {found[name]!r}, must be a group of fields")
            _compare(found[name], value, f"{path}.{name}")
        elif not _same_type(found[name], value):
            raise InputError(f"{path}.{name}: found {found[name]!r}, must be of type {type(value).__name__}")
        elif isinstance(found[name], float) and not math.isfinite(found[name]):  # JSON could not hold it.
            raise InputError(f"{path}.{name}: found {found[name]}, must be finite")


def _same_type(found, default):
    if isinstance(default, bool) or isinstance(found, bool):
        return isinstance(default, bool) and isinstance(found, bool)
    return isinstance(found, (int, float)) if isinstance(default, float) else isinstance(found, type(default))


def parse_duration(text: str, field: str) -> tuple[float, str] | None:
    """(1600.0, "epochs") for "1600 epochs" or "1.6e3 epochs"; steps for a bare number; None for "never". Raises InputError."""
    if text.strip() == "never":
        return None
    match = re.fullmatch(r"\s*([0-9]{1,15}(?:\.[0-9]+)?(?:e\+?[0-9]{1,2})?)\s*([a-z]+|%)?\s*", text)
    unit = (match[2] or "steps") if match else ""
    unit = {"step": "steps", "epoch": "epochs", "image": "images", "examples": "images", "percent": "%"}.get(unit, unit)
    if match is None or unit not in UNITS:
        raise InputError(f"{field}: found {text!r}, allowed are a number with one of {', '.join(UNITS)}, or 'never'")
    return float(match[1]), unit


def parse_steps(text: str, field: str) -> tuple[int, int] | None:
    """(100, 105), the first and the last step, for "100:105"; None for "". Raises InputError."""
    if not text:
        return None
    match = re.fullmatch(r"([0-9]{1,15}):([0-9]{1,15})", text)
    first, last = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= first <= last:
        raise InputError(f"{field}: found {text!r}, must be the first and the last step, as in '100:105', or empty")
    return first, last


def duration_steps(text: str, field: str, *, batch_size: int, epoch_images: int, total_steps: int | None = None) -> int:
    """The number of optimizer steps in a duration, rounded; at least 1 unless the duration is 0. "never" is 0.

    Raises InputError for text that is no duration, and for percent where there is no `total_steps`.
    """
    parsed = parse_duration(text, field)
    if parsed is None or parsed[0] == 0:
        return 0
    number, unit = parsed
    if unit == "%" and total_steps is None:
        raise InputError(f"{field}: found {text!r}, which is a part of itself; use steps, epochs or images")
    images_per_unit = {"steps": batch_size, "images": 1, "epochs": epoch_images, "%": (total_steps or 0) * batch_size / 100}
    return max(1, round(number * images_per_unit[unit] / batch_size))


def parse_arg(arg: str | None, **defaults: bool | int | float | str) -> Config:
    """The part after the colon in `--config=FILE.py:ARG`, as typed values: "tiny,width=96" with tiny=False, width=64.

    A bare name sets a flag to True; other values take the type of their default. Raises InputError for anything left over.
    """
    values = dict(defaults)
    for item in filter(None, (arg or "").split(",")):
        name, _, text = item.partition("=")
        if name not in defaults:
            raise InputError(f"config argument {name!r}: unknown; allowed: {', '.join(defaults) or 'none'}")
        default = defaults[name]
        if isinstance(default, bool):
            if text.lower() not in ("", "1", "0", "true", "false"):
                raise InputError(f"config argument {name!r}: found {text!r}, allowed are true and false")
            values[name] = text.lower() in ("", "1", "true")
        else:
            try:
                values[name] = type(default)(text)
            except ValueError:
                raise InputError(f"config argument {name!r}: found {text!r}, must be {type(default).__name__}") from None
    return ml_collections.ConfigDict(values)


def shipped() -> dict[str, Path]:
    """The config files that come with the package, by name: inside of an installed package, beside it in a clone."""
    room = PACKAGE if (PACKAGE / "configs").is_dir() else PACKAGE.parent
    return {path.stem: path for path in sorted((room / "configs").glob("*.py"))}


def locate(text: str, field: str) -> str:
    """FILE.py[:ARG] of the same, or of a shipped NAME[:ARG] such as "digits:tiny". Raises InputError if there is no file."""
    name, colon, arg = text.partition(":")
    if name.endswith(".py") or "/" in name:
        if not Path(name).is_file():
            raise InputError(f"{field}: no such file {name}")
        return text
    if name not in shipped():
        raise InputError(f"{field}: found {name!r}, allowed are {', '.join(shipped())}, or a path that ends in .py")
    return f"{shipped()[name]}{colon}{arg}"


# Fields of saved configurations under their names of today, and values of theirs that are called otherwise.
RENAMED = {
    "model.timesteps": "model.spiking_steps",
    "model.condition": "model.conditioning",
    "model.smooth_init": "model.final_conv_init",
    "diffusion.error_of": "diffusion.loss_space",
}
RENAMED_VALUES = {("model.conditioning", "modulation"): "adaln"}


def completed(saved: Mapping[str, Any]) -> Config:
    """A saved configuration as the code of today has it: renamed fields renamed, fields that are younger at their defaults."""
    flat = {RENAMED.get(name, name): value for name, value in flattened(saved).items()}
    flat = {name: RENAMED_VALUES.get((name, value), value) for name, value in flat.items()}
    return nested(flattened(default_config({"name": flat.get("model.name", models.DEFAULT)})) | flat)


def nested(flat: Mapping[str, Any]) -> Config:
    """The inverse of `flattened`."""
    config: dict[str, Any] = {}
    for name, value in flat.items():
        *groups, field = name.split(".")
        group = config
        for part in groups:
            group = group.setdefault(part, {})
        group[field] = value
    return ml_collections.ConfigDict(config)


def flattened(config: Config, prefix: str = "") -> dict[str, Any]:
    """{"model.width": 64, ...}: every field by its dotted name."""
    flat = {}
    for name, value in config.items():
        is_group = isinstance(value, Mapping | ml_collections.ConfigDict)
        flat |= flattened(value, f"{prefix}{name}.") if is_group else {prefix + name: value}
    return flat


def load(workdir: Path) -> Config:
    """The configuration of a run folder, `completed`. Raises InputError where there is none."""
    path = workdir / "config.json"
    if not workdir.is_dir():
        raise InputError(f"{workdir}: no such run folder")
    if not path.is_file():
        raise InputError(f"{workdir}: not a run folder, it holds no config.json")
    try:
        return from_json(path.read_bytes(), path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def from_json(text: str | bytes, path: Path) -> Config:
    """A saved configuration, `completed`. Raises InputError that names its file where the text holds none."""
    try:
        found = json.loads(text)
    except ValueError as error:
        raise InputError(f"{path}: damaged, not JSON of a configuration ({error})") from None
    if not isinstance(found, dict) or not isinstance(found.get("model"), dict):
        raise InputError(f"{path}: damaged, not a configuration with a model")
    try:
        return completed(found)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (ValueError, TypeError, AttributeError) as error:  # Names with dots, or a value where a group belongs.
        raise InputError(f"{path}: damaged, not a configuration ({error})") from None
