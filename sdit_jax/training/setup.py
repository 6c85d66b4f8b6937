"""Set-up of a run: everything that can be wrong with a configuration is found here, before anything is computed or written."""

import dataclasses
import functools
import logging

import jax
import jax.numpy as jnp
import optax
from clu import parameter_overview
from jax.sharding import Mesh

from sdit_jax import config as fields
from sdit_jax import sharding
from sdit_jax.config import Config
from sdit_jax.data import sources
from sdit_jax.data.loader import Loader, make_loader
from sdit_jax.diffusion.objective import Objective, make_objective
from sdit_jax.errors import InputError
from sdit_jax.models import Network, build
from sdit_jax.sampling.how import Sampling
from sdit_jax.training import optimizer
from sdit_jax.training.cadence import Cadence
from sdit_jax.training.distillation import Teacher, read_teacher
from sdit_jax.training.evaluators import Evaluators, make_evaluator
from sdit_jax.training.initial import read_initial, started_from
from sdit_jax.training.state import TrainState, create
from sdit_jax.training.step import empty_averages

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Setup:
    """The parts of a run."""

    config: Config
    mesh: Mesh
    model: Network
    objective: Objective
    contents: str  # Of the data set: lines of hashes.
    loader: Loader
    rate: optax.Schedule
    tx: optax.GradientTransformation
    teacher: Teacher | None  # None where the network learns from images alone.
    cadence: Cadence
    sampling: Sampling  # Of the pictures.
    evaluate: Evaluators | None  # None where the configuration never evaluates.

    def new_state(self) -> TrainState:
        """The state before the first step, laid out on the mesh. Raises InputError for a `config.init` that does not fit."""
        new = jax.jit(self._create, out_shardings=sharding.shardings(self.mesh, self.shapes, self.model.layout))()
        initial = read_initial(self.config, self.shapes)
        if initial is None:
            return new
        log.info("%s", initial.line)
        return started_from(new, initial.weights)

    def abstract_state(self) -> TrainState:
        """Shapes and shardings of the state."""
        placed = lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)
        return jax.tree.map(placed, self.shapes, sharding.shardings(self.mesh, self.shapes, self.model.layout))

    @functools.cached_property
    def shapes(self) -> TrainState:
        """Shapes of the state."""
        return jax.eval_shape(self._create)

    @functools.cached_property
    def _create(self):
        """() -> the state: one function, so that JAX traces the network's initialisation once, which takes seconds."""
        return functools.partial(create, self.model, self.tx, self.config.seed, self.config.ema.half_life > 0)

    def headline(self) -> str:
        """Process, devices, mesh and batch: the first line of every process's log."""
        mesh = " x ".join(f"{axis} {size}" for axis, size in self.mesh.shape.items())
        line = (
            f"process {jax.process_index()} of {jax.process_count()}, {jax.device_count()} devices "
            f"({jax.devices()[0].device_kind}), mesh {mesh}, batch {self.config.batch_size}"
        )
        return f"{line} in {self.config.microbatches} parts" if self.config.microbatches > 1 else line

    def describe(self) -> str:
        """Data, sizes and durations, in a few lines for a log."""
        config, cadence = self.config, self.cadence
        parameters = sum(leaf.size for leaf in jax.tree.leaves(self.abstract_state().params))
        half_life = f"{config.ema.half_life:,.0f} images" if config.ema.half_life else "off"
        images = cadence.total * config.batch_size
        intervals = {"checkpoint": cadence.save, "log": cadence.log, "samples": cadence.draw}
        if cadence.evaluate:
            intervals["evaluation"] = cadence.evaluate
        every = ", ".join(f"{name} every {interval or '-'}" for name, interval in intervals.items())
        teacher = f"\nlearning from {config.distillation.teacher}" if self.teacher else ""
        lines = (
            f"{config.data.name} {config.data.split}: {self.loader.describe()}",
            f"{parameters:,} parameters, {self.model.summary}, EMA half-life {half_life}",
            f"{cadence.total:,} steps ({images:,} images, {images / self.loader.num_images:.1f} epochs); {every}",
        )
        return "\n".join(lines) + teacher

    def overview(self) -> str:
        """A table of all parameters with their shapes."""
        return parameter_overview.get_parameter_overview(self.abstract_state().params, include_stats=False)


