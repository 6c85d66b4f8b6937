"""Training and sampling of whole configurations against their rooflines, and the time from a command to its first step."""

import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from sdit_jax import sharding
from sdit_jax.benchmarks.measure import rates, rotating, seconds
from sdit_jax.benchmarks.pytorch_step import bench_pytorch
from sdit_jax.benchmarks.roofline import roofline
from sdit_jax.config import Config, default_config
from sdit_jax.data.datasets import Images
from sdit_jax.data.loader import Loader, make_loader
from sdit_jax.data.transforms import fit
from sdit_jax.diffusion.objective import Objective, make_objective
from sdit_jax.models import Network, build, initial_variables, preset
from sdit_jax.sampling.generate import example_labels, make_sampler
from sdit_jax.sampling.how import Sampling
from sdit_jax.training import optimizer
from sdit_jax.training.state import create
from sdit_jax.training.step import compiled, empty_averages, make_train_step

STARTUP_CONFIG = "digits"
# (preset, batch size) of training, dtypes of products: the quickstart's, and the release's networks at a batch that fits.
CPU = (("digits", 64), ("sdit_mnist", 16), ("sdit_cifar10", 4)), ("float32", "bfloat16")
ACCELERATOR = (("digits", 1024), ("sdit_mnist", 256), ("sdit_cifar10", 256)), ("bfloat16",)
DATA = 60_000  # Images in the data set.


