"""One optimizer step: noise, prediction, loss, gradient, update, average. A pure function of (state, batch, seed)."""

import re
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from clu.metrics import Average
from jax.sharding import Mesh

from sdit_jax import sharding
from sdit_jax.analysis import operations
from sdit_jax.config import Config
from sdit_jax.diffusion.objective import Objective
from sdit_jax.errors import InputError
from sdit_jax.layers.spiking import firing_rates
from sdit_jax.models import Network
from sdit_jax.ops.backend import assumed
from sdit_jax.training.distillation import Teacher
from sdit_jax.training.examples import Examples, noised
from sdit_jax.training.state import TrainState, create, ema_decay

# What XLA writes of a program that does not fit into a TPU's memory.
OUT_OF_MEMORY = re.compile(r"Used ([\d.]+)([GM]) of ([\d.]+)G hbm|\(([\d.]+)([GM])\) exceeds available HBM \(([\d.]+)G\)")
DROPOUT = 1  # Folded into the key of label dropout for the stream "dropout".
Averages = dict[str, Average]


class Pass(NamedTuple):
    """Results of a forward pass: mean loss terms, "loss" among them; firing rates by layer; updated running statistics."""

    terms: dict[str, jax.Array]
    rates: dict[str, jax.Array]
    statistics: dict[str, Any]


class TooLarge(InputError):
    """A step that does not fit into a device's memory: GiB that it needs, and that there are."""

    def __init__(self, batch_size: int, needed: float, free: float):
        super().__init__(
            f"config.batch_size: found {batch_size}, for which a step needs {needed:.3g} GiB, and {free:.4g} GiB are free; "
            "lower it, raise config.microbatches, or set config.model.remat"
        )
        self.needed, self.free = needed, free


class Health(NamedTuple):
    """What must be finite for training to go on: the mean loss terms, and the variables after the step.

    `bad_leaf` is the index, among the leaves of the variables, of the first that is not finite; -1 for none.
    """

    terms: dict[str, jax.Array]
    bad_leaf: jax.Array


def loss_terms(
    model: Network, objective: Objective, variables, examples: Examples, key, spike_penalty: float = 0.0
) -> tuple[jax.Array, Pass]:
    """The mean loss in training mode, and what else the forward pass gives; the key drops labels and activations.

    With `spike_penalty`, that many times the mean firing rate over all layers of neurons is added to the loss.
    """
    x_0, t_B, noise, x_t, y_B = examples
    statistics = [collection for collection in variables if collection != "params"]
    rngs = {"label_dropout": key, "dropout": jax.random.fold_in(key, DROPOUT)}
    output, updated = model.apply(variables, x_t, t_B, y_B, train=True, rngs=rngs, mutable=["spikes", *statistics])
    terms = objective.losses(output, x_0, x_t, t_B, noise)
    means = {name: value.mean() for name, value in terms.items()}
    rates = firing_rates(updated.get("spikes") or {})
    if spike_penalty:
        means["firing_rate"] = jnp.stack(list(rates.values())).mean()
        means["loss"] += spike_penalty * means["firing_rate"]
    return means["loss"], Pass(means, rates, {collection: updated[collection] for collection in statistics})


def gradients(
    model: Network, objective: Objective, variables, examples: Examples, key, microbatches: int = 1, spike_penalty: float = 0.0,
    mesh: Mesh | None = None,
) -> tuple[Pass, Any]:  # fmt: skip
    """(forward pass, gradients of the mean loss with respect to the parameters) of a batch.

    With `microbatches` the batch is processed in parts, one after the other, for less memory: losses, rates and gradients are
    means over the parts, and running statistics pass from part to part. Part i takes examples i, i + microbatches, ..., so that
    every device has its share of it; the parts drop labels with keys of their own. On a mesh the groups of devices along `data`
    sum their parts and then, once, over the groups; but where running statistics need every image of a part.
    """

    def of_part(params, statistics, examples, key):
        def loss(params):
            return loss_terms(model, objective, {"params": params, **statistics}, examples, key, spike_penalty)

        (_, result), grads = jax.value_and_grad(loss, has_aux=True)(params)
        return (result.terms, result.rates, grads), result.statistics

    def of_parts(whole, examples):
        params, statistics, keys = whole

        def add_part(carry, part):
            total, statistics = carry
            found, statistics = of_part(params, statistics, *part)
            return (jax.tree.map(jnp.add, total, found), statistics), None

        parts = jax.tree.map(lambda a: a.reshape(-1, microbatches, *a.shape[1:]).swapaxes(0, 1), examples), keys
        shapes, _ = jax.eval_shape(of_part, params, statistics, *jax.tree.map(lambda a: a[0], parts))
        zeros = jax.tree.map(jnp.zeros_like, shapes)
        (total, statistics), _ = jax.lax.scan(add_part, (zeros, statistics), parts)
        return jax.tree.map(lambda a: a / microbatches, total), statistics

    statistics = {collection: tree for collection, tree in variables.items() if collection != "params"}
    if microbatches == 1:
        (terms, rates, grads), statistics = of_part(variables["params"], statistics, examples, key)
    else:
        run = of_parts
        if mesh is not None and mesh.shape["data"] > 1 and not statistics:
            run = sharding.averaged(of_parts, mesh)
        whole = variables["params"], statistics, jax.random.split(key, microbatches)
        (terms, rates, grads), statistics = run(whole, examples)
    return Pass(terms, rates, statistics), grads


