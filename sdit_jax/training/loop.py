"""The training loop: opens a run folder and takes its steps (parts in `setup`, what is due at a step in `cadence`)."""

import logging
import math
import sys
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import jax
import jax.numpy as jnp

from sdit_jax import files, memory, sharding
from sdit_jax.analysis import chips
from sdit_jax.checkpoint import Checkpoints
from sdit_jax.config import Config, parse_steps, validate
from sdit_jax.errors import Stopped, TrainingFailed
from sdit_jax.sharding import processes
from sdit_jax.training.initial import read_initial
from sdit_jax.training.metrics import MetricWriter, NoWriter
from sdit_jax.training.outputs import Outputs, agreed_missing
from sdit_jax.training.profile import Profile
from sdit_jax.training.progress import NullStream, Progress, StopRequest
from sdit_jax.training.resume import check_same_run, lengthened, write_description
from sdit_jax.training.setup import Setup, make_setup
from sdit_jax.training.speed import Speed
from sdit_jax.training.state import TrainState
from sdit_jax.training.step import Averages, Health, TooLarge, compiled, empty_averages, make_train_step

log = logging.getLogger(__name__)


def train_and_evaluate(config: Config, workdir: Path, *, dry_run: bool = False) -> TrainState | None:
    """Trains a configuration in a run folder, from its newest checkpoint if there is one, and returns the last state.

    Batches, noise and dropout are functions of (seed, step), so that a run that was stopped and resumed equals one that was
    not, to the bit. Writes `config.json`, `checkpoints/`, `metrics.jsonl`, TensorBoard events, `samples/STEP.png` and
    `evaluation.jsonl`, and `profile/` where that is asked for. With `dry_run`, prints what it would do, writes nothing and
    returns None. Every process of a run calls this.

    Raises:
      InputError: a mistake in the configuration or the folder.
      TrainingFailed: the loss, a parameter or a running statistic is not finite.
      Stopped: SIGTERM, Ctrl-C, or a preemption notice to any process; the state is saved, and a rerun resumes.
    """
    validate(config)
    config = lengthened(config, workdir)
    setup = make_setup(config)
    check_same_run(setup, workdir)
    if not (workdir / "config.json").exists():
        read_initial(config, setup.shapes)  # Before anything is written. A run that has begun does without it.
    if dry_run:
        print(config, setup.overview(), setup.headline(), setup.describe(), "dry run: nothing was written", sep="\n")
        return None
    files.make_folder(workdir)
    first = jax.process_index() == 0  # Process 0 writes logs and pictures; all processes write checkpoints.
    log.info("%s", setup.headline())
    if not first:
        logging.getLogger("sdit_jax").setLevel(logging.WARNING)
    log.info("%s", setup.describe())
    processes.wait_for_all("the start")

    with ExitStack() as stack:
        stop = stack.enter_context(StopRequest())  # Entered first and left last: signals are caught until all is saved.
        if first:
            stack.enter_context(files.exclusive(workdir, "is training in this run folder"))
        checkpoints = stack.enter_context(Checkpoints(workdir, config.checkpoint.keep, setup.cadence.keep))
        state = checkpoints.restore(like=setup.abstract_state()) or setup.new_state()
        start, total = int(state.step), setup.cadence.total
        overdue = agreed_missing(setup, workdir, start)
        if start >= total and not any(overdue):
            log.info("%s has already reached step %d of %d: nothing to do", workdir, start, total)
            return state
        if first:
            write_description(setup, workdir)
        writer = stack.enter_context(closing(MetricWriter(workdir, start) if first else NoWriter()))
        writer.write_hparams(config.to_dict())
        stack.enter_context(closing(setup.loader))
        outputs = Outputs(setup, workdir, writer)
        if any(overdue):
            _raise_if_stopped(stop, start)
            log.info("making the picture or evaluation that is missing of step %d", start)
            stop.interrupting(lambda: outputs.make(state, overdue))
            _raise_if_stopped(stop, start)
        if start < total:
            log.info("starting at step %d: compiling", start)
            program = stop.interrupting(lambda: _compile(setup, state))
            _raise_if_stopped(stop, start)
            assert program is not None
            processes.wait_for_all("the first step")
            train_step, empty, flops = program
            peak = chips.peak(jax.devices()[0].device_kind, setup.model.dtype)
            speed = Speed(start, config.batch_size, flops / setup.mesh.size, peak)
            stream = sys.stderr if first else NullStream()
            progress = stack.enter_context(closing(Progress(total, start, config.batch_size, speed, stream)))
            traced = parse_steps(config.profile, "config.profile")
            profile = stack.enter_context(closing(Profile(traced, workdir, progress.paused)))
            state = _run(setup, state, train_step, empty, checkpoints, writer, outputs, progress, profile, stop)
        return state


