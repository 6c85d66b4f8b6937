"""Measures speed on this machine and writes it as JSON: medians of blocked runs after warm-up, with machine and versions.

    python -m sdit_jax.bench --out=bench.json
    python -m sdit_jax.bench --what=wkv,train --out=bench.json

wkv, lif: operators, forward + backward, against a plain scan and an elementwise pass; WKV also by number of tokens.
train: step time beside its floor, images/s and input wait of the quickstart's and the release's presets, and beside the same
network in PyTorch where the bench extra is installed. sample: whole trajectories.
evaluate: 10,000 images against 60,000, with peak memory.
startup: from the train command to its first step, without and with the compilation cache.
"""

import json
from pathlib import Path
from typing import Any

import jax
from absl import flags

from sdit_jax import command_line, files
from sdit_jax.benchmarks.evaluation import bench_evaluate
from sdit_jax.benchmarks.measure import machine
from sdit_jax.benchmarks.operators import bench_lif, bench_wkv
from sdit_jax.benchmarks.training import STARTUP_CONFIG, bench_sample, bench_startup, bench_train
from sdit_jax.config import InputError

BENCHMARKS = {
    "wkv": bench_wkv, "lif": bench_lif, "train": bench_train, "sample": bench_sample, "startup": bench_startup,
    "evaluate": bench_evaluate,
}  # fmt: skip
WHAT = flags.DEFINE_list("what", list(BENCHMARKS), f"Which of {', '.join(BENCHMARKS)}.")
OUT = flags.DEFINE_string("out", "", "JSON file to write.")


def main() -> None:
    for name in WHAT.value or [""]:
        if name not in BENCHMARKS:
            raise InputError(f"--what: found {name!r}, allowed are {', '.join(BENCHMARKS)}")
    out = Path(OUT.value)
    if out.is_dir() or not out.parent.is_dir():
        raise InputError(f"--out: found {out}, must be a file in a folder that exists")
    if "startup" in WHAT.value and not Path(STARTUP_CONFIG).is_file():
        raise InputError(f"--what: startup needs {STARTUP_CONFIG}; run it in the repository's root")
    jax.config.update("jax_enable_compilation_cache", False)  # Compile times are to be those of a first run.
    results: dict[str, Any] = {"machine": machine()}
    if jax.default_backend() == "cpu":
        results["accelerator"] = "not measured: this machine has none"
    for name in WHAT.value:
        results[name] = BENCHMARKS[name]()
        print(name, json.dumps(results[name], indent=2), flush=True)
        files.write_json(out, results)
    print(out)


if __name__ == "__main__":
    command_line.run(main, required=("out",))
