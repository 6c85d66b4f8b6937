"""One optimizer step: noise, prediction, loss, gradient, update, average. A pure function of (state, batch, seed)."""

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
from sdit_jax.diffusion.process import add_noise
from sdit_jax.diffusion.schedule import Schedule
from sdit_jax.layers.spiking import firing_rates
from sdit_jax.models import SDiT
from sdit_jax.training.state import TrainState, ema_decay

Averages = dict[str, Average]


class Health(NamedTuple):
    """What must be finite for training to go on: the mean loss terms, and the parameters after the step.

    `bad_parameter` is the place, among the leaves of the parameters, of the first that is not finite; -1 for none.
    """

    terms: dict[str, jax.Array]
    bad_parameter: jax.Array


def loss_terms(model: SDiT, schedule: Schedule, params, batch, key) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Mean loss of a batch of uint8 images, and every scalar worth watching: loss terms and firing rates by name."""
    key_t, key_noise, key_labels = jax.random.split(key, 3)
    x_0 = images.from_uint8(batch["image"])
    t_B = jax.random.randint(key_t, x_0.shape[:1], 0, len(schedule))
    noise = jax.random.normal(key_noise, x_0.shape)
    x_t = add_noise(schedule, x_0, t_B, noise)
    output, sown = model.apply(
        {"params": params}, x_t, t_B, batch["label"], train=True,
        rngs={"label_dropout": key_labels}, mutable=["spikes"],
    )  # fmt: skip
    terms = diffusion_loss(schedule, output, x_0, x_t, t_B, noise)
    means = {name: value.mean() for name, value in terms.items()}
    return means["loss"], means | firing_rates(sown["spikes"])


def make_train_step(
    model: SDiT, schedule: Schedule, tx: optax.GradientTransformation, rate: optax.Schedule, config: Config, mesh: Mesh
) -> Callable[[TrainState, Averages, dict], tuple[TrainState, Averages, Health]]:
    """train_step(state, averages, batch) -> (state, averages, health), compiled; state and averages are donated.

    `averages` takes in the scalars of this step: the means since they were last empty (see `empty_averages`).
    """

    def train_step(state: TrainState, averages: Averages, batch):
        key = jax.random.fold_in(jax.random.key(config.seed), state.step)
        gradient = jax.value_and_grad(lambda p: loss_terms(model, schedule, p, batch, key), has_aux=True)
        (_, scalars), grads = gradient(state.params)
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
    return jax.jit(
        train_step,
        in_shardings=(everywhere, everywhere, sharding.batch_sharding(mesh)),
        out_shardings=everywhere,
        donate_argnums=(0, 1),
    )


def empty_averages(model: SDiT, schedule: Schedule, params, batch) -> Averages:
    """An empty average for every scalar that a step reports."""
    _, scalars = jax.eval_shape(lambda p, b: loss_terms(model, schedule, p, b, jax.random.key(0)), params, batch)
    return {name: Average.empty() for name in (*scalars, "gradient_norm", "learning_rate")}