def make_setup(config: Config) -> Setup:
    """Reads the data and checks everything. Raises InputError for the first mistake; writes nothing."""
    fields.validate(config)
    mesh = sharding.make_mesh(config.mesh)
    sharding.check_batch_size(config.batch_size, config.microbatches, mesh)
    model = build(config.model)
    objective = make_objective(config.diffusion)
    samples = config.samples
    sampling = Sampling(samples.sampler, samples.steps, samples.guidance, config.diffusion.clip_x0)
    sampling.check(model, objective, "config.samples.")

    data = sources.open_source(config.data.name, config.data.split, config.data.dir)
    if model.num_classes not in (0, data.num_classes):
        raise InputError(
            f"config.model.num_classes: found {model.num_classes}, {config.data.name} has {data.num_classes} (0 ignores them)"
        )
    sizes = {"size": model.image_size, "channels": model.channels, "batch_size": config.batch_size}
    loader = make_loader(data, config.data, mesh, **sizes, seed=config.seed)

    lengths = {"batch_size": config.batch_size, "epoch_images": loader.num_images}
    total = fields.duration_steps(config.duration, "config.duration", **lengths)
    if total < 1:
        raise InputError(f"config.duration: found {config.duration!r}, must be at least one step")
    traced = fields.parse_steps(config.profile, "config.profile")
    if traced and traced[1] > total:
        raise InputError(f"config.profile: found {config.profile!r}, must end by step {total}, the last")
    steps = functools.partial(fields.duration_steps, **lengths, total_steps=total)
    cadence = Cadence(
        total,
        log=steps(config.log.every, "config.log.every"),
        save=steps(config.checkpoint.every, "config.checkpoint.every"),
        draw=steps(config.samples.every, "config.samples.every"),
        evaluate=steps(config.evaluation.every, "config.evaluation.every"),
        keep=steps(config.checkpoint.keep_every, "config.checkpoint.keep_every"),
    )
    if cadence.keep % (cadence.save or total):
        raise InputError(
            f"config.checkpoint.keep_every: found {config.checkpoint.keep_every!r}, {cadence.keep} steps, must be a multiple "
            f"of config.checkpoint.every, {cadence.save or total} steps"
        )
    warmup = steps(config.optimizer.warmup, "config.optimizer.warmup", total_steps=total - config.optimizer.restart)
    rate = optimizer.learning_rate(config.optimizer, total, warmup)
    tx = optimizer.make_optimizer(config.optimizer, rate, model)
    evaluate = make_evaluator(config, model, objective, mesh) if cadence.evaluate else None
    teacher = read_teacher(config, model, objective)
    setup = Setup(config, mesh, model, objective, data.contents, loader, rate, tx, teacher, cadence, sampling, evaluate)
    if config.spike_penalty and not _spikes(setup):
        raise InputError(f"config.spike_penalty: found {config.spike_penalty}, must be 0 for a network that does not spike")
    return setup


def _spikes(setup):
    """Whether the network reports firing rates."""
    image_BHWC = jax.ShapeDtypeStruct((1, *2 * (setup.model.image_size,), setup.model.channels), jnp.uint8)
    batch = {"image": image_BHWC, "label": jax.ShapeDtypeStruct((1,), jnp.int32)}
    return any(
        name.startswith("firing_rate/") for name in empty_averages(setup.model, setup.objective, setup.shapes.variables, batch)
    )


def total_steps(config: Config) -> int:
    """Optimizer steps of a run. Opens the data only if its duration counts epochs."""
    data, epoch_images = config.data, 1
    parsed = fields.parse_duration(config.duration, "config.duration")
    if parsed and parsed[1] == "epochs":
        epoch_images = len(sources.open_source(data.name, data.split, data.dir))
    return fields.duration_steps(config.duration, "config.duration", batch_size=config.batch_size, epoch_images=epoch_images)
