"""What each part of the small recipe is worth: one change at a time, at equal images seen.

The network of configs/small.py with patches of 7, width 128 and T = 4, so that a run takes a minute or two on one CPU core,
trained on 40,000 images of MNIST (or `fashion_mnist`); judged by the distance of 1,000 samples (`fd_classifier`), how many
are read as the digit that was asked for, and the mean squared error of the noise on test images. Results: docs/results.md.

    python -m sdit_jax.sweep --config=configs/ablations.py --workdir=runs/ablations --run --config.data.dir=DATA/mnist
"""

import runpy
from pathlib import Path

from sdit_jax.config import parse_arg
from sdit_jax.models.presets import PRESETS, defaults

ARGUMENTS = {"fashion_mnist": False}
SEEDS = (0, 1, 2)  # Of the recipe itself, to see what is chance.
SIZES = ("patch_size", "width", "depth", "timesteps")
RELEASE = {  # Its architecture and recipe at this size.
    **{f"model.{name}": defaults()[name] for name in PRESETS["small"] if name not in SIZES},
    "diffusion.schedule": "linear", "diffusion.prediction": "noise", "diffusion.clip_x0": False,
    "optimizer.learning_rate": 1e-4, "optimizer.schedule": "constant", "optimizer.warmup": "0 steps",
    "optimizer.clip_norm": 0.0, "batch_size": 256, "ema.half_life": 0.0,
}  # fmt: skip
CHANGES = (
    RELEASE,
    RELEASE | {"optimizer.learning_rate": 4e-3, "batch_size": 32},
    # Neurons.
    {"model.normalized_currents": False},
    {"model.reset": "hard"},
    {"model.detach_reset": True},
    {"model.learned_threshold": True},
    {"model.learned_decay": True},
    {"model.timesteps": 1},
    {"model.timesteps": 2},
    {"model.timesteps": 8},
    {"model.neuron": "identity"},
    {"model.neuron": "gelu"},
    # Architecture.
    {"model.condition": "token"},
    {"model.condition": "every_token"},
    {"model.token_shift": "1d"},
    {"model.bidirectional": False},
    {"model.reconstruction": True},
    {"model.reconstruction": True, "model.gate_init": "random"},
    {"model.reconstruction": True, "model.bidirectional": False, "model.token_shift": "1d"},
    {"model.skips": False},
    {"model.smooth_init": "random"},
    {"model.channels": 3},
    {"model.learned_variance": True},
    # Process and loss.
    {"diffusion.prediction": "noise"},
    {"diffusion.prediction": "x0"},
    {"diffusion.schedule": "linear"},
    {"diffusion.min_snr": 5.0},
    {"diffusion.distribution": "logit_normal"},
    # Optimizer.
    {"optimizer.learning_rate": 1e-3},
    {"optimizer.learning_rate": 8e-3},
    {"optimizer.schedule": "constant"},
    {"optimizer.warmup": "0 steps"},
    {"batch_size": 128},
)


def get_config(arg=None):
    arg = parse_arg(arg, **ARGUMENTS)
    small = runpy.run_path(str(Path(__file__).with_name("small.py")))
    config = small["get_config"]("fashion_mnist" if arg.fashion_mnist else None)
    config.model.patch_size = 7
    config.model.width = 128
    config.model.timesteps = 4
    config.duration = "40000 images"
    config.optimizer.warmup = "5%"
    config.checkpoint.every = "never"  # But at the end.
    config.checkpoint.keep = 1
    config.log.every = "10%"
    config.samples.every = "never"
    config.evaluation.every = "100%"
    config.evaluation.names = "fd_classifier,loss"
    return config


def sweep(arg=None):
    parse_arg(arg, **ARGUMENTS)
    for seed in SEEDS:
        yield {"seed": seed}
    yield from CHANGES
