"""The real training step, compiled: `compiled.py FIELDS`, in JSON, prints its memory and its text."""

import json
import sys

import jax
import jax.numpy as jnp

from sdit_jax import sharding
from sdit_jax.config import default_config
from sdit_jax.diffusion.objective import make_objective
from sdit_jax.models import build, preset
from sdit_jax.training import optimizer
from sdit_jax.training.state import create
from sdit_jax.training.step import empty_averages, make_train_step

# The compiler assigns memory and places collectives before it generates code, which takes most of its time at full effort.
QUICK = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}


def configuration(fields):
    """That of MNIST at width 64, with fields changed."""
    config = default_config(preset("sdit_mnist", width=64))
    config.update_from_flattened_dict({"batch_size": 16, "ema.half_life": 1e4} | fields)
    return config


def abstract(config):
    """(model, objective, rate, tx, state) of a configuration."""
    model, objective = build(config.model), make_objective(config.diffusion)
    rate = optimizer.learning_rate(config.optimizer, 1000, 0)
    tx = optimizer.make_optimizer(config.optimizer, rate, model)
    return model, objective, rate, tx, jax.eval_shape(lambda: create(model, tx, 0, config.ema.half_life > 0))


def compiled(config):
    """The program of one step on all devices that are here."""
    model, objective, rate, tx, state = abstract(config)
    size, B = model.image_size, config.batch_size
    batch = {
        "image": jax.ShapeDtypeStruct((B, size, size, model.channels), jnp.uint8),
        "label": jax.ShapeDtypeStruct((B,), jnp.int32),
    }
    averages = jax.eval_shape(
        lambda variables, batch: empty_averages(model, objective, variables, batch), state.variables, batch
    )
    step = make_train_step(model, objective, tx, rate, config, sharding.make_mesh(config.mesh))
    return step.lower(state, averages, batch).compile(compiler_options=QUICK)


def allocated(program):
    """Bytes on a device: of arguments (the state, which the result takes over) and of temporary memory."""
    found = program.memory_analysis()
    return found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes + found.temp_size_in_bytes


if __name__ == "__main__":
    program = compiled(configuration(json.loads(sys.argv[1])))
    print(f"allocated {allocated(program)}", program.as_text(), sep="\n")
