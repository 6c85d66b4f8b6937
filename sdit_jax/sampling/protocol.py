"""What stands beside a number, so that another can find it again."""

import hashlib
import importlib.metadata
import json
import platform
from typing import Any

import jax
import numpy as np

from sdit_jax.config import Config
from sdit_jax.models import SDiT
from sdit_jax.sampling.run import Run
from sdit_jax.sampling.weights import portable

IN_TURN = "each in turn"
PACKAGES = ("sdit_jax", "jax", "jaxlib", "flax", "numpy", "scipy")


def versions() -> dict[str, str]:
    """Of Python and of the packages that numbers depend on."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES}


def config_sha256(config: Config) -> str:
    """Of the resolved configuration as sorted JSON, without places, so that a run has one on any machine."""
    return hashlib.sha256(json.dumps(portable(config).to_dict(), sort_keys=True).encode()).hexdigest()


def weights_sha256(params: Any) -> str:
    """Of all parameters, names and numbers."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def labels_told(model: SDiT, guidance: float, told: str = IN_TURN) -> str:
    """What a protocol says of labels: guidance 0 ignores them."""
    return told if model.num_classes and guidance != 0 else "none"


def sampling_protocol(run: Run, *, n: int, sampler: str, steps: int, guidance: float, labels: str, seed: int) -> dict:
    """How n images were drawn from a run: enough to draw them again."""
    averaged, data = run.weights == "ema", run.config.data
    return {
        "n": n, "size": [run.model.image_size, run.model.image_size, run.model.channels], "sampler": sampler, "steps": steps,
        "guidance": guidance, "clip_x0": run.config.diffusion.clip_x0, "labels": labels, "seed": seed, "weights": run.weights,
        "ema_half_life_images": run.config.ema.half_life if averaged else None,
        "ema_ramp": run.config.ema.ramp if averaged else None,
        "step": run.step, "images_seen": run.step * run.config.batch_size,
        "weights_sha256": weights_sha256(run.params),
        "trained_on": f"{data.name} {data.split}" if data.name else None, "config_sha256": config_sha256(run.config),
        "device": jax.devices()[0].device_kind, "versions": versions(),
    }  # fmt: skip
