"""Training and sampling steps of whole configurations, and the time from a command to its first step."""

import itertools
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from sdit_jax import sharding
from sdit_jax.benchmarks.measure import rotating, seconds
from sdit_jax.config import Config, default_config
from sdit_jax.data.datasets import Images
from sdit_jax.data.roads import make_batches
from sdit_jax.data.transforms import fit
from sdit_jax.models import build, initial_params
from sdit_jax.models.presets import preset
from sdit_jax.sampling.generate import example_labels, make_sampler
from sdit_jax.sampling.run import make_schedule
from sdit_jax.training import optimizer
from sdit_jax.training.state import create
from sdit_jax.training.step import empty_averages, make_train_step

# Preset and batch size: the quickstart's, and the release's networks at a batch that a laptop holds.
STARTUP_CONFIG = "configs/digits.py"
SETTINGS = {"digits": 64, "sdit_mnist": 16, "sdit_cifar10": 4}
DATA = 60_000  # Images that batches are taken from.


def random_images(n: int, size: int, channels: int) -> Images:
    """Noise in the place of a data set: speed does not depend on what is in the images."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (n, size, size, 1), np.uint8)
    return Images(fit(pixels, size, channels), rng.integers(0, 10, n).astype(np.int32))


def bench_train(runs: int = 10) -> dict:
    """Seconds per training step, images per second and time spent on input; compile time, FLOPs as the compiler counts them."""
    return {name: _train(preset(name), batch_size, runs) for name, batch_size in SETTINGS.items()}


def _train(model_config: Config, batch_size: int, runs: int) -> dict:
    config = default_config(model_config)
    config.batch_size, config.ema.half_life = batch_size, 10_000.0
    model, schedule, mesh = build(config.model), make_schedule(config.diffusion), sharding.data_mesh()
    data = random_images(DATA, model.image_size, model.channels)
    sizes = {"size": model.image_size, "channels": model.channels, "batch_size": batch_size}
    feed = make_batches(data, config.data, mesh, **sizes, seed=0)
    batch = feed(0)
    rate = optimizer.learning_rate(config.optimizer, 1000, 0)
    tx = optimizer.adamw(config.optimizer, rate)
    state = jax.jit(lambda: create(model, tx, 0, keep_ema=True))()
    averages = empty_averages(model, schedule, state.params, batch)
    start = time.perf_counter()
    compiled = make_train_step(model, schedule, tx, rate, config, mesh).lower(state, averages, batch).compile()
    compile_s = time.perf_counter() - start

    def step():
        nonlocal state, averages
        state, averages, health = compiled(state, averages, batch)
        return health

    timed = seconds(step, rotating(()), runs)
    wait = seconds(feed, ((i,) for i in itertools.count()), runs=5 * runs)
    flops = (compiled.cost_analysis() or {}).get("flops")
    return {
        "batch_size": batch_size, "step": timed, "images_per_second": batch_size / timed["median_s"],
        "input_wait": wait, "input_fraction_of_step": wait["median_s"] / timed["median_s"],
        "compile_s": compile_s, "flops_per_step": flops,
    }  # fmt: skip


def bench_sample(runs: int = 3, n: int = 80, steps: int = 50) -> dict:
    """Images per second of a whole ddim trajectory of the quickstart's network."""
    model = build(preset("digits"))
    params = jax.jit(lambda: initial_params(model, 0))()
    sampler = make_sampler(
        model, make_schedule(default_config(preset("digits")).diffusion), method="ddim", steps=steps, guidance=1.0, clip_x0=True
    )
    labels_B, index_B = example_labels(n, model.num_classes).astype(np.int32), np.arange(n, dtype=np.int32)
    inputs = [(params, labels_B, index_B, np.uint32(seed)) for seed in range(3)]
    timed = seconds(sampler, rotating(*inputs), runs, warmup=1)
    return {"preset": "digits", "n": n, "steps": steps, "trajectory": timed, "images_per_second": n / timed["median_s"]}


def bench_startup() -> dict:
    """Seconds from the train command to the end of its first step, with an empty and with a filled compilation cache."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": f"{folder}/cache"}

        def first_step(run):
            command = [sys.executable, "-m", "sdit_jax.train", f"--config={STARTUP_CONFIG}", f"--workdir={folder}/{run}"]
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
