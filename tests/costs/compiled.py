"""The real training step, compiled: `python tests/costs/compiled.py FIELDS.json` prints what the compiler says of it."""

import json
import sys

import jax
import jax.numpy as jnp

from sdit_jax import sharding
from sdit_jax.config import default_config
from sdit_jax.models import build
from sdit_jax.models.presets import preset
from sdit_jax.sampling.run import make_objective
from sdit_jax.training import optimizer
from sdit_jax.training.state import create
from sdit_jax.training.step import empty_averages, make_train_step


def configuration(fields):
    """That of MNIST at width 64, with fields changed."""
    config = default_config(preset("sdit_mnist", width=64))
    config.update_from_flattened_dict({"batch_size": 16, "ema.half_life": 1e4} | fields)
    return config


def abstract(config):
    """(model, objective, rate, tx, state) of a configuration."""
    model, objective = build(config.model), make_objective(config.diffusion)
    rate = optimizer.learning_rate(config.optimizer, 1000, 0)
    tx = optimizer.adamw(config.optimizer, rate)
    return model, objective, rate, tx, jax.eval_shape(lambda: create(model, tx, 0, config.ema.half_life > 0))


def compiled(config):
    """The program of one step on all devices that are here."""
    model, objective, rate, tx, state = abstract(config)
    size, B = model.image_size, config.batch_size
    batch = {
        "image": jax.ShapeDtypeStruct((B, size, size, model.channels), jnp.uint8),
        "label": jax.ShapeDtypeStruct((B,), jnp.int32),
    }
    averages = jax.eval_shape(lambda params, batch: empty_averages(model, objective, params, batch), state.params, batch)
    step = make_train_step(model, objective, tx, rate, config, sharding.make_mesh(config.mesh))
    return step.lower(state, averages, batch).compile()


if __name__ == "__main__":
    print(compiled(configuration(json.loads(sys.argv[1]))).as_text())
