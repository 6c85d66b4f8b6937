"""Training, in reading order."""

import logging
import math
import sys
import time
from collections import deque
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from sdit_jax import config as fields
from sdit_jax import files, images, sharding
from sdit_jax.checkpoint import Checkpoints
from sdit_jax.config import Config, InputError
from sdit_jax.sampling.generate import example_labels, generate, make_sampler
from sdit_jax.training.metrics import MetricWriter, NoWriter
from sdit_jax.training.plan import Plan, make_plan
from sdit_jax.training.progress import Nowhere, Progress, StopRequest
from sdit_jax.training.state import TrainState
from sdit_jax.training.step import Health, compiled, empty_averages, make_train_step

# Fields that may differ when a run goes on: they do not change what is trained, but for rounding.
MAY_CHANGE = ("mesh.", "checkpoint.", "log.", "samples.", "evaluation.", "data.dir", "data.memory_GiB", "data.resident")
log = logging.getLogger(__name__)


class Stopped(Exception):
    """A run was asked to stop before its end: one line with the step that is saved."""


class TrainingFailed(RuntimeError):
    """Training cannot go on: one line with the step, what was not finite, and the last good checkpoint."""


def train_and_evaluate(config: Config, workdir: Path, *, dry_run: bool = False) -> TrainState | None:
    """Trains a configuration in a run folder, from its newest checkpoint where there is one, and returns the last state.

    Batches, noise and label dropout are functions of (seed, step), so a run that was stopped and went on equals one that was
    not, to the bit. Writes `config.json`, `checkpoints/`, `metrics.jsonl`, TensorBoard events and `samples/STEP.png`.
    With `dry_run`, prints what it would do, writes nothing and returns None. Of many processes, each calls this.

    Raises:
      InputError: a mistake in the configuration or the folder.
      TrainingFailed: the loss, or a parameter, is not finite.
      Stopped: SIGTERM, Ctrl-C, or a preemption notice to any process; the last step is saved.
    """
    # 1. Everything that can be wrong with the configuration is found before anything is written.
    plan = make_plan(config)
    _check_same_run(config, workdir)
    if dry_run:
        print(config, plan.overview(), plan.headline(), plan.describe(), "dry run: nothing was written", sep="\n")
        return None
    files.make_folder(workdir)
    writes = jax.process_index() == 0  # Logs and pictures; checkpoints are written by all.
    log.info("%s", plan.headline())
    if not writes:
        logging.getLogger("sdit_jax").setLevel(logging.WARNING)
    log.info("%s", plan.describe())

    # 2. The state: the newest checkpoint that can be read, else a new one.
    with ExitStack() as stack:
        stop = stack.enter_context(StopRequest())  # First in, last out: it listens until the last save is finished.
        if writes:
            stack.enter_context(files.only_user(workdir, "is training in this run folder"))
        checkpoints = stack.enter_context(Checkpoints(workdir, config.checkpoint.keep, plan.checkpoint_every))
        state = plan.new_state()
        state = checkpoints.restore(like=state) or state
        start = int(state.step)
        if start >= plan.total_steps:
            log.info("%s has already reached step %d of %d: nothing to do", workdir, start, plan.total_steps)
            return state
        if writes:
            files.write_json(workdir / "config.json", config.to_dict())
        log.info("starting at step %d: compiling", start)

        # 3. What happens at every step, and now and then.
        stack.enter_context(closing(plan.batches))
        train_step = make_train_step(plan.model, plan.objective, plan.tx, plan.rate, config, plan.mesh)
        empty = empty_averages(plan.model, plan.objective, state.params, plan.batches(start))
        empty = jax.device_put(empty, sharding.replicated(plan.mesh))
        train_step, cost = compiled(train_step, state, empty, plan.batches(start))
        log.info(
            "compiled in %.0f s: %.4g GFLOP and %.3g GiB of temporary memory per step and device",
            cost["seconds"], cost["flops"] / 1e9, cost["bytes"] / 2**30,
        )  # fmt: skip
        draw = _grid_drawer(plan, workdir)
        writer: Any = stack.enter_context(closing(MetricWriter(workdir, start) if writes else NoWriter()))
        writer.write_hparams(config.to_dict())
        total, seen = plan.total_steps * config.batch_size, start * config.batch_size
        progress = stack.enter_context(closing(Progress(total, seen, sys.stderr if writes else Nowhere())))
        averages, window_start, clock = jax.tree.map(jnp.copy, empty), start, time.monotonic()
        unread: deque[tuple[int, Health]] = deque()

        if stop:
            raise Stopped(f"asked to stop before step {start + 1}: nothing new to save; the same command goes on")

        # 4. The loop. The health of a step is read while the next one runs, except before something is kept.
        for step in range(start + 1, plan.total_steps + 1):
            state, averages, health = train_step(state, averages, plan.batches(step - 1))
            stopping = bool(stop) or checkpoints.preempted(step)  # Read once: a signal may come at any time.
            last = step == plan.total_steps or stopping
            due = {"log": last or (plan.log_every > 0 and step % plan.log_every == 0), "save": checkpoints.due(step) or last}
            draws = step == plan.total_steps or (plan.samples_every > 0 and step % plan.samples_every == 0 and not stopping)
            evaluates = plan.evaluate_every > 0 and (
                step == plan.total_steps or (step % plan.evaluate_every == 0 and not stopping)
            )
            if step == start + 1:  # The first one warms up; the clock starts here.
                jax.block_until_ready(health)
                window_start, clock = step, time.monotonic()
                progress.restart_clock()
            unread.append((step, health))
            while len(unread) > (0 if any(due.values()) or draws or evaluates else 1):
                read_step, read_health = unread.popleft()
                loss = check_health(read_step, read_health, state, checkpoints)
                progress.advance(config.batch_size, read_step, loss)

            if due["log"]:
                seconds = time.monotonic() - clock
                scalars = {name: float(average.compute()) for name, average in averages.items()}
                if step > window_start:
                    scalars["images_per_second"] = (step - window_start) * config.batch_size / seconds
                writer.write_scalars(step, scalars)
                writer.flush()
                progress.log()
                averages, window_start, clock = jax.tree.map(jnp.copy, empty), step, time.monotonic()
            if draws or evaluates:
                began = time.monotonic()
                if draws:
                    writer.write_images(step, {"samples": draw(step, state)})
                if evaluates:
                    writer.write_scalars(step, _evaluated(plan, state, writer))
                writer.flush()
                clock += time.monotonic() - began
                progress.restart_clock()
            if due["save"]:  # After what is drawn and measured: if that is cut short, it is done again.
                checkpoints.save(state)
            if stopping and step < plan.total_steps:
                raise Stopped(f"asked to stop: saved step {step}; the same command goes on from there")
        return state


