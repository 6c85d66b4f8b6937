"""A training step against that of the PyTorch reference: same weights, precision and loss, timed in turn."""

import copy
import importlib.metadata
import importlib.util
import multiprocessing
import os
from multiprocessing.connection import Connection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sdit_jax.benchmarks.measure import in_turn, rotating
from sdit_jax.config import default_config
from sdit_jax.diffusion.objective import Objective
from sdit_jax.diffusion.schedule import linear
from sdit_jax.models import build, preset, release
from sdit_jax.training import optimizer
from sdit_jax.training.examples import Examples
from sdit_jax.training.state import TrainState
from sdit_jax.training.step import gradients

PRESET, BATCH_SIZE = "sdit_mnist", 16
# Relative difference allowed between the two losses; rounding to bfloat16 makes some neurons fire that did not.
TOLERANCES = {"float32": 1e-4, "bfloat16": 1e-3}


def bench_pytorch(runs: int = 20) -> dict | str:
    """Seconds per training step (forward, backward, AdamW; as many threads as cores), ours and PyTorch's in turn.

    In float32, and with the products of the blocks in bfloat16 on both sides. PyTorch runs in a process of its own. Raises
    RuntimeError where the two losses of the first step differ.
    """
    if any(importlib.util.find_spec(name) is None for name in ("torch", "spikingjelly")):
        return "not measured: needs the bench extra (pip install -e '.[bench]')"
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    theirs.close()  # So that `recv` fails if the process ends.
    try:
        state_dict, versions = ours.recv()
        measured = {dtype: _timed(ours, dtype, release.to_params(state_dict), runs) for dtype in TOLERANCES}
    finally:
        process.terminate()
    return {"preset": PRESET, "batch_size": BATCH_SIZE, "versions": versions} | measured


def _timed(pipe: Connection, dtype: str, params, runs: int) -> dict:
    def reference(examples):
        pipe.send((dtype, examples))
        return np.float32(pipe.recv())

    step, loss = _ours(params, _examples(0), dtype)
    reference_loss = float(reference(_examples(0)))
    if abs(loss - reference_loss) > TOLERANCES[dtype] * abs(reference_loss):
        raise RuntimeError(f"{dtype}: the losses differ: {loss}, the reference has {reference_loss}")
    timed = in_turn({"sdit_jax": step, "pytorch": reference}, rotating(*[(_examples(i),) for i in range(3)]), runs, warmup=4)
    speed = {name: BATCH_SIZE / taken["median_s"] for name, taken in timed.items()}
    return {
        "step": timed, "images_per_second": speed, "ratio": speed["sdit_jax"] / speed["pytorch"],
        "first_loss": {"sdit_jax": loss, "pytorch": reference_loss},
    }  # fmt: skip


def _examples(seed) -> Any:
    """Random Examples, as numpy."""
    rng = np.random.default_rng(seed)
    size = preset(PRESET).image_size
    x_0, noise = rng.uniform(-1, 1, (BATCH_SIZE, size, size, 3)), rng.normal(size=(BATCH_SIZE, size, size, 3))
    t_B, y_B = rng.integers(0, 1000, BATCH_SIZE), rng.integers(0, 10, BATCH_SIZE)
    bar = linear(1000).alphas_bar[t_B][:, None, None, None]
    drawn: Any = (x_0, t_B, noise, np.sqrt(bar) * x_0 + np.sqrt(1 - bar) * noise, y_B)
    return Examples(*(a.astype(np.float32 if a.dtype == np.float64 else np.int32) for a in drawn))


def _ours(params, examples, dtype):
    """(step(examples), the loss of `examples`)."""
    config = default_config(preset(PRESET, label_dropout=0.0, dtype=dtype))
    model, objective = build(config.model), Objective(linear(1000))
    tx = optimizer.make_optimizer(config.optimizer, optimizer.learning_rate(config.optimizer, 1000, 0), model)
    state = TrainState(jnp.int32(0), {"params": jax.device_put(params)}, None, jax.jit(tx.init)(params))

    def train_step(state, examples):
        result, grads = gradients(model, objective, state.variables, examples, jax.random.key(0))
        updates, moments = tx.update(grads, state.optimizer, state.params)
        params = jax.tree.map(lambda p, u: p + u, state.params, updates)
        return TrainState(state.step + 1, {"params": params}, None, moments), result.terms["loss"]

    compiled = jax.jit(train_step, donate_argnums=0)
    loss_of = jax.jit(lambda v, e: gradients(model, objective, v, e, jax.random.key(0))[0].terms["loss"])
    loss = float(loss_of(state.variables, examples))

    def step(examples):
        nonlocal state
        state, loss = compiled(state, examples)
        return loss

    return step, loss


def _serve(pipe: Connection) -> None:
    """The reference's process: sends its weights, then takes a step on every batch it receives and sends the loss."""
    import torch

    from sdit_jax.benchmarks import pytorch

    torch.set_num_threads(os.cpu_count() or 1)
    torch.manual_seed(0)
    model = pytorch.build(preset(PRESET))
    for parameter in model.parameters():  # Away from all zeros, so that neurons fire.
        torch.nn.init.normal_(parameter, std=0.05)
    start = copy.deepcopy(model.state_dict())
    versions = {name: importlib.metadata.version(name) for name in ("torch", "spikingjelly")}
    pipe.send(({name: value.numpy() for name, value in start.items()}, versions | {"threads": torch.get_num_threads()}))
    to_nchw = lambda x: torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
    step, dtype = None, None
    while True:
        wanted, (x_0, t, noise, _, y) = pipe.recv()
        if wanted != dtype:
            model.load_state_dict(start)
            dtype, model.dtype = wanted, getattr(torch, wanted)
            step = pytorch.make_train_step(model, linear(1000), 1e-4)
        assert step is not None
        pipe.send(step(to_nchw(x_0), to_nchw(noise), torch.from_numpy(t).long(), torch.from_numpy(y).long()))
