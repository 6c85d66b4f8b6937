"""A sweep: the runs that `sweep()` of a config file yields, one folder each, all checked before the first is trained."""

import dataclasses
import importlib.util
import logging
import re
from collections.abc import Collection, Mapping
from pathlib import Path

import jax
import ml_collections

from sdit_jax import config as fields
from sdit_jax.checkpoint import Checkpoints
from sdit_jax.config import Config
from sdit_jax.diffusion.objective import make_objective
from sdit_jax.errors import InputError, TrainingFailed
from sdit_jax.training import optimizer
from sdit_jax.training.cadence import Due
from sdit_jax.training.loop import train_and_evaluate
from sdit_jax.training.metrics import last_scalars
from sdit_jax.training.outputs import missing
from sdit_jax.training.setup import total_steps

MAX_NAME = 200  # Characters of a folder name; file systems allow 255.
log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a sweep. `name` is its folder: the index, and the run's name in the sweep or else its overrides."""

    index: int
    name: str
    config: Config
    overrides: dict


def read_sweep(file: str, base: Config, given: Collection[str] = ()) -> list[Run]:
    """The runs of FILE.py[:ARG] or a shipped NAME[:ARG], whose `sweep()` or `sweep(arg)` yields overrides of `base`.

    An override is a mapping of dotted fields to values, such as {"model.width": 64}, or a pair of a name and such a mapping.
    No data are read. Raises InputError with file, run and field where there is no sweep, or a field is unknown, of a wrong
    type, out of range, or also `given` for all runs.
    """
    path, *argument = fields.locate(file, "sweep").split(":", 1)
    runs = []
    for index, yielded in enumerate(_yielded(path, argument)):
        try:
            name, overrides = _name_and_overrides(yielded)
            for field in overrides:
                if field in given:
                    raise InputError(f"config.{field}: set by the sweep, must not be overridden for all runs")
            config = overridden(base, overrides)
            _validate(config)
        except InputError as error:
            raise InputError(f"{path}, run {index}: {error}") from None
        runs.append(Run(index, _folder(index, name, overrides), config, dict(overrides)))
    if not runs:
        raise InputError(f"{path}: its sweep() yields no runs")
    return runs


def _name_and_overrides(yielded):
    name, overrides = yielded if isinstance(yielded, tuple) and len(yielded) == 2 else (None, yielded)
    if not isinstance(overrides, Mapping) or not isinstance(name, str | None):
        raise InputError(
            f"found {yielded!r}, must be a mapping of fields to values, such as {{'model.width': 64}}, or a name and a mapping"
        )
    return name, overrides


def _validate(config):
    """Raises InputError for everything that can be checked without data."""
    fields.validate(config)
    make_objective(config.diffusion)
    optimizer.check(config.optimizer)
    optimizer.learning_rate(config.optimizer, 1, 0)


def train_all(runs: list[Run], workdir: Path) -> dict[str, TrainingFailed]:
    """Trains or resumes one run after the other, each in `workdir/NAME`; returns the failures by run name.

    TrainingFailed does not end the sweep; every other exception does.
    """
    failed = {}
    for run in runs:
        place, folder = f"run {run.index + 1} of {len(runs)}", workdir / run.name
        if _finished(run, folder):
            log.info("%s is finished: %s", place, run.name)
            continue
        log.info("%s: %s", place, run.name)
        try:
            train_and_evaluate(run.config, folder)
        except TrainingFailed as error:
            log.warning("%s failed: %s", place, error)
            failed[run.name] = error
        jax.clear_caches()  # The next run compiles its own programs.
    return failed


def results(runs: list[Run], workdir: Path) -> list[dict]:
    """For each run its overrides, the last logged step and its scalars, and the number of steps in all."""
    found = []
    for run in runs:
        step, scalars = last_scalars(workdir / run.name / "metrics.jsonl")
        steps = {"step": step, "of": total_steps(run.config)}
        found.append({"run": run.name, "overrides": run.overrides, **steps, "scalars": scalars})
    return found


def to_markdown(found: list[dict], scalars: Collection[str]) -> str:
    """A table of results; unfinished runs are marked with their last step."""
    rows = [["run", *scalars], ["---"] * (1 + len(scalars))]
    for one in found:
        cut = "" if one["step"] >= one["of"] else f" (step {one['step']:,} of {one['of']:,})"
        values = [one["scalars"].get(name) for name in scalars]
        rows.append([one["run"] + cut, *("-" if value is None else f"{value:.4g}" for value in values)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def overridden(base: Config, overrides: Mapping) -> Config:
    """A copy of a configuration with dotted fields set, unknown ones too. Raises InputError for a field inside a value."""
    changed = base.to_dict()
    for name, value in overrides.items():
        *groups, field = str(name).split(".")
        group = changed
        for depth, part in enumerate(groups, 1):
            group = group.setdefault(part, {})
            if not isinstance(group, dict):
                raise InputError(f"config.{name}: unknown field; config.{'.'.join(groups[:depth])} is no group")
        group[field] = value
    return ml_collections.ConfigDict(changed)


def _yielded(path, argument):
    """Yields what `sweep()` of a config file yields. Any exception of the file becomes an InputError of one line."""
    try:
        spec = importlib.util.spec_from_file_location("sweep_config", path)
        module = importlib.util.module_from_spec(spec)  # pyright: ignore[reportArgumentType]
        spec.loader.exec_module(module)  # pyright: ignore[reportOptionalMemberAccess]
        if not hasattr(module, "sweep"):
            raise InputError(f"{path}: defines no sweep(), which yields the overrides of each run")
        yield from module.sweep(*argument)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path}: sweep() raised {type(error).__name__}: {error}") from None


def _folder(index, name, overrides):
    words = name or ",".join(f"{field}={value}" for field, value in overrides.items())
    folder = f"{index:03d}"
    if words:
        folder += "-" + re.sub(r"[^\w.=,+-]+", "_", words)
    return folder[:MAX_NAME]


def _finished(run, folder):
    """Whether the folder holds this run with its last checkpoint, picture and evaluation."""
    exists = (folder / "config.json").is_file() and (folder / "checkpoints").is_dir()
    if not exists or fields.load(folder).to_dict() != run.config.to_dict():
        return False
    total = total_steps(run.config)
    interval = fields.parse_duration(run.config.evaluation.every, "config.evaluation.every")
    last = Due(log=True, save=True, draw=True, evaluate=interval is not None and interval[0] > 0)
    with Checkpoints(folder) as checkpoints:
        newest = checkpoints.newest() or 0
    return newest > total or (newest == total and not any(missing(last, run.config, folder, total)))
