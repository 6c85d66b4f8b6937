"""Rectified flow from end to end: a linear network learns a Gaussian with the objective of a configuration, and samples it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sdit_jax.config import default_config
from sdit_jax.diffusion import process
from sdit_jax.diffusion.objective import make_objective
from sdit_jax.diffusion.samplers import sample

MEAN, DEVIATION, LEVELS, BATCH = 0.4, 0.3, 40, 4096


def apply(params, x_B1, t_B):
    """A line per level, slope x + offset: the exact prediction for Gaussian data is one."""
    slope, offset = params
    return slope[t_B][:, None] * x_B1 + offset[t_B][:, None]


@pytest.mark.parametrize("prediction", ["velocity", "noise", "x0"])
def test_a_trained_flow_samples_the_data(prediction):
    config = default_config({}).diffusion
    config.update(schedule="rectified_flow", timesteps=LEVELS, prediction=prediction)
    objective = make_objective(config)
    optimizer = optax.adam(optax.exponential_decay(0.05, 100, 0.6))

    def loss(params, key):
        key_x, key_t, key_noise = jax.random.split(key, 3)
        x_0 = MEAN + DEVIATION * jax.random.normal(key_x, (BATCH, 1))
        t_B, noise = objective.timesteps(key_t, (BATCH,)), jax.random.normal(key_noise, (BATCH, 1))
        x_t = process.add_noise(objective.schedule, x_0, t_B, noise)
        return objective.losses(apply(params, x_t, t_B), x_0, x_t, t_B, noise)["loss"].mean()

    def step(carry, key):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params, key), state)
        return (optax.apply_updates(params, updates), state), None

    params = jnp.zeros(LEVELS), jnp.zeros(LEVELS)
    keys = jax.random.split(jax.random.key(0), 1000)
    (params, _), _ = jax.jit(lambda carry: jax.lax.scan(step, carry, keys))((params, optimizer.init(params)))

    x_T = jax.random.normal(jax.random.key(1), (20_000, 1))
    denoise = lambda x, t_B: objective.denoised(apply(params, x, t_B), x, t_B)
    for method in ("euler", "heun"):
        drawn = np.asarray(sample(denoise, x_T, objective.schedule, method=method), np.float64)
        assert drawn.mean() == pytest.approx(MEAN, abs=0.02), method
        assert drawn.std() == pytest.approx(DEVIATION, rel=0.06), method
