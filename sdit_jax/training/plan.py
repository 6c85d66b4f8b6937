"""What a configuration amounts to before anything is computed or written: every mistake in it is found here."""

import dataclasses

import jax
import optax
from clu import parameter_overview
from jax.sharding import Mesh

from sdit_jax import config as fields
from sdit_jax import sharding
from sdit_jax.config import Config, InputError
from sdit_jax.data import sources
from sdit_jax.data.roads import Feed, make_batches
from sdit_jax.diffusion.objective import Objective
from sdit_jax.evaluation.evaluators import Evaluators, make_evaluator
from sdit_jax.models import SDiT, build
from sdit_jax.sampling.run import check_sampling, make_objective
from sdit_jax.training import optimizer
from sdit_jax.training.state import TrainState, create


@dataclasses.dataclass(frozen=True)
class Plan:
    """Model, process, data and durations (in steps) of a run."""

    config: Config
    mesh: Mesh
    model: SDiT
    objective: Objective
    batches: Feed
    rate: optax.Schedule
    tx: optax.GradientTransformation
    total_steps: int
    checkpoint_every: int
    log_every: int
    samples_every: int
    evaluate_every: int
    evaluate: Evaluators | None  # Where the configuration asks for it.

    def new_state(self) -> TrainState:
        """The state before the first step, laid out on the mesh."""
        make = lambda: create(self.model, self.tx, self.config.seed, self.config.ema.half_life > 0)
        return jax.jit(make, out_shardings=sharding.shardings(self.mesh, jax.eval_shape(make)))()

    def headline(self) -> str:
        """Which process this is, on what, and how the batch is split: what every process says first."""
        mesh = " x ".join(f"{axis} {size}" for axis, size in self.mesh.shape.items())
        return (
            f"process {jax.process_index()} of {jax.process_count()}, {jax.device_count()} devices "
            f"({jax.devices()[0].device_kind}), mesh {mesh}, batch {self.config.batch_size}"
            + (f" in {self.config.microbatches} parts" if self.config.microbatches > 1 else "")
        )

    def describe(self) -> str:
        """A few lines for a person: data, sizes, durations."""
        config, images = self.config, self.batches.length
        parameters = sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(self.new_state).params))
        half_life = f"{config.ema.half_life:,.0f} images" if config.ema.half_life else "off"
        return "\n".join(
            [
                f"{config.data.name} {config.data.split}: {self.batches.describe()}",
                f"{parameters:,} parameters, width {config.model.width}, {config.model.depth + 1} blocks, "
                f"{config.model.timesteps} spiking steps, products in {config.model.dtype}, EMA half-life {half_life}",
                f"{self.total_steps:,} steps ({self.total_steps * config.batch_size:,} images, "
                f"{self.total_steps * config.batch_size / images:.1f} epochs); checkpoint every "
                f"{self.checkpoint_every or '-'}, log every {self.log_every or '-'}, samples every {self.samples_every or '-'}"
                + (f", evaluation every {self.evaluate_every}" if self.evaluate_every else ""),
            ]
        )

    def overview(self) -> str:
        """Every parameter with its shape."""
        return parameter_overview.get_parameter_overview(jax.eval_shape(self.new_state).params, include_stats=False)


def make_plan(config: Config) -> Plan:
    """Reads the data and checks everything. Raises InputError for the first mistake; writes nothing."""
    fields.validate(config)
    mesh = sharding.make_mesh(config.mesh)
    sharding.check_batch_size(config.batch_size, config.microbatches, mesh)
    model = build(config.model)
    objective = make_objective(config.diffusion)
    chosen = {name: config.samples[name] for name in ("sampler", "steps", "guidance")}
    check_sampling(model, objective, **chosen, prefix="config.samples.")

    data = sources.open_source(config.data.name, config.data.split, config.data.dir)
    if model.num_classes not in (0, data.num_classes):
        raise InputError(
            f"config.model.num_classes: found {model.num_classes}, {config.data.name} has {data.num_classes} (0 ignores them)"
        )
    batches = make_batches(
        data, config.data, mesh, size=model.image_size, channels=model.channels, batch_size=config.batch_size, seed=config.seed
    )

    lengths = {"batch_size": config.batch_size, "epoch_images": batches.length}
    total = fields.duration_steps(config.duration, "config.duration", **lengths)
    if total < 1:
        raise InputError(f"config.duration: found {config.duration!r}, must be at least one step")

    def steps(text, name):
        return fields.duration_steps(text, f"config.{name}", **lengths, total_steps=total)

    evaluate_every = steps(config.evaluation.every, "evaluation.every")
    rate = optimizer.learning_rate(config.optimizer, total, steps(config.optimizer.warmup, "optimizer.warmup"))
    return Plan(
        config, mesh, model, objective, batches, rate, optimizer.adamw(config.optimizer, rate, model), total,
        checkpoint_every=steps(config.checkpoint.every, "checkpoint.every"),
        log_every=steps(config.log.every, "log.every"),
        samples_every=steps(config.samples.every, "samples.every"),
        evaluate_every=evaluate_every,
        evaluate=make_evaluator(config, model, objective, mesh) if evaluate_every else None,
    )  # fmt: skip


def total_steps(config: Config) -> int:
    """Optimizer steps of a run; data are opened only where its duration counts epochs."""
    data, epoch_images = config.data, 1
    parsed = fields.parse_duration(config.duration, "config.duration")
    if parsed and parsed[1] == "epochs":
        epoch_images = len(sources.open_source(data.name, data.split, data.dir))
    return fields.duration_steps(config.duration, "config.duration", batch_size=config.batch_size, epoch_images=epoch_images)
