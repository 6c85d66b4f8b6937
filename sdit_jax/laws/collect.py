"""Finished runs, from a folder of run folders: what each spent, and the loss it came to."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

from sdit_jax import config as fields
from sdit_jax.config import Config, InputError
from sdit_jax.laws.compute import cost
from sdit_jax.models import build
from sdit_jax.training.metrics import last_scalars
from sdit_jax.training.plan import total_steps

# The first that half of the runs have is the loss: of held-out images at fixed timesteps and noise, else of the last window.
LOSSES = ("evaluation/ema/loss/test", "evaluation/raw/loss/test", "loss")
MUST_AGREE = (
    "data.name", "data.split", "model.image_size", "model.channels", "model.learned_variance", "diffusion.schedule",
    "diffusion.timesteps", "diffusion.prediction", "diffusion.error_of", "diffusion.min_snr",
)  # fmt: skip
MUST_AGREE_IN_TRAINING = ("diffusion.distribution",)  # Else what was evaluated at fixed timesteps compares.
STUDIED = ("model.width", "model.depth", "model.timesteps", "duration")


@dataclasses.dataclass(frozen=True)
class Run:
    """`images` seen, and `flops` of all of them in training; `losses` are the scalars of the last step, by name."""

    name: str
    width: int
    depth: int
    timesteps: int
    seed: int
    parameters: int
    images: int
    flops: float
    losses: dict[str, float]
    config: Config = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True)
class Collected:
    """Runs, the name of the loss they share, and a line for each folder that was left out and each field that differs."""

    runs: list[Run]
    loss: str
    left_out: list[str]


def collect(folder: Path, loss: str = "", keep_unfinished: bool = False) -> Collected:
    """All runs right inside of a folder, by name. `loss` is a scalar of metrics.jsonl, by default one of LOSSES.

    Runs that did not reach their end, unless `keep_unfinished`, or whose loss is not finite, are left out.
    Raises InputError where there is no such folder, no run is left, or runs differ in what makes losses comparable.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    runs, left_out = [], []
    for path in sorted(path.parent for path in folder.glob("*/config.json")):
        try:
            runs.append(_read(path, keep_unfinished))
        except InputError as error:
            left_out.append(f"{path.name}: {str(error).removeprefix(f'{path}: ')}")
    measured = lambda name: 2 * sum(name in run.losses for run in runs) >= len(runs)
    name = loss or next(filter(measured, LOSSES), LOSSES[-1])
    for run in [run for run in runs if not math.isfinite(run.losses.get(name, math.nan))]:
        left_out.append(f"{run.name}: {name} is {run.losses.get(name, 'not measured')}")
        runs.remove(run)
    if not runs:
        raise InputError(f"{folder}: holds no finished run with {name}" + (f"; {left_out[0]}" if left_out else ""))
    for field in (*MUST_AGREE, *(() if name.startswith("evaluation/") else MUST_AGREE_IN_TRAINING)):
        found = {str(_field(run.config, field)) for run in runs}
        if len(found) > 1:
            raise InputError(f"{folder}: config.{field} is {' and '.join(sorted(found))}, but losses must be comparable")
    return Collected(runs, name, left_out)


def differing(runs: Sequence[Run]) -> list[str]:
    """Fields of which no law here knows, and that differ between the runs."""
    flat = [_flat(run.config) for run in runs]
    names = {name for one in flat for name in one} - set(STUDIED)
    return sorted(name for name in names if len({str(one.get(name)) for one in flat}) > 1)


def _read(path, keep_unfinished):
    config = fields.load(path)
    model = build(config.model)
    step, scalars = last_scalars(path / "metrics.jsonl")
    if not step:
        raise InputError(f"{path}: has logged nothing")
    total = total_steps(config)
    if step < total and not keep_unfinished:
        raise InputError(f"{path}: stopped at step {step:,} of {total:,}")
    images, spent = step * config.batch_size, cost(model)
    return Run(
        path.name, model.width, model.depth, model.timesteps, config.seed, spent.parameters, images,
        float(images * spent.training), scalars, config,
    )  # fmt: skip


def _field(config, name):
    for part in name.split("."):
        config = config[part]
    return config


def _flat(config, prefix=""):
    """Field by field."""
    flat = {}
    for name, value in config.items():
        flat |= _flat(value, f"{prefix}{name}.") if hasattr(value, "items") else {prefix + name: value}
    return flat
