"""Provenance of a result: configuration, weights, sampling, versions."""

import hashlib
import importlib.metadata
import json
import platform
from typing import Any

import jax
import numpy as np

from sdit_jax.config import Config
from sdit_jax.models import Network
from sdit_jax.sampling.how import Sampling
from sdit_jax.sampling.run import Run
from sdit_jax.sampling.weights import portable

IN_TURN = "each in turn"
PACKAGES = ("sdit_jax", "jax", "jaxlib", "flax", "numpy", "scipy")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES}


def config_sha256(config: Config) -> str:
    """sha256 of the resolved configuration as sorted JSON, without the paths of a machine."""
    return hashlib.sha256(json.dumps(portable(config).to_dict(), sort_keys=True).encode()).hexdigest()


def weights_sha256(variables: Any) -> str:
    """sha256 of names and numbers: the parameters, then the other collections under their names."""
    others = {name: tree for name, tree in variables.items() if name != "params"}
    leaves = [leaf for tree in (variables["params"], others) for leaf in jax.tree_util.tree_leaves_with_path(tree)]
    digest = hashlib.sha256()
    for path, leaf in leaves:
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def conditioning_labels(model: Network, guidance: float, labels: str = IN_TURN) -> str:
    """The labels in a protocol: "none" without classes, and with guidance 0, which ignores them."""
    return labels if model.num_classes and guidance != 0 else "none"


def sampling_protocol(run: Run, *, n: int, sampling: Sampling, labels: str, seed: int) -> dict:
    """All that is needed to draw the same n images from a run again."""
    averaged, data = run.weights == "ema", run.config.data
    return {
        "n": n, "size": [run.model.image_size, run.model.image_size, run.model.channels], **sampling.to_dict(),
        "labels": labels, "seed": seed, "weights": run.weights,
        "ema_half_life_images": run.config.ema.half_life if averaged else None,
        "ema_ramp": run.config.ema.ramp if averaged else None,
        "step": run.step, "images_seen": run.step * run.config.batch_size,
        "weights_sha256": weights_sha256(run.variables),
        "trained_on": f"{data.name} {data.split}" if data.name else None, "config_sha256": config_sha256(run.config),
        "device": jax.devices()[0].device_kind, "versions": versions(),
    }  # fmt: skip
