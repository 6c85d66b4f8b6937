"""A run, opened for drawing: configuration, network, objective and weights."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import jax

from sdit_jax import config as fields
from sdit_jax.checkpoint import Checkpoints
from sdit_jax.config import Config, InputError
from sdit_jax.diffusion.objective import DISTRIBUTIONS, PREDICTIONS, Objective
from sdit_jax.diffusion.samplers import SAMPLERS
from sdit_jax.diffusion.schedule import SCHEDULES
from sdit_jax.models import SDiT, build, initial_params
from sdit_jax.sampling import weights as files


@dataclasses.dataclass(frozen=True)
class Run:
    """`weights` is "ema" or "raw"; `params` are those weights, of `step`."""

    config: Config
    model: SDiT
    objective: Objective
    weights: str
    step: int
    params: Any


def open_run(place: str | Path, weights: str | None = None) -> Run:
    """A file of weights, by `pretrained:NAME` or a path that ends in .safetensors, or a run folder, in float32.

    Of a folder, it is the newest readable checkpoint: averaged weights where it has them, unless "raw" is asked for.
    Raises InputError for a folder that is no run, holds no checkpoint, or keeps no average where "ema" is asked for, and for
    a file that is not there, cannot be read, does not fit its network, or holds other weights than were asked for.
    """
    file = files.find(place)
    config, which, step, params = files.read(file, weights) if file else _read_folder(Path(place), weights)
    return Run(config, build(config.model), make_objective(config.diffusion), which, step, params)


def _read_folder(workdir, weights):
    config = fields.load(workdir)
    fields.validate(config)
    model = build(config.model)
    averaged = config.ema.half_life > 0
    if weights == "ema" and not averaged:
        raise InputError(f"--weights: found 'ema', but {workdir} keeps no average (config.ema.half_life is 0); use raw")
    which = "ema" if averaged and weights != "raw" else "raw"
    if not (workdir / "checkpoints").is_dir():
        raise InputError(f"{workdir}: holds no checkpoints yet")
    with Checkpoints(workdir, config.checkpoint.keep) as checkpoints:
        template = jax.eval_shape(lambda: initial_params(model, 0))
        step, params = checkpoints.restore_weights("params" if which == "raw" else which, template)
    return config, which, step, params


def make_objective(config: Config) -> Objective:
    """What `config.diffusion` says. Raises InputError for a name that there is not."""
    names = {"schedule": SCHEDULES, "prediction": PREDICTIONS, "distribution": DISTRIBUTIONS}
    names["error_of"] = ("prediction", *PREDICTIONS)
    for name, allowed in names.items():
        if config[name] not in allowed:
            raise InputError(f"config.diffusion.{name}: found {config[name]!r}, allowed are {', '.join(allowed)}")
    if config.min_snr and config.error_of != "prediction":
        raise InputError(
            f"config.diffusion.min_snr: found {config.min_snr:g} beside error_of={config.error_of!r}; set one of them"
        )
    schedule = SCHEDULES[config.schedule](config.timesteps)
    return Objective(schedule, config.prediction, config.distribution, config.error_of, config.min_snr)


def check_sampling(model: SDiT, objective: Objective, *, sampler: str, steps: int, guidance: float, prefix: str) -> None:
    """Raises InputError for a sampler, a number of steps or a guidance scale that model and schedule do not have."""
    if sampler not in SAMPLERS:
        raise InputError(f"{prefix}sampler: found {sampler!r}, allowed are {', '.join(SAMPLERS)}")
    if not 1 <= steps <= len(objective.schedule):
        raise InputError(f"{prefix}steps: found {steps}, allowed are 1..{len(objective.schedule)}")
    if not math.isfinite(guidance):
        raise InputError(f"{prefix}guidance: found {guidance}, must be a finite number")
    if guidance != 1 and not (model.num_classes and model.label_dropout):
        raise InputError(f"{prefix}guidance: found {guidance}, must be 1 for a model without labels or label dropout")
