"""Training steps of SDiT, its rivals and their non-spiking baselines, as configs/ablations.py trains them, in one run."""

import runpy

from sdit_jax.benchmarks.attention import counts
from sdit_jax.benchmarks.measure import in_turn, rotating
from sdit_jax.benchmarks.training import trained
from sdit_jax.config import shipped


def bench_rivals(runs: int = 11, batch_size: int = 32) -> dict:
    """{name: {parameters, macs, step, images_per_second, step_over_sdit}}: medians of steps in turn, with AdamW."""
    sweep = runpy.run_path(str(shipped()["ablations"]))["sweep"]
    configs = {name: changes["model"] for name, changes in sweep("rivals") if "model" in changes}
    found = {name: counts(config) for name, config in configs.items()}
    steps = {name: trained(config, batch_size, images=batch_size).step for name, config in configs.items()}
    timed = in_turn(steps, rotating(()), runs)
    return {
        name: found[name] | {
            "step": timed[name], "images_per_second": batch_size / timed[name]["median_s"],
            "step_over_sdit": timed[name]["median_s"] / timed["sdit"]["median_s"],
        }
        for name in configs
    }  # fmt: skip
