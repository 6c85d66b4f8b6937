"""AdamW, Muon and their schedule against their definitions in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sdit_jax.checkpoint import Checkpoints
from sdit_jax.config import default_config
from sdit_jax.errors import InputError
from sdit_jax.models import build, initial_variables, preset
from sdit_jax.training import optimizer
from sdit_jax.training.state import create

# Of a network: what does not read `width` numbers. All other kernels do.
READ_FEW = ("patch_embed", "time_embed/hidden", "over_tokens", "smooth")


MODEL = build(preset("digits", width=8))


def fields(**changes):
    config = default_config({}).optimizer
    config.update(changes)
    return config


def test_adamw_is_decoupled_weight_decay_with_bias_correction():
    config = fields(learning_rate=0.1, weight_decay=0.05)
    tx = optimizer.make_optimizer(config, optimizer.learning_rate(config, 100, 0), MODEL)
    rng = np.random.default_rng(0)
    p = rng.normal(size=5)
    params, state = jnp.asarray(p, jnp.float32), tx.init(jnp.asarray(p, jnp.float32))
    m = v = np.zeros(5)
    for step in range(1, 6):
        g = rng.normal(size=5)
        updates, state = tx.update(jnp.asarray(g, jnp.float32), state, params)
        params = optax.apply_updates(params, updates)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        p = p - 0.1 * (m / (1 - 0.9**step) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8) + 0.05 * p)
    np.testing.assert_allclose(params, p, rtol=2e-5)


def test_clipping_bounds_the_global_norm():
    config = fields(clip_norm=0.5)
    tx = optimizer.make_optimizer(config, lambda _: 1.0, MODEL)
    grads = {"a": jnp.array([30.0]), "b": jnp.array([40.0])}
    _, state = tx.update(grads, tx.init(grads), grads)
    first_moment = state[1][0].mu
    np.testing.assert_allclose([first_moment["a"][0], first_moment["b"][0]], [0.1 * 0.3, 0.1 * 0.4], rtol=1e-6)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("constant", [0, 0.5, 1, 1, 1]), ("linear", [0, 0.5, 1, 0.6, 0.2]), ("cosine", [0, 0.5, 1, 0.6, 0.2])],
)
def test_learning_rate_warms_up_and_decays(schedule, expected):
    rate = optimizer.learning_rate(fields(learning_rate=1.0, schedule=schedule, final_fraction=0.2), 100, 20)
    np.testing.assert_allclose([rate(step) for step in (0, 10, 20, 60, 100)], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "warmup", "names"),
    [
        ({"schedule": "step"}, 0, "optimizer.schedule"),
        ({"final_fraction": 2.0}, 0, "optimizer.final_fraction"),
        ({}, 100, "optimizer.warmup"),
    ],
)
def test_mistakes_name_the_field(changes, warmup, names):
    with pytest.raises(InputError, match=names):
        optimizer.learning_rate(fields(**changes), 100, warmup)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"b2": 1.0}, "optimizer.b2.*1.0"),
        ({"name": "sgd"}, "optimizer.name.*'sgd'.*adamw, muon"),
        ({"name": "muon", "base_width": 8}, "optimizer.base_width.*8.*adamw"),
    ],
)
def test_fields_out_of_their_range_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        optimizer.make_optimizer(fields(**changes), lambda _: 1.0, MODEL)


def orthogonalized(matrix):
    """Five Newton-Schulz steps in float64, with the coefficients of Jordan et al."""
    x = matrix / np.linalg.norm(matrix)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x


def test_muon_orthogonalizes_the_momentum_of_hidden_matrices_and_adam_moves_the_rest():
    model = build(preset("spike_ablation", width=8))
    params = initial_variables(model, 0)["params"]
    tx = optimizer.make_optimizer(fields(name="muon", weight_decay=0.1), lambda _: 0.01, model)
    keys = jax.random.split(jax.random.key(1), 3)
    gradients = [jax.tree.map(lambda leaf, key=key: jax.random.normal(key, leaf.shape), params) for key in keys]

    @jax.jit
    def third_update(params, gradients):
        state = tx.init(params)
        for gradient in gradients:
            updates, state = tx.update(gradient, state, params)
        return updates

    updates, hidden = third_update(params, gradients), []
    for path, update in jax.tree_util.tree_leaves_with_path(updates):
        names = [entry.key for entry in path]
        p, *gs = (np.float64(functools.reduce(lambda tree, name: tree[name], names, tree)) for tree in (params, *gradients))
        if names[-1] == "kernel" and (names[0].endswith(("blocks", "block")) or names[:2] == ["time_embed", "output"]):
            m = 0.05 * sum(0.95 ** (2 - i) * g for i, g in enumerate(gs))
            nesterov = 0.95 * m / (1 - 0.95**4) + 0.05 * gs[-1] / (1 - 0.95**3)
            shape = (-1, *p.shape[-2:])
            expected = np.stack([orthogonalized(matrix) for matrix in nesterov.reshape(shape)]).reshape(p.shape)
            expected *= 0.2 * max(p.shape[-2:]) ** 0.5
            hidden.append("/".join(names))
        else:
            m, v = (sum((1 - b) * b ** (2 - i) * g**n for i, g in enumerate(gs)) for b, n in ((0.9, 1), (0.999, 2)))
            nesterov = 0.9 * m / (1 - 0.9**4) + 0.1 * gs[-1] / (1 - 0.9**3)
            expected = nesterov / (np.sqrt(v / (1 - 0.999**3)) + 1e-8)
        np.testing.assert_allclose(update, -0.01 * (expected + 0.1 * p), rtol=2e-4, atol=2e-6, err_msg="/".join(names))
    assert any("mid_block/channel_mix/key" in name for name in hidden) and not any("head" in name for name in hidden)


def test_a_base_width_scales_the_rate_of_matrices_that_read_the_width():
    """Decay included. 256 is also the number of frequencies of the timestep, which does not grow with the width."""
    model = build(preset("digits", width=256))
    shapes = jax.eval_shape(lambda: initial_variables(model, 0)["params"])
    params = jax.tree.map(lambda leaf: np.linspace(0.1, 1, leaf.size, dtype=np.float32).reshape(leaf.shape), shapes)

    @functools.partial(jax.jit, static_argnums=0)
    def second_update(base_width, params):
        tx = optimizer.make_optimizer(fields(weight_decay=0.1, base_width=base_width), lambda _: 0.01, model)
        _, state = tx.update(params, tx.init(params), params)
        return tx.update(params, state, params)[0]

    ratios = jax.tree.map(lambda a, b: np.asarray(b) / np.asarray(a), *(second_update(base, params) for base in (0, 8)))
    for path, ratio in jax.tree_util.tree_leaves_with_path(ratios):
        name = "/".join(entry.key for entry in path)
        reads_width = name.endswith("kernel") and not any(few in name for few in READ_FEW)
        np.testing.assert_allclose(ratio, 8 / 256 if reads_width else 1, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("changes", [{"base_width": 4}, {"name": "muon"}])
def test_a_state_is_saved_and_restored(tmp_path, changes):
    tx = optimizer.make_optimizer(fields(**changes), lambda _: 0.1, MODEL)
    new = jax.jit(lambda: create(MODEL, tx, 0, False))()
    saved = jax.tree.map(lambda leaf: leaf + 1, new)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(saved)
        checkpoints.wait()
        found = checkpoints.restore(like=new)
    assert found is not None
    jax.tree.map(np.testing.assert_array_equal, found, saved)
