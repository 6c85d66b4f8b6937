"""Measures the speed of operators, training and sampling on this machine.

    sdit bench --out=bench.json
    sdit bench --what=wkv,train --out=bench.json

Writes JSON: medians of repeated blocks after warm-up, with the machine and the versions of packages.

wkv, lif: forward and backward pass of the operators, compared with a plain scan and an elementwise pass; WKV at several numbers
of tokens.
train: step time and its roofline, images per second and the wait for data, for the quickstart's and the release's presets, and
for the same network in PyTorch if the bench extra is installed.
sample: time of whole trajectories.
attention: SDiT against a transformer of the same width and blocks, at 49 to 1,024 tokens: parameters, multiply-accumulates, and
the time of forward passes and training steps.
rivals: training steps of the networks of configs/ablations.py:rivals, in turn.
evaluate: scores of 10,000 images against 60,000, with peak memory.
tpu: the planner's formulas against the TPU compiler of libtpu on meshes of 1 to 256 chips, half an hour; not by default.
startup: time from the train command to its first step, without and with the compilation cache.
"""

import json
from typing import Any

import jax
from absl import flags

from sdit_jax import files
from sdit_jax.benchmarks.attention import bench_attention
from sdit_jax.benchmarks.evaluation import bench_evaluate
from sdit_jax.benchmarks.measure import machine
from sdit_jax.benchmarks.operators import bench_lif, bench_wkv
from sdit_jax.benchmarks.rivals import bench_rivals
from sdit_jax.benchmarks.tpu import bench_tpu
from sdit_jax.benchmarks.training import bench_sample, bench_startup, bench_train
from sdit_jax.errors import InputError

BENCHMARKS = {
    "wkv": bench_wkv, "lif": bench_lif, "train": bench_train, "sample": bench_sample, "startup": bench_startup,
    "attention": bench_attention, "rivals": bench_rivals, "evaluate": bench_evaluate, "tpu": bench_tpu,
}  # fmt: skip
WHAT = flags.DEFINE_list("what", [name for name in BENCHMARKS if name != "tpu"], f"Benchmarks to run: {', '.join(BENCHMARKS)}.")
OUT = flags.DEFINE_string("out", "", "JSON file to write.")
REQUIRED = ("out",)


def main() -> None:
    for name in WHAT.value or [""]:
        if name not in BENCHMARKS:
            raise InputError(f"--what: found {name!r}, allowed are {', '.join(BENCHMARKS)}")
    out = files.as_path(OUT.value)
    if out.is_dir() or not out.parent.is_dir():
        raise InputError(f"--out: found {out}, must be a file in a folder that exists")
    jax.config.update("jax_enable_compilation_cache", False)  # To measure the compile time of a first run.
    results: dict[str, Any] = {"machine": machine()}
    if jax.default_backend() == "cpu":
        results["accelerator"] = "not measured: this machine has none"
    for name in WHAT.value:
        results[name] = BENCHMARKS[name]()
        print(name, json.dumps(results[name], indent=2), flush=True)
        files.write_json(out, results)
    print(out)