def random_images(n: int, size: int, channels: int) -> Images:
    """Noise instead of a data set: speed does not depend on the pixels."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (n, size, size, 1), np.uint8)
    return Images(fit(pixels, size, channels), rng.integers(0, 10, n).astype(np.int32))


def _settings():
    return CPU if jax.default_backend() == "cpu" else ACCELERATOR


def bench_train(runs: int = 10) -> dict:
    """Seconds per training step over its roofline, images per second, utilisation, input wait; and the same in PyTorch.

    On a CPU in float32 and with products in bfloat16, on an accelerator in the latter.

    Utilisation is the FLOPs of the step's products over its seconds and the machine's rate for their dtype.
    """
    presets, dtypes = _settings()
    reference = bench_pytorch() if jax.default_backend() == "cpu" else "not measured: a comparison on CPU"
    results: dict[str, Any] = {"pytorch": reference}
    for dtype in dtypes:
        machine = rates(dtype)
        trained = {name: _train(preset(name, dtype=dtype), batch_size, machine, runs) for name, batch_size in presets}
        results[dtype] = {"rates": machine, "presets": trained}
    return results


class Trained(NamedTuple):
    """A network at training: `step()` takes one step, always on the same batch; `cost` is that of `training.step.compiled`."""

    model: Network
    objective: Objective
    loader: Loader
    step: Callable[[], Any]
    cost: dict[str, float]


def trained(model_config: Config, batch_size: int, images: int = DATA) -> Trained:
    """A network at training with Adam and an average, on so many images of noise."""
    config = default_config(model_config)
    config.batch_size, config.ema.half_life = batch_size, 10_000.0
    model, objective, mesh = build(config.model), make_objective(config.diffusion), sharding.make_mesh()
    data = random_images(images, model.image_size, model.channels)
    sizes = {"size": model.image_size, "channels": model.channels, "batch_size": batch_size}
    loader = make_loader(data, config.data, mesh, **sizes, seed=0)
    batch = loader(0)
    rate = optimizer.learning_rate(config.optimizer, 1000, 0)
    tx = optimizer.make_optimizer(config.optimizer, rate, model)
    state = jax.jit(lambda: create(model, tx, 0, keep_ema=True))()
    averages = empty_averages(model, objective, state.variables, batch)
    program, cost = compiled(make_train_step(model, objective, tx, rate, config, mesh), state, averages, batch)

    def step():
        nonlocal state, averages
        state, averages, health = program(state, averages, batch)
        return health

    return Trained(model, objective, loader, step, cost)


def _train(model_config: Config, batch_size: int, machine: dict, runs: int) -> dict:
    model, objective, loader, step, cost = trained(model_config, batch_size)
    timed = seconds(step, rotating(()), runs)
    wait = seconds(loader, ((i,) for i in itertools.count()), runs=5 * runs)
    least, took = roofline(model, objective, batch_size, machine, training=True), timed["median_s"]
    return {
        "batch_size": batch_size, "step": timed, "images_per_second": batch_size / took,
        "utilisation": (least["flops"] - least["saved_flops"]) / took / machine["flops_per_s"],
        "roofline": least, "step_over_roofline": took / least["roofline_s"],
        "input_wait": wait, "input_fraction_of_step": wait["median_s"] / took, "compiled": cost,
    }  # fmt: skip


def bench_sample(runs: int = 5) -> dict:
    """Whole trajectories: 80 of the quickstart's network by each sampler, and a batch of the release's for MNIST.

    Of the latter: seconds per step of a batch, its roofline, and the time of 50,000 images at that rate.
    """
    presets, dtypes = _settings()
    return {dtype: _sample(*presets[1], dtype, runs) for dtype in dtypes}


def _sample(name: str, batch_size: int, dtype: str, runs: int) -> dict:
    machine = rates(dtype)
    results: dict[str, dict] = {"rates": machine}
    for method, steps, guidance in (("ddim", 50, 1.0), ("ddim", 50, 2.0), ("dpmpp_2m", 20, 1.0), ("dpmpp_2m_sde", 20, 1.0)):
        timed = _trajectory(preset("digits", dtype=dtype), 80, runs, method=method, steps=steps, guidance=guidance)
        results[f"digits_{method}_{steps}_guidance{guidance:g}"] = {
            "n": 80, "trajectory": timed, "images_per_second": 80 / timed["median_s"],
        }  # fmt: skip
    batch_size, few = (batch_size, 2) if jax.default_backend() == "cpu" else (1024, 20)
    timed = _trajectory(preset(name, dtype=dtype), batch_size, runs, method="ddpm", steps=few, guidance=1.0)
    model, objective = build(preset(name, dtype=dtype)), make_objective(default_config({}).diffusion)
    each, least = timed["median_s"] / few, roofline(model, objective, batch_size, machine, training=False)
    results[name] = {
        "n": batch_size, "steps": few, "trajectory": timed, "step_s": each,
        "roofline": least, "step_over_roofline": each / least["roofline_s"],
        "s_for_50000_by_that_rate": {steps: each * steps * 50_000 / batch_size for steps in (20, 250)},
    }  # fmt: skip
    return results


def _trajectory(model_config, n, runs, *, method, steps, guidance):
    model, process = build(model_config), default_config(model_config).diffusion
    variables = jax.jit(lambda: initial_variables(model, 0))()
    sampler = make_sampler(model, make_objective(process), Sampling(method, steps, guidance, clip_x0=True))
    labels_B, index_B = example_labels(n, model.num_classes), np.arange(n, dtype=np.int32)
    inputs = [(variables, labels_B, index_B, np.uint32(seed)) for seed in range(3)]
    return seconds(sampler, rotating(*inputs), runs, warmup=1)


def bench_startup() -> dict:
    """Seconds from the train command to the end of its first step, with an empty and with a filled compilation cache."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": f"{folder}/cache"}

        def first_step(run):
            command = [sys.executable, "-m", "sdit_jax", "train", f"--config={STARTUP_CONFIG}", f"--workdir={folder}/{run}"]
            start = time.perf_counter()
            process = subprocess.Popen(
                [*command, "--config.log.every=1"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            metrics = Path(folder, run, "metrics.jsonl")
            while not (metrics.exists() and metrics.stat().st_size):
                if process.poll() is not None:
                    raise RuntimeError(f"{' '.join(command)} ended with exit code {process.returncode} before its first step")
                time.sleep(0.01)
            seconds = time.perf_counter() - start
            process.terminate()
            process.wait()
            return seconds

        return {"config": STARTUP_CONFIG, "nothing_cached_s": first_step("a"), "cached_s": first_step("b")}
