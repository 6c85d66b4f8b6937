"""Finished runs from a folder of run folders: the compute that each spent, and its loss at the end."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

from sdit_jax import config as fields
from sdit_jax.config import Config
from sdit_jax.errors import InputError
from sdit_jax.models import build
from sdit_jax.scaling_laws.compute import cost
from sdit_jax.training.metrics import last_scalars
from sdit_jax.training.setup import total_steps

# The loss is the first of these that at least half of the runs have: on held-out images at fixed timesteps and noise, else the
# training loss of the last logging interval.
LOSSES = ("evaluation/ema/loss/test", "evaluation/raw/loss/test", "loss")
MUST_AGREE = (
    "data.name", "data.split", "model.image_size", "model.channels", "diffusion.schedule", "diffusion.timesteps",
    "diffusion.prediction", "diffusion.loss", "diffusion.loss_space", "diffusion.min_snr",
)  # fmt: skip
MUST_AGREE_IN_TRAINING = ("diffusion.distribution",)  # Held-out losses are evaluated at the same timesteps for all runs.
STUDIED = ("model.width", "model.depth", "model.spiking_steps", "duration")


@dataclasses.dataclass(frozen=True)
class Run:
    """One run. `images` were seen, `flops` is the training compute for all of them, `losses` are the last step's scalars.

    `width` and `depth` are None where the configuration of the network has no such field.
    """

    name: str
    width: int | None
    depth: int | None
    blocks: int
    spiking_steps: int
    seed: int
    parameters: int
    images: int
    flops: float
    losses: dict[str, float]
    config: Config = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True)
class Collected:
    """The runs, the name of the loss that they share, and a line for each folder that was left out."""

    runs: list[Run]
    loss: str
    left_out: list[str]


def collect(folder: Path, loss: str = "", keep_unfinished: bool = False) -> Collected:
    """All runs directly inside a folder, by name. `loss` is a scalar of metrics.jsonl, by default one of LOSSES.

    Unfinished runs, unless `keep_unfinished`, and runs whose loss is not finite are left out. Raises InputError where there is
    no such folder, no run is left, or the losses are not comparable because the runs differ in a field of MUST_AGREE.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    runs, left_out = [], []
    for path in sorted(path.parent for path in folder.glob("*/config.json")):
        try:
            runs.append(_read(path, keep_unfinished))
        except InputError as error:
            left_out.append(f"{path.name}: {str(error).removeprefix(f'{path}: ')}")
    name = loss or _shared_loss(runs)
    without = [run for run in runs if not math.isfinite(run.losses.get(name, math.nan))]
    left_out += [f"{run.name}: {name} is {run.losses.get(name, 'not measured')}" for run in without]
    runs = [run for run in runs if run not in without]
    if not runs:
        raise InputError(f"{folder}: holds no finished run with {name}" + (f"; {left_out[0]}" if left_out else ""))
    _check_comparable(folder, runs, name)
    return Collected(runs, name, left_out)


def differing(runs: Sequence[Run]) -> list[str]:
    """Configuration fields, other than those of STUDIED, that differ between the runs."""
    configs = [fields.flattened(run.config) for run in runs]
    names = {name for config in configs for name in config} - set(STUDIED)
    return sorted(name for name in names if len({str(config.get(name)) for config in configs}) > 1)


def _read(path, keep_unfinished):
    config = fields.load(path)
    model = build(config.model)
    step, scalars = last_scalars(path / "metrics.jsonl")
    if not step:
        raise InputError(f"{path}: no step is logged")
    total = total_steps(config)
    if step < total and not keep_unfinished:
        raise InputError(f"{path}: stopped at step {step:,} of {total:,}")
    images, network_cost = step * config.batch_size, cost(model)
    return Run(
        name=path.name,
        width=config.model.get("width"),
        depth=config.model.get("depth"),
        blocks=model.blocks,
        spiking_steps=model.spiking_steps,
        seed=config.seed,
        parameters=network_cost.parameters,
        images=images,
        flops=float(images * network_cost.training),
        losses=scalars,
        config=config,
    )


def _shared_loss(runs):
    for name in LOSSES:
        if 2 * sum(name in run.losses for run in runs) >= len(runs):
            return name
    return LOSSES[-1]


def _check_comparable(folder, runs, loss):
    must_agree = MUST_AGREE if loss.startswith("evaluation/") else (*MUST_AGREE, *MUST_AGREE_IN_TRAINING)
    configs = [fields.flattened(run.config) for run in runs]
    for name in must_agree:
        found = {str(config.get(name)) for config in configs}
        if len(found) > 1:
            raise InputError(f"{folder}: config.{name} is {' and '.join(sorted(found))}, but losses must be comparable")
    if len({"vb" in run.losses for run in runs}) > 1:
        raise InputError(f"{folder}: some runs learn the variance and others do not, but losses must be comparable")