def _compile(setup: Setup, state: TrainState) -> tuple[Callable, Averages, float]:
    """The compiled training step, empty averages of its scalars, and its FLOPs as `Speed` counts them, on all devices."""
    batch = setup.loader(int(state.step))
    train_step = make_train_step(
        setup.model, setup.objective, setup.tx, setup.rate, setup.config, setup.mesh, setup.shapes, setup.teacher
    )
    empty = empty_averages(setup.model, setup.objective, state.variables, batch, setup.config.spike_penalty)
    empty = jax.device_put(empty, sharding.replicated(setup.mesh))
    program, cost = compiled(train_step, state, empty, batch)
    log.info(
        "compiled in %.0f s: %.4g GFLOP a step, %.3g GiB of temporary memory on each device",
        cost["seconds"], cost["flops"] / 1e9, cost["bytes"] / 2**30,
    )  # fmt: skip
    check_memory(cost["bytes"], setup.config)
    return program, empty, cost["model_flops"]


def check_memory(temporary: float, config: Config) -> None:
    """Raises TooLarge where a step's temporary memory, in bytes on each device, is not free: it would swap, or be killed."""
    device = jax.local_devices()[0]
    sharing = len(jax.local_devices()) if device.platform == "cpu" else 1
    free = memory.free(device)
    if free is not None and sharing * temporary > free:
        raise TooLarge(config.batch_size, sharing * temporary / 2**30, free / 2**30)


def _run(
    setup: Setup, state: TrainState, train_step: Callable, empty: Averages, checkpoints: Checkpoints, writer: MetricWriter,
    outputs: Outputs, progress: Progress, profile: Profile, stop: StopRequest,
) -> TrainState:  # fmt: skip
    """Takes the steps after that of `state`. A step's health is read while the next one runs, or at once if anything is due."""
    start, total = int(state.step), setup.cadence.total
    averages, speed = jax.tree.map(jnp.copy, empty), progress.speed
    unread: deque[tuple[int, Health]] = deque()
    for step in range(start + 1, total + 1):
        with speed.waiting("input"):
            batch = setup.loader(step - 1)
        state, averages, health = profile.call(step, train_step, state, averages, batch)
        stopping = bool(stop) or checkpoints.preempted(step)  # Read once per step: a signal may come at any time.
        due = setup.cadence.due(step, stopping)
        if step == start + 1:  # The first step warms up and is left out of the speed.
            jax.block_until_ready(health)
            progress.bar.unpause()
            speed.restart(step)
        unread.append((step, health))
        while len(unread) > (0 if any(due) else 1):
            read_step, read_health = unread.popleft()
            progress.advance(read_step, check_health(read_step, read_health, state, checkpoints))

        if due.log:
            scalars = {name: float(average.compute()) for name, average in averages.items()}
            writer.write_scalars(step, scalars | speed.scalars(step))
            writer.flush()
            progress.log()
            speed.restart(step)
            averages = jax.tree.map(jnp.copy, empty)
        if due.save:
            with speed.waiting("checkpoint"):
                checkpoints.save(state)
        if stopping:
            raise Stopped(f"stopped: saved step {step} of {total}; rerun to resume")
        if due.draw or due.evaluate:
            with progress.paused():
                stop.interrupting(lambda state=state, due=due: outputs.make(state, due))
            if stop:
                checkpoints.save(state)
                raise Stopped(f"stopped: saved step {step} of {total}; rerun to resume")
    return state


def _raise_if_stopped(stop: StopRequest, step: int) -> None:
    if stop:
        raise Stopped(f"stopped before step {step + 1}: nothing new to save; rerun to resume")


def check_health(step: int, health: Health, state: TrainState, checkpoints: Checkpoints) -> float:
    """The loss of a step. Raises TrainingFailed if it, or a variable after the step, is not finite."""
    terms = {name: float(value) for name, value in jax.device_get(health.terms).items()}
    bad = [name for name, value in terms.items() if not math.isfinite(value)]
    fault = None
    if bad:
        name = next((name for name in bad if name != "loss"), "loss")  # "loss" is the sum: name the term that spoiled it.
        fault = f"loss term {name!r} is {terms[name]}"
    elif int(health.bad_leaf) >= 0:
        path, _ = jax.tree_util.tree_leaves_with_path(state.variables)[int(health.bad_leaf)]
        collection, *names = (entry.key for entry in path)
        kind = "parameter" if collection == "params" else collection
        fault = f"{kind} {'/'.join(names)} is not finite after it"
    if fault:
        checkpoints.wait()
        kept = checkpoints.newest()
        where = "no checkpoint was saved yet"
        if kept is not None:
            where = f"the last good checkpoint is step {kept} in {checkpoints.folder}"
        raise TrainingFailed(f"step {step}: {fault}; {where}; a lower optimizer.learning_rate or a clip_norm may help")
    return terms["loss"]
