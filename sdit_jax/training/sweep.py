"""A sweep: the runs that a config file's `sweep()` asks for, one folder each, all checked before the first is trained."""

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
from sdit_jax.config import Config, InputError
from sdit_jax.models import build
from sdit_jax.sampling.run import make_objective
from sdit_jax.training import optimizer
from sdit_jax.training.loop import TrainingFailed, train_and_evaluate
from sdit_jax.training.metrics import last_scalars
from sdit_jax.training.plan import total_steps

MAX_NAME = 200  # Letters of a folder's name; file systems take 255.
log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a sweep; `name` is that of its folder: its place, and the name it was given or its overrides."""

    index: int
    name: str
    config: Config
    overrides: dict


def read_sweep(file: str, base: Config, given: Collection[str] = ()) -> list[Run]:
    """The runs of FILE.py[:ARGS]: what its `sweep()` or `sweep(args)` yields, over a base configuration.

    It yields mappings of dotted fields to values, such as {"model.width": 64}, or pairs of a name and such a mapping. No data
    are read. Raises InputError that names file, run and field where there is no sweep, or a field is unknown, of a wrong type
    or out of range, or one of those already `given` by hand.
    """
    path, *argument = file.split(":", 1)
    runs = []
    for index, yielded in enumerate(_yielded(path, argument)):
        try:
            name, overrides = yielded if isinstance(yielded, tuple) and len(yielded) == 2 else (None, yielded)
            if not isinstance(overrides, Mapping) or not isinstance(name, str | None):
                raise InputError(
                    f"found {yielded!r}, must be fields and values, such as {{'model.width': 64}}, or a name and such"
                )
            for field in overrides:
                if field in given:
                    raise InputError(f"config.{field}: set by the sweep; leave out the flag")
            config = overridden(base, overrides)
            fields.validate(config)
            build(config.model)
            make_objective(config.diffusion)
            optimizer.adamw(config.optimizer, optimizer.learning_rate(config.optimizer, 1, 0))
        except InputError as error:
            raise InputError(f"{path}, run {index}: {error}") from None
        runs.append(Run(index, _folder(index, name, overrides), config, dict(overrides)))
    if not runs:
        raise InputError(f"{path}: its sweep() yields no runs")
    return runs


def train_all(runs: list[Run], workdir: Path) -> dict[str, TrainingFailed]:
    """Trains one after the other, each in `workdir/NAME`, from where it was; returns those that failed, by name.

    A run that fails does not stop the others; any other exception does, a stop among them.
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
        jax.clear_caches()  # No other run has its programs.
    return failed


def results(runs: list[Run], workdir: Path) -> list[dict]:
    """What has become of each run: its overrides, steps done of all, and the scalars of the last step that it has logged."""
    found = []
    for run in runs:
        step, scalars = last_scalars(workdir / run.name / "metrics.jsonl")
        steps = {"step": step, "of": total_steps(run.config)}
        found.append({"run": run.name, "overrides": run.overrides, **steps, "scalars": scalars})
    return found


def to_markdown(found: list[dict], scalars: Collection[str]) -> str:
    """Results as a table; a run that is not finished says how far it came."""
    rows = [["run", *scalars], ["---"] * (1 + len(scalars))]
    for one in found:
        cut = "" if one["step"] >= one["of"] else f" (step {one['step']:,} of {one['of']:,})"
        values = [one["scalars"].get(name) for name in scalars]
        rows.append([one["run"] + cut, *("-" if value is None else f"{value:.4g}" for value in values)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def overridden(base: Config, overrides: Mapping) -> Config:
    """A copy of a configuration with dotted fields set, existing or not. Raises InputError for a field inside of a value."""
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
    """What sweep() yields. The file is the user's: whatever it raises is told in one line."""
    try:
        spec = importlib.util.spec_from_file_location("sweep_config", path)
        module = importlib.util.module_from_spec(spec)  # pyright: ignore[reportArgumentType]
        spec.loader.exec_module(module)  # pyright: ignore[reportOptionalMemberAccess]
        if not hasattr(module, "sweep"):
            raise InputError(f"{path}: defines no sweep(), which would yield the overrides of each run")
        yield from module.sweep(*argument)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path}: sweep() raised {type(error).__name__}: {error}") from None


def _folder(index, name, overrides):
    words = name or ",".join(f"{field}={value}" for field, value in overrides.items())
    return "-".join([f"{index:03d}", *filter(None, [re.sub(r"[^\w.=,+-]+", "_", words)])])[:MAX_NAME]


def _finished(run, folder):
    """Whether the folder holds this run at its end; `train_and_evaluate` is to judge one that is not the same."""
    there = (folder / "config.json").is_file() and (folder / "checkpoints").is_dir()
    if not there or fields.load(folder).to_dict() != run.config.to_dict():
        return False
    with Checkpoints(folder) as checkpoints:
        return (checkpoints.newest() or 0) >= total_steps(run.config)
