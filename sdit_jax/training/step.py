"""One optimizer step: noise, prediction, loss, gradient, update, average. A pure function of (state, batch, seed)."""

import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from clu.metrics import Average
from jax.sharding import Mesh

from sdit_jax import images, sharding
from sdit_jax.config import Config
from sdit_jax.diffusion.loss import diffusion_loss
from sdit_jax.diffusion.objective import Objective
from sdit_jax.diffusion.process import add_noise
from sdit_jax.layers.spiking import firing_rates
from sdit_jax.models import SDiT
from sdit_jax.training.state import TrainState, create, ema_decay

Averages = dict[str, Average]


class Health(NamedTuple):
    """What must be finite for training to go on: the mean loss terms, and the parameters after the step.

    `bad_parameter` is the place, among the leaves of the parameters, of the first that is not finite; -1 for none.
    """

    terms: dict[str, jax.Array]
    bad_parameter: jax.Array


class Examples(NamedTuple):
    """A batch, noised: clean images in [-1, 1], timesteps, noise, noised images, labels."""

    x_0: jax.Array
    t_B: jax.Array
    noise: jax.Array
    x_t: jax.Array
    y_B: jax.Array


def noised(objective: Objective, batch, key) -> Examples:
    """Draws a timestep and noise for every uint8 image of a batch."""
    key_t, key_noise = jax.random.split(key)
    x_0 = images.from_uint8(batch["image"])
    t_B = objective.timesteps(key_t, x_0.shape[:1])
    noise = jax.random.normal(key_noise, x_0.shape)
    return Examples(x_0, t_B, noise, add_noise(objective.schedule, x_0, t_B, noise), batch["label"])


def loss_terms(model: SDiT, objective: Objective, params, examples: Examples, key) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Mean loss, and scalars worth watching: loss terms, firing rates of neurons if any, by name. The key drops labels."""
    x_0, t_B, noise, x_t, y_B = examples
    output, sown = model.apply(
        {"params": params}, x_t, t_B, y_B, train=True, rngs={"label_dropout": key}, mutable=["spikes"]
    )  # fmt: skip
    terms = diffusion_loss(objective, output, x_0, x_t, t_B, noise)
    means = {name: value.mean() for name, value in terms.items()}
    return means["loss"], means | firing_rates(sown.get("spikes") or {})


def gradients(model: SDiT, objective: Objective, params, examples: Examples, key, microbatches: int = 1):
    """(scalars, gradients of the mean loss), means over microbatches, which are worked on one after the other.

    Each takes every `microbatches`-th example, so that all devices have their share of each; labels are dropped by other draws
    than in one piece.
    """

    def of_part(examples, key):
        gradient = jax.value_and_grad(lambda p: loss_terms(model, objective, p, examples, key), has_aux=True)
        (_, scalars), grads = gradient(params)
        return scalars, grads

    if microbatches == 1:
        return of_part(examples, key)
    parts = jax.tree.map(lambda a: a.reshape(-1, microbatches, *a.shape[1:]).swapaxes(0, 1), examples)
    parts = parts, jax.random.split(key, microbatches)
    nothing = jax.tree.map(jnp.zeros_like, jax.eval_shape(of_part, *jax.tree.map(lambda a: a[0], parts)))
    total, _ = jax.lax.scan(lambda total, part: (jax.tree.map(jnp.add, total, of_part(*part)), None), nothing, parts)
    return jax.tree.map(lambda a: a / microbatches, total)


def make_train_step(
    model: SDiT, objective: Objective, tx: optax.GradientTransformation, rate: optax.Schedule, config: Config, mesh: Mesh
) -> Callable[[TrainState, Averages, dict], tuple[TrainState, Averages, Health]]:
    """train_step(state, averages, batch) -> (state, averages, health), compiled; state and averages are donated.

    `averages` takes in the scalars of this step: the means since they were last empty (see `empty_averages`).
    """

    def train_step(state: TrainState, averages: Averages, batch):
        key_noise, key_labels = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), state.step))
        examples = noised(objective, batch, key_noise)
        with sharding.on_mesh(mesh):
            scalars, grads = gradients(model, objective, state.params, examples, key_labels, config.microbatches)
        updates, optimizer = tx.update(grads, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = state.ema
        if ema is not None:
            seen = (state.step + 1).astype(jnp.float32) * config.batch_size
            decay = ema_decay(config.batch_size, seen, config.ema.half_life, config.ema.ramp)
            ema = optax.incremental_update(params, ema, 1 - decay)

        bad = jnp.stack([~jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(params)])
        health = Health(
            {name: scalars[name] for name in ("mse", "vb", "loss") if name in scalars},
            jnp.where(bad.any(), jnp.argmax(bad), -1),
        )
        scalars |= {"gradient_norm": optax.tree.norm(grads), "learning_rate": rate(state.step)}
        averages = {name: averages[name].merge(Average.from_model_output(scalars[name])) for name in scalars}
        return TrainState(state.step + 1, params, ema, optimizer), averages, health

    everywhere = sharding.replicated(mesh)
    state = sharding.shardings(mesh, jax.eval_shape(lambda: create(model, tx, config.seed, config.ema.half_life > 0)))
    return jax.jit(
        train_step,
        in_shardings=(state, everywhere, sharding.batch_sharding(mesh)),
        out_shardings=(state, everywhere, everywhere),
        donate_argnums=(0, 1),
    )


def empty_averages(model: SDiT, objective: Objective, params, batch) -> Averages:
    """An empty average for every scalar that a step reports."""

    def scalars(params, batch):
        key = jax.random.key(0)
        return loss_terms(model, objective, params, noised(objective, batch, key), key)[1]

    return {name: Average.empty() for name in (*jax.eval_shape(scalars, params, batch), "gradient_norm", "learning_rate")}


def compiled(train_step: Callable, *arguments) -> tuple[Callable, dict[str, float]]:
    """The step compiled ahead of time for these arguments, and its cost on each device.

    The cost is {"seconds" of compiling, "flops" of a step as the compiler counts them, "bytes" of temporary memory}; what the
    compiler does not know is 0.
    """
    start = time.monotonic()
    program = train_step.lower(*arguments).compile()
    cost, memory = program.cost_analysis() or {}, program.memory_analysis()
    temporary = getattr(memory, "temp_size_in_bytes", 0)
    return program, {"seconds": time.monotonic() - start, "flops": cost.get("flops", 0.0), "bytes": temporary}