def make_train_step(
    model: Network, objective: Objective, tx: optax.GradientTransformation, rate: optax.Schedule, config: Config, mesh: Mesh,
    shapes: TrainState | None = None, teacher: Teacher | None = None,
) -> Callable[[TrainState, Averages, dict], tuple[TrainState, Averages, Health]]:  # fmt: skip
    """train_step(state, averages, batch) -> (state, averages, health), jitted; state and averages are donated.

    `averages` are the means of each step's scalars since they were last empty (see `empty_averages`); `shapes` are those of the
    state, where they are known. With a `teacher`, its clean images are learned in place of those of the batch.
    """

    def train_step(state: TrainState, averages: Averages, batch):
        key_noise, key_labels = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), state.step))
        examples = noised(objective, batch, key_noise)
        with sharding.on_mesh(mesh), assumed(mesh.devices.flat[0].platform):
            if teacher is not None:
                examples = teacher.targets(model, objective, state.variables, examples)
            result, grads = gradients(
                model, objective, state.variables, examples, key_labels, config.microbatches, config.spike_penalty, mesh
            )
        updates, optimizer = tx.update(grads, state.optimizer, state.params)
        variables = {"params": optax.apply_updates(state.params, updates), **result.statistics}
        ema = state.ema
        if ema is not None:
            seen = (state.step + 1).astype(jnp.float32) * config.batch_size
            decay = ema_decay(config.batch_size, seen, config.ema.half_life, config.ema.ramp)
            ema = optax.incremental_update(variables, ema, 1 - decay)

        bad = jnp.stack([~jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(variables)])
        health = Health(result.terms, jnp.where(bad.any(), jnp.argmax(bad), -1))
        optimization: dict[str, Any] = {"gradient_norm": optax.tree.norm(grads), "learning_rate": rate(state.step)}
        scalars = result.terms | result.rates | optimization
        averages = {name: averages[name].merge(Average.from_model_output(scalars[name])) for name in scalars}
        return TrainState(state.step + 1, variables, ema, optimizer), averages, health

    replicated = sharding.replicated(mesh)
    if shapes is None:
        shapes = jax.eval_shape(lambda: create(model, tx, config.seed, config.ema.half_life > 0))
    state = sharding.shardings(mesh, shapes, model.layout)
    return jax.jit(
        train_step,
        in_shardings=(state, replicated, sharding.batch_sharding(mesh)),
        out_shardings=(state, replicated, replicated),
        donate_argnums=(0, 1),
    )


def empty_averages(model: Network, objective: Objective, variables, batch, spike_penalty: float = 0.0) -> Averages:
    """An empty average for every scalar that a step reports."""

    def forward(variables, batch):
        key = jax.random.key(0)
        return loss_terms(model, objective, variables, noised(objective, batch, key), key, spike_penalty)[1]

    result = jax.eval_shape(forward, variables, batch)
    return {name: Average.empty() for name in (*result.terms, *result.rates, "gradient_norm", "learning_rate")}


def compiled(train_step: Any, *arguments: Any) -> tuple[Callable, dict[str, float]]:
    """The jitted step compiled ahead of time for these arguments (state, averages, batch), and its cost.

    The cost is {"seconds" to compile, "flops" of a step's products on all devices together (see `analysis.operations`),
    "model_flops" without those that are computed again, "bytes" of temporary memory on each device, 0 where the compiler does
    not report them}. Raises TooLarge as `compile_for` does.
    """
    start = time.monotonic()
    traced = train_step.trace(*arguments)
    program = compile_for(traced.lower(), len(arguments[-1]["label"]))
    temporary = getattr(program.memory_analysis(), "temp_size_in_bytes", 0)
    work = operations.walk(traced.jaxpr)
    flops = {"flops": work.flops, "model_flops": work.model_flops}
    return program, {"seconds": time.monotonic() - start, **flops, "bytes": temporary}


def compile_for(lowered: Any, batch_size: int) -> Any:
    """The compiled step of so many images. Raises TooLarge where the compiler finds that it does not fit into memory."""
    try:
        return lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        found = OUT_OF_MEMORY.search(str(error))
        if not found:
            raise
        needed, unit, free = (text for text in found.groups() if text)
        raise TooLarge(batch_size, float(needed) / (1024 if unit == "M" else 1), float(free)) from None