def _check_same_run(config, workdir):
    """Raises InputError where the folder holds a run that this configuration would not continue."""
    if not (workdir / "config.json").exists():
        return
    before, now = _flat(fields.load(workdir)), _flat(config)
    may_change = MAY_CHANGE
    if config.optimizer.schedule == "constant" and "%" not in config.optimizer.warmup:
        may_change += ("duration",)  # Else the learning rate depends on it.
    for name in sorted(before | now):
        if before.get(name) != now.get(name) and not name.startswith(may_change):
            found, kept = now.get(name), before.get(name)
            raise InputError(f"config.{name}: found {found!r}, the run in {workdir} has {kept!r}; use another --workdir")


def _flat(config, prefix=""):
    flat = {}
    for name, value in config.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, ml_collections.ConfigDict) else {prefix + name: value}
    return flat


def check_health(step: int, health: Health, state: TrainState, checkpoints: Checkpoints) -> float:
    """The loss of a step. Raises TrainingFailed if it, or a parameter after the step, is not finite."""
    found = jax.device_get(health.terms)
    terms = {name: float(found[name]) for name in sorted(found, key="loss".__eq__)}  # The sum last: a term is to blame.
    bad = next((f"loss term {name!r} is {value}" for name, value in terms.items() if not math.isfinite(value)), None)
    if bad is None and int(health.bad_parameter) >= 0:
        path, _ = jax.tree_util.tree_leaves_with_path(state.params)[int(health.bad_parameter)]
        bad = f"parameter {'/'.join(entry.key for entry in path)} is not finite after it"
    if bad:
        checkpoints.wait()
        kept = checkpoints.newest()
        where = (
            f"the last good checkpoint is step {kept} in {checkpoints.folder}"
            if kept is not None
            else "no checkpoint was saved yet"
        )
        raise TrainingFailed(f"step {step}: {bad}; {where}; a lower optimizer.learning_rate or a clip_norm may help")
    return terms["loss"]


def _evaluated(plan: Plan, state: TrainState, writer: MetricWriter) -> dict[str, float]:
    """All that the evaluators say of the averaged and of the raw weights, as evaluation/ema/NAME and evaluation/raw/NAME.

    The same is written with its protocol, a record per step and kind of weights.
    """
    scalars, evaluate = {}, plan.evaluate
    assert evaluate is not None
    for weights, params in (("ema", state.ema), ("raw", state.params)):
        if params is None:
            continue
        values = dict(evaluate(sharding.local(params, plan.mesh)))
        scalars |= {f"evaluation/{weights}/{name}": value for name, value in values.items()}
        writer.write_evaluation(int(state.step), {"weights": weights, "values": values, "protocol": evaluate.protocol})
    log.info("%s", ", ".join(f"{name.removeprefix('evaluation/')} {value:.4g}" for name, value in scalars.items()))
    return scalars


def _grid_drawer(plan: Plan, workdir: Path):
    """draw(step, state): writes samples/STEP.png, from the averaged weights where there are any; returns the picture."""
    chosen = plan.config.samples
    sampler = make_sampler(
        plan.model,
        plan.objective,
        method=chosen.sampler,
        steps=chosen.steps,
        guidance=chosen.guidance,
        clip_x0=plan.config.diffusion.clip_x0,
        mesh=plan.mesh,
    )
    labels = example_labels(chosen.n, plan.model.num_classes)

    def draw(step, state):
        weights = state.params if state.ema is None else state.ema
        made = generate(sampler, sharding.local(weights, plan.mesh), labels, seed=plan.config.seed, batch_size=chosen.n)
        picture = images.grid(made)
        if jax.process_index() == 0:
            (workdir / "samples").mkdir(exist_ok=True)
            images.save_png(picture, workdir / "samples" / f"{step:08d}.png")
        return picture

    return draw
