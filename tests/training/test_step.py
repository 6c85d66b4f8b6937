"""A step in microbatches equals the step in one piece, for less memory; bfloat16 products leave the state in float32; running
statistics and dropout are part of the step."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sdit_jax import sharding
from sdit_jax.config import default_config
from sdit_jax.diffusion.objective import Objective
from sdit_jax.diffusion.schedule import linear
from sdit_jax.models import build, cast, initial_variables
from sdit_jax.training import optimizer
from sdit_jax.training.examples import noised
from sdit_jax.training.state import create
from sdit_jax.training.step import TooLarge, compile_for, empty_averages, gradients, loss_terms, make_train_step

FIELDS = {"image_size": 8, "patch_size": 2, "width": 16, "depth": 2, "normalized_currents": True, "label_dropout": 0.0}
B, OBJECTIVE, KEY = 16, Objective(linear(1000)), jax.random.key(3)
BATCH = {"image": np.random.default_rng(0).integers(0, 256, (B, 8, 8, 3), np.uint8), "label": np.arange(B, dtype=np.int32) % 10}


def drawn(fields):
    """(model, variables), all parameters at ordinary values."""
    model, rng = build(fields), np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: initial_variables(model, 0))
    value = lambda path, leaf: jnp.asarray((path[-1].key == "scale") + 0.3 * rng.normal(size=leaf.shape), jnp.float32)
    return model, jax.tree_util.tree_map_with_path(value, shapes)


class Normed(nn.Module):
    """A network with running statistics and dropout."""

    image_size: int = 8
    channels: int = 3
    dropout: float = 0.0
    layout = sharding.Layout()

    @nn.compact
    def __call__(self, x_BHWC, t_B, y_B=None, train: bool = False):
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9, name="norm")(x_BHWC)
        return nn.Conv(self.channels, (3, 3))(nn.Dropout(self.dropout, deterministic=not train)(x))


@pytest.fixture(scope="module")
def steps():
    """steps(microbatches): the compiled gradient of one batch, and what it gives."""
    model, variables = drawn(FIELDS)
    examples = noised(OBJECTIVE, BATCH, KEY)

    def run(microbatches):
        step = jax.jit(lambda v, e: gradients(model, OBJECTIVE, v, e, KEY, microbatches))
        program = step.lower(variables, examples).compile()
        return program, program(variables, examples)

    return run


def test_microbatches_give_the_same_step_for_less_memory(steps):
    whole, (result, grads) = steps(1)
    parts, (result_of_parts, grads_of_parts) = steps(4)
    scalars, scalars_of_parts = result.terms | result.rates, result_of_parts.terms | result_of_parts.rates
    assert scalars.keys() == scalars_of_parts.keys() and scalars["firing_rate/mid_block.time_neurons"] > 0.05
    for name, value in scalars.items():
        assert float(scalars_of_parts[name]) == pytest.approx(float(value), rel=1e-5), name
    for a, b in zip(jax.tree.leaves(grads_of_parts), jax.tree.leaves(grads), strict=True):
        assert jnp.linalg.norm(a - b) <= 1e-4 * jnp.linalg.norm(b)
    temporary = lambda program: program.memory_analysis().temp_size_in_bytes
    assert temporary(parts) < 0.45 * temporary(whole)


def test_labels_are_dropped_in_every_part():
    model, variables = drawn(FIELDS | {"label_dropout": 0.999})
    examples = noised(OBJECTIVE, BATCH, KEY)
    step = jax.jit(lambda e: gradients(model, OBJECTIVE, variables, e, KEY, 4)[0].terms["loss"])
    null = jnp.full(B, 10)
    assert float(step(examples)) == pytest.approx(float(step(examples._replace(y_B=null))), rel=1e-5)


def test_the_penalty_adds_the_mean_firing_rate_and_its_gradient_lowers_it():
    model, variables = drawn(FIELDS)
    examples = noised(OBJECTIVE, BATCH, KEY)
    run = jax.jit(lambda v, penalty: gradients(model, OBJECTIVE, v, examples, KEY, 1, penalty), static_argnums=1)
    mean = lambda found: np.mean([float(rate) for rate in found.rates.values()])
    plain, unpenalised = run(variables, 0.0)
    penalised, grads = run(variables, 0.5)
    np.testing.assert_allclose(penalised.terms["loss"], float(plain.terms["loss"]) + 0.5 * mean(plain), rtol=1e-5)
    downhill = jax.tree.map(jnp.subtract, unpenalised, grads)
    length = optax.tree.norm(downhill)
    moved = {"params": jax.tree.map(lambda p, d: p + d / length, variables["params"], downhill)}
    assert mean(run(moved, 0.0)[0]) < 0.9 * mean(plain)


def test_products_in_bfloat16_leave_loss_and_gradients_near_and_in_float32():
    model, variables = drawn(FIELDS)
    examples = noised(OBJECTIVE, BATCH, KEY)
    run = lambda model: jax.jit(lambda v: gradients(model, OBJECTIVE, v, examples, KEY))(variables)
    result, grads = run(model)
    rounded_result, rounded_grads = run(model.clone(dtype="bfloat16"))
    assert {leaf.dtype for leaf in jax.tree.leaves(rounded_grads)} == {jnp.dtype("float32")}
    assert float(rounded_result.terms["loss"]) != float(result.terms["loss"])
    assert float(rounded_result.terms["loss"]) == pytest.approx(float(result.terms["loss"]), rel=0.02)
    flat = lambda tree: jnp.concatenate([leaf.reshape(-1) for leaf in jax.tree.leaves(tree)])
    a, b = flat(rounded_grads), flat(grads)
    assert float(a @ b / jnp.linalg.norm(a) / jnp.linalg.norm(b)) > 0.95  # A spike more or less moves single ones.


def test_weights_that_are_cast_before_give_the_same_output():
    model, variables = drawn(FIELDS | {"dtype": "bfloat16"})
    examples = noised(OBJECTIVE, BATCH, KEY)
    run = jax.jit(lambda v: model.apply(v, examples.x_t, examples.t_B, examples.y_B))
    found = cast(model, variables)
    np.testing.assert_array_equal(run(found), run(variables))
    params = found["params"]
    dtypes = {path[-1].key: leaf.dtype for path, leaf in jax.tree_util.tree_leaves_with_path(params["in_blocks"])}
    assert dtypes["kernel"] == jnp.bfloat16 and dtypes["time_decay"] == dtypes["bias"] == jnp.float32
    assert params["head"]["kernel"].dtype == jnp.float32


def running(x_BHWC, old):
    """Running mean and variance of a batch norm with momentum 0.9, in float64."""
    x = np.asarray(x_BHWC, np.float64).reshape(-1, x_BHWC.shape[-1])
    return {"mean": 0.9 * old["mean"] + 0.1 * x.mean(0), "var": 0.9 * old["var"] + 0.1 * x.var(0)}


@pytest.mark.parametrize("microbatches", [1, 4])
def test_running_statistics_pass_from_part_to_part(microbatches):
    model: Any = Normed()
    variables = initial_variables(model, 0)
    examples = noised(OBJECTIVE, BATCH, KEY)
    result, _ = gradients(model, OBJECTIVE, variables, examples, KEY, microbatches)
    expected = {"mean": np.zeros(3), "var": np.ones(3)}
    for part in range(microbatches):
        expected = running(examples.x_t[part::microbatches], expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), result.statistics["batch_stats"]["norm"], expected)


def stepped(model, steps=2, bad=False):
    """(states, health) after some steps of training; `bad`: with a running statistic that is not finite."""
    config = default_config({})
    config.batch_size, config.ema.half_life, config.ema.ramp = B, 32.0, 1.0
    mesh, rate = sharding.make_mesh(), optimizer.learning_rate(config.optimizer, 100, 0)
    tx = optax.adam(rate)
    state = create(model, tx, 0, keep_ema=True)
    if bad:
        state.variables["batch_stats"]["norm"]["mean"] = jnp.array([0.0, jnp.nan, 0.0])
    batch = sharding.put_batch(BATCH, mesh, B)
    averages = empty_averages(model, OBJECTIVE, state.variables, batch)
    train_step = make_train_step(model, OBJECTIVE, tx, rate, config, mesh)
    states = []
    for _ in range(steps):
        state, averages, health = train_step(state, averages, batch)
        states.append(jax.device_get(state))
    return states, health


def test_running_statistics_are_kept_and_averaged_like_parameters():
    """After 32 images the half-life of 32 spans all of them: of the first average a fraction 0.5^(16/32) is left."""
    (first, second), _ = stepped(Normed())
    assert np.abs(second.variables["batch_stats"]["norm"]["mean"] - first.variables["batch_stats"]["norm"]["mean"]).min() > 0
    expected = jax.tree.map(lambda old, new: old + (1 - 0.5**0.5) * (new - old), first.ema, second.variables)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), second.ema, expected)


def test_a_running_statistic_that_is_not_finite_is_found():
    states, health = stepped(Normed(), steps=1, bad=True)
    path, _ = jax.tree_util.tree_leaves_with_path(states[0].variables)[int(health.bad_leaf)]
    assert [entry.key for entry in path] == ["batch_stats", "norm", "mean"]
    assert stepped(Normed(), steps=1)[1].bad_leaf == -1


def test_dropout_is_drawn_from_seed_and_step():
    """Weights equal to the bit after the same steps; with the gradients of other activations than without dropout."""
    (first, _), _ = stepped(Normed(dropout=0.5))
    (again, _), _ = stepped(Normed(dropout=0.5))
    (without, _), _ = stepped(Normed())
    jax.tree.map(np.testing.assert_array_equal, first, again)
    moment = lambda state: state.optimizer[0].mu["Conv_0"]["kernel"]
    assert np.abs(moment(first) - moment(without)).max() > 1e-3


def test_every_microbatch_drops_other_activations():
    model: Any = Normed(dropout=0.5)
    variables = initial_variables(model, 0)
    half = jax.tree.map(lambda a: a[:8], noised(OBJECTIVE, BATCH, KEY))
    twice = jax.tree.map(lambda a: jnp.repeat(a, 2, 0), half)  # Both microbatches hold the same examples.
    first, second = (loss_terms(model, OBJECTIVE, variables, half, key)[0] for key in jax.random.split(KEY))
    found = gradients(model, OBJECTIVE, variables, twice, KEY, 2)[0].terms["loss"]
    assert abs(first - second) > 1e-4
    np.testing.assert_allclose(found, (first + second) / 2, rtol=1e-5)


class Refused:
    """A lowered step that the compiler refuses with this message."""

    def __init__(self, message):
        self.message = message

    def compile(self):
        raise jax.errors.JaxRuntimeError(self.message)


@pytest.mark.parametrize(
    ("message", "needed"),
    [
        ("Ran out of memory in memory space hbm. Used 17.20G of 15.75G hbm. Exceeded hbm capacity by 1.45G.", 17.2),
        ("the total memory required for HLO temporaries (300.00G) exceeds available HBM (15.75G).", 300),
    ],
)
def test_a_step_that_the_compiler_finds_too_large_is_one_line(message, needed):
    with pytest.raises(
        TooLarge, match="config.batch_size: found 64, for which a step needs .* and 15.75 GiB are free"
    ) as error:
        compile_for(Refused(message), 64)
    assert (error.value.needed, error.value.free) == (needed, 15.75)


def test_other_errors_of_the_compiler_are_kept():
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        compile_for(Refused("INTERNAL: a bug"), 64)
