"""Resuming: whether a run folder holds the run that a configuration describes, and how one that has ended is made longer."""

import logging
from pathlib import Path

from sdit_jax import files
from sdit_jax.config import Config, flattened, load
from sdit_jax.errors import InputError
from sdit_jax.training.setup import Setup, total_steps

log = logging.getLogger(__name__)
# Fields that may differ when a run resumes: what is trained does not depend on them, but for rounding.
MAY_CHANGE = (
    "mesh.", "profile", "checkpoint.", "log.", "samples.", "evaluation.", "data.dir", "data.memory_GiB", "data.resident",
)  # fmt: skip
DATA, TEACHER = "dataset.sha256", "teacher.sha256"


def lengthened(config: Config, workdir: Path) -> Config:
    """The configuration of a run whose learning rate starts anew where it has ended, if its duration has grown since.

    A rate that has decayed would have decayed later in a longer run. So from the last step on, `optimizer.restart`, it warms up
    and decays once more over the steps that are added. Raises InputError where the configuration asks for another step.
    """
    field, chosen = "optimizer.restart", config.optimizer.restart
    before = load(workdir) if (workdir / "config.json").exists() else config
    restart = before.optimizer.restart if before is not config else 0
    if before.duration != config.duration and not _free(config):
        ended, total = total_steps(_of_data(before, config)), total_steps(config)
        if total > ended == _newest(workdir):
            restart = ended
            log.info("the run in %s has ended at step %d: its learning rate starts anew, up to step %d", workdir, ended, total)
    if chosen not in (0, restart):
        raise InputError(f"config.{field}: found {chosen}, it is set where a run that has ended is made longer; leave it out")
    if restart == chosen:
        return config
    config = config.copy_and_resolve_references()
    config.optimizer.restart = restart
    return config


def check_same_run(setup: Setup, workdir: Path) -> None:
    """Raises InputError where the folder holds a run that this configuration, on these data, would not continue."""
    if not (workdir / "config.json").exists():
        return
    config = setup.config
    before, now = flattened(load(workdir)), flattened(config)
    may_change = MAY_CHANGE
    if _free(config) or config.optimizer.restart != before["optimizer.restart"]:
        may_change += ("duration", "optimizer.restart")
    for name in sorted(before | now):
        if before.get(name) != now.get(name) and not name.startswith(may_change):
            found, kept = now.get(name), before.get(name)
            hint = "; a run that has ended can be made longer" if name == "duration" else ""
            raise InputError(f"config.{name}: found {found!r}, the run in {workdir} has {kept!r}; use another run folder{hint}")
    for name, (field, found, hashes) in _inputs(setup).items():
        # Runs of earlier versions kept fewer lines.
        if (workdir / name).exists() and not hashes.startswith((workdir / name).read_text()):
            raise InputError(
                f"config.{field}: {found} has changed since the run in {workdir} began; restore it, or use another run folder"
            )


def write_description(setup: Setup, workdir: Path) -> None:
    """Writes what `check_same_run` compares: config.json, and the hashes of the data set and of a teacher."""
    files.write_json(workdir / "config.json", setup.config.to_dict())
    for name, (_, _, hashes) in _inputs(setup).items():
        files.write_text(workdir / name, hashes)


def _inputs(setup):
    """By the file of its hashes: the field, the name and the hashes of what a run learns from."""
    data, teacher = setup.config.data, setup.config.distillation.teacher
    inputs = {DATA: ("data", f"{data.name} {data.split}", setup.contents)}
    if setup.teacher:
        inputs[TEACHER] = ("distillation.teacher", teacher, setup.teacher.contents)
    return inputs


def _free(config):
    """Whether no learning rate depends on the duration."""
    return config.optimizer.schedule == "constant" and "%" not in config.optimizer.warmup


def _of_data(before, config):
    """The earlier configuration, on data that may lie elsewhere today."""
    before = before.copy_and_resolve_references()
    before.data.update(config.data)
    return before


def _newest(workdir):
    steps = (int(path.name) for path in (workdir / "checkpoints").glob("*") if path.name.isdecimal())
    return max(steps, default=0)
