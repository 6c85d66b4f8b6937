"""Ablations of the small recipe: one change at a time, at equal images seen.

The network of configs/small.py with patches of 7, width 128 and T = 4, so that a run takes a minute or two on one CPU core,
trained on 40,000 images of MNIST (or `fashion_mnist`). Three scores: the distance of 1,000 samples (`fd_classifier`), the
share of them that is classified as the digit asked for, and the mean squared error of the noise on test images. The base is the
recipe before what helped went into it: x0-prediction, logit-normal timesteps, a detached reset.

    sdit sweep --config=configs/ablations.py --workdir=runs/ablations --run --config.data.dir=DATA/mnist
    sdit sweep --config=configs/ablations.py:long --workdir=runs/long --run --config.data.dir=DATA/mnist
    sdit sweep --config=configs/ablations.py:spike_driven --workdir=runs/spike_driven --run --config.data.dir=DATA/mnist
    sdit sweep --config=configs/ablations.py:rivals --workdir=runs/rivals --run --config.data.dir=DATA/mnist
    sdit sweep --config=configs/ablations.py:colour --workdir=runs/colour --run --config.data.dir=DATA/cifar-10-batches-bin

The second trains the recipe, its non-spiking baselines and the release's three times as long, with scores on the way. The third
changes the spike-driven network one field at a time; its recipe is the one that was found here. The fourth trains SDiT, its
rivals and their non-spiking baselines, of about equal size, on 120,000 images each. The fifth changes the CIFAR-10 recipe at
width 128 and 3 blocks; its base is the recipe that was found. Results: docs/results.md.
"""

import runpy

from sdit_jax.config import parse_arg, shipped
from sdit_jax.models import defaults, preset
from sdit_jax.models.sdit import PRESETS

ARGUMENTS = {"fashion_mnist": False, "long": False, "spike_driven": False, "rivals": False, "colour": False}
SEEDS = (0, 1, 2)  # Of the base, to see what is chance.
BEFORE = {  # The base: without what helped.
    "model.detach_reset": False, "diffusion.distribution": "uniform", "diffusion.prediction": "velocity",
    "optimizer.learning_rate": 4e-3,
}  # fmt: skip
BOTH = {"model.detach_reset": True, "diffusion.distribution": "logit_normal"}
X0 = BOTH | {"diffusion.prediction": "x0"}
SIZES = ("patch_size", "width", "depth", "spiking_steps")
RELEASE = {  # Its architecture and recipe at this size.
    **{f"model.{name}": defaults()[name] for name in PRESETS["small"] if name not in SIZES},
    "diffusion.schedule": "linear", "diffusion.prediction": "noise", "diffusion.distribution": "uniform",
    "diffusion.clip_x0": False,
    "optimizer.name": "adamw", "optimizer.learning_rate": 1e-4, "optimizer.schedule": "constant", "optimizer.warmup": "0 steps",
    "optimizer.clip_norm": 0.0, "batch_size": 256, "ema.half_life": 0.0,
}  # fmt: skip
RELEASE_NETWORK = RELEASE | {
    "optimizer.learning_rate": 4e-3,
    "batch_size": 32,
}  # Its architecture, at this recipe's learning rate and batch size.
CHANGES = (
    RELEASE,
    RELEASE_NETWORK,
    # Neurons.
    {"model.normalized_currents": False},
    {"model.reset": "hard"},
    {"model.leak": False},
    {"model.detach_reset": True},
    {"model.learned_threshold": True},
    {"model.learned_decay": True},
    {"model.spiking_steps": 1},
    {"model.spiking_steps": 2},
    {"model.spiking_steps": 8},
    {"model.neuron": "identity"},
    {"model.neuron": "gelu"},
    # Architecture.
    {"model.conditioning": "token"},
    {"model.conditioning": "every_token"},
    {"model.token_shift": "1d"},
    {"model.bidirectional": False},
    {"model.reconstruction": True},
    {"model.reconstruction": True, "model.gate_init": "random"},
    {"model.reconstruction": True, "model.bidirectional": False, "model.token_shift": "1d"},
    {"model.skips": False},
    {"model.final_conv_init": "random"},
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
    # What helped, combined; the last one is the recipe.
    BOTH,
    BOTH | {"diffusion.min_snr": 5.0},
    BOTH | {"optimizer.learning_rate": 6e-3},
    BOTH | {"diffusion.loss_space": "x0"},
    X0,
    X0 | {"diffusion.loss_space": "velocity"},
    X0 | {"optimizer.learning_rate": 6e-3},
)
CLOSE = (  # Close to the base: with a second seed.
    {"model.leak": False},
    {"model.detach_reset": True},
    {"model.learned_threshold": True},
    {"model.learned_decay": True},
    {"model.spiking_steps": 8},
    {"model.bidirectional": False},
    {"model.skips": False},
    {"model.learned_variance": True},
    {"diffusion.schedule": "linear"},
    {"diffusion.min_snr": 5.0},
    {"optimizer.learning_rate": 8e-3},
    {"optimizer.schedule": "constant"},
)


