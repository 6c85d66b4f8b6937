"""Model configurations by name.

| preset | what | parameters | MACs per forward |
|---|---|---|---|
| `sdit_mnist` | the release's network for MNIST and Fashion-MNIST | 11,667,259 | 4.05 G |
| `sdit_cifar10` | the release's network for CIFAR-10 | 36,052,047 | 12.86 G |
| `sdit_tiny` | the release's architecture, small enough for a minute on a CPU | 142,416 | 10.6 M |
| `digits` | beyond the release, for 8x8 images: see configs/digits.py | 737,961 | 6.65 M |
| `small` | beyond the release, for 28x28 grey images: see configs/small.py | 1,446,106 | 53.2 M |

`sdit_*` are the release exactly; anything else says what it changes. MACs are multiply-accumulates of one image
in weight layers and WKV, all of them on real-valued inputs, as `evaluation.energy` counts them.
"""

import dataclasses

import ml_collections

from sdit_jax.config import Config
from sdit_jax.models.sdit import SDiT

PRESETS = {
    "sdit_mnist": {},
    "sdit_cifar10": {"width": 512, "depth": 8},
    "sdit_tiny": {"width": 48, "depth": 2, "patch_size": 4},
    "digits": {
        "image_size": 8,
        "channels": 1,
        "patch_size": 4,
        "width": 128,
        "depth": 2,
        "reset": "soft",
        "normalized_currents": True,
        "gate_init": "identity",
        "smooth_init": "identity",
        "learned_variance": False,
    },
    "small": {
        "channels": 1,
        "patch_size": 4,
        "width": 160,
        "timesteps": 8,
        "depth": 2,
        "condition": "modulation",
        "bidirectional": True,
        "token_shift": "2d",
        "reconstruction": False,
        "reset": "soft",
        "detach_reset": True,
        "normalized_currents": True,
        "gate_init": "identity",
        "smooth_init": "identity",
        "learned_variance": False,
    },
}


def defaults() -> dict:
    """Every field of SDiT with its default."""
    fields = dataclasses.fields(SDiT)
    return {field.name: field.default for field in fields if field.name not in ("parent", "name")}


def preset(name: str, **changes) -> Config:
    """The full model configuration of a preset, with changes. Raises KeyError for an unknown preset."""
    return ml_collections.ConfigDict(defaults() | PRESETS[name] | changes)
