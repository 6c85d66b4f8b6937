"""Time and memory of an evaluation: 10,000 images of MNIST's size against 60,000, in a process of its own."""

import multiprocessing
import time
from pathlib import Path

from sdit_jax.benchmarks.training import random_images
from sdit_jax.metrics.features import classifier_features, extract
from sdit_jax.metrics.frechet import Moments, frechet_distance
from sdit_jax.metrics.reference import KEPT
from sdit_jax.metrics.scores import kernel_distance, precision_recall

SAMPLES, TRAIN = 10_000, 60_000


def bench_evaluate() -> dict:
    """Seconds of each part of one run, compiling included, and the greatest resident memory of the process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_evaluate)


def _evaluate():
    timings: dict[str, float] = {}

    def timed(name, function, *arguments):
        start = time.perf_counter()
        result = function(*arguments)
        timings[name] = time.perf_counter() - start
        return result

    extractor = classifier_features("mnist")
    samples, train = random_images(SAMPLES, 28, 1), random_images(TRAIN, 28, 1)
    memory_before = _peak_GiB()
    real = timed("features_of_train", extract, extractor, train.images).features_ND
    ours = timed("features_of_samples", extract, extractor, samples.images)

    def moments(features):
        found = Moments(extractor.dimensions)
        found.add(features)
        return found

    there, here = timed("moments_of_train", moments, real), timed("moments_of_samples", moments, ours.features_ND)
    timed("frechet_distance", frechet_distance, here.mean_D, here.covariance_DD, there.mean_D, there.covariance_DD)
    kept = real[:KEPT]
    timed("kernel_distance", kernel_distance, ours.features_ND, kept)
    timed("precision_recall", precision_recall, ours.features_ND, kept)
    return {
        "samples": SAMPLES, "reference": TRAIN, "classifier": extractor.facts, "seconds": timings,
        "total_s": sum(timings.values()), "peak_memory_GiB": _peak_GiB(), "before_GiB": memory_before,
    }  # fmt: skip


def _peak_GiB():
    """Of this process alone: getrusage would count what its parent held when it was forked."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 2**20 for line in lines if line.startswith("VmHWM"))