# Of the spike-driven network with Muon.
ONE_SIGN = {"model.signed": False, "model.gain": 0.5, "model.amplitude": 10.0}  # Of about the same spikes.
SPIKE_DRIVEN = (
    {"model.neuron": "identity"},  # The non-spiking baseline.
    # Neurons.
    {"model.spiking_steps": 1},
    {"model.spiking_steps": 2},
    {"model.spiking_steps": 4},
    {"model.spiking_steps": 64},
    {"model.gain": 0.2, "model.amplitude": 5.0},
    {"model.gain": 0.5, "model.amplitude": 2.0},
    {"model.amplitude": 8.0},
    ONE_SIGN,
    ONE_SIGN | {"model.gain": 0.3},
    ONE_SIGN | {"model.spiking_steps": 64},
    {"model.surrogate": "atan", "model.surrogate_slope": 2.0},
    {"model.timing": "streaming"},
    {"model.timing": "streaming", "model.neuron": "lif"},
    # Architecture.
    {"model.final_channels": 0},
    {"model.skips": False},
    {"model.conditioning": "every_token"},
    {"model.depth": 4, "model.width": 104},
    # Optimizer.
    {"optimizer.name": "adamw"},
    {"optimizer.learning_rate": 4e-3},
    {"optimizer.learning_rate": 9e-3},
    {"batch_size": 16, "optimizer.learning_rate": 5e-3},
    {"batch_size": 64, "optimizer.learning_rate": 8e-3},
    {"ema.half_life": 5_000.0},
)
# Of the spike-driven network in colour.
COSINE = {"diffusion.schedule": "cosine"}
COLOUR = (
    {"model.neuron": "identity", "model.spiking_steps": 1},  # The non-spiking baseline.
    # Process and loss.
    COSINE,
    COSINE | {"model.neuron": "identity", "model.spiking_steps": 1},
    COSINE | {"diffusion.prediction": "x0"},
    COSINE | {"diffusion.prediction": "x0", "diffusion.loss_space": "velocity"},
    COSINE | {"diffusion.prediction": "x0", "model.neuron": "identity", "model.spiking_steps": 1},
    COSINE | {"diffusion.prediction": "x0", "optimizer.name": "adamw"},
    {"diffusion.prediction": "x0", "diffusion.loss_space": "velocity"},
    {"diffusion.prediction": "noise"},
    {"diffusion.distribution": "uniform"},
    # Architecture.
    {"model.patch_size": 2, "model.width": 64},
    {"model.depth": 4, "model.width": 100},
    {"model.final_channels": 3},
    {"model.final_channels": 48},
    # Optimizer and data.
    {"optimizer.learning_rate": 3e-3},
    {"optimizer.learning_rate": 9e-3},
    {"batch_size": 64, "optimizer.learning_rate": 8e-3},
    {"ema.half_life": 5_000.0},
    {"data.flip": False},
)
# Rivals: parameters within 5 % of SDiT's 939,963.
NETWORKS = {
    "sdit": preset("small", patch_size=7, width=128, spiking_steps=4),
    "spike_driven": preset("spike_ablation"),
    "uvit": preset("uvit_small", patch_size=7, width=128),
    "spiking_unet": preset("unet_ablation"),
}
BASELINES = {"sdit": {"neuron": "identity"}, "spike_driven": {"neuron": "identity"}, "spiking_unet": {"neuron": "gelu"}}


def get_config(arg=None):
    arg = parse_arg(arg, **ARGUMENTS)
    recipe = lambda name: runpy.run_path(str(shipped()[name]))["get_config"]
    if arg.colour:
        config = recipe("spike_driven")("cifar10")
        config.model.depth = 2
    else:
        config = recipe("small")("fashion_mnist" if arg.fashion_mnist else None)
        config.model.patch_size = 7
        config.model.spiking_steps = 4
    config.model.width = 128
    config.duration = "40000 images"
    config.optimizer.warmup = "5%"
    config.checkpoint.every = "never"  # But at the end.
    config.checkpoint.keep = 1
    config.log.every = "10%"
    config.samples.every = "never"
    config.evaluation.every = "100%"
    config.evaluation.names = "fd_classifier,loss"
    if arg.rivals or arg.spike_driven:
        config.optimizer.name = "muon"
    if arg.long or arg.rivals:
        config.duration, config.optimizer.warmup, config.evaluation.every = "120000 images", "2%", "25%"
    elif arg.spike_driven:
        config.model = NETWORKS["spike_driven"]
    elif not arg.colour:
        config.update_from_flattened_dict(BEFORE)
    return config


def sweep(arg=None):
    arg = parse_arg(arg, **ARGUMENTS)
    if arg.rivals:
        yield from ((name, {"model": model.to_dict()}) for name, model in NETWORKS.items())
        for name, changes in BASELINES.items():
            yield f"{name} baseline", {"model": NETWORKS[name].to_dict() | {"spiking_steps": 1} | changes}
        fewer = NETWORKS["spike_driven"].to_dict() | {"spiking_steps": 4}
        yield "spike_driven T=4", {"model": fewer}
        yield "spike_driven streaming", {"model": fewer | {"timing": "streaming"}}
        yield "sdit as released", RELEASE
    elif arg.spike_driven or arg.colour:
        yield from ({"seed": seed} for seed in SEEDS[:2])
        yield from COLOUR if arg.colour else SPIKE_DRIVEN
    elif arg.long:
        yield "recipe", {}
        yield "no neurons", {"model.neuron": "identity"}
        yield "GELU", {"model.neuron": "gelu"}
        yield "release", RELEASE
        yield "release at 4e-3", RELEASE_NETWORK
    else:
        yield from ({"seed": seed} for seed in SEEDS)
        yield from CHANGES
        yield from ({"seed": 1} | change for change in CLOSE)
