"""Loss against width, depth, spiking steps and data at fixed compute: isoFLOP runs, small enough for a CPU.

The quickstart's network at other sizes, on its digits, or with `mnist` on MNIST at 16x16. A run's compute is 6 FLOPs per MAC
and image (sdit_jax/scaling_laws/compute.py), so that its duration follows from budget and network; at the middle budget, depth
and spiking steps vary too. The loss is that of held-out images at fixed timesteps and noise. `rates` is another sweep: does the
best learning rate transfer between two widths, with optimizer.base_width and without? See docs/scaling.md.

    sdit sweep --config=configs/scaling.py --workdir=runs/scaling --list
    sdit sweep --config=configs/scaling.py:mnist --workdir=runs/scaling --run --config.data.dir=DATA/mnist
    sdit scaling runs/scaling --out=scaling
"""

from sdit_jax.config import default_config, parse_arg
from sdit_jax.models import build, preset
from sdit_jax.scaling_laws.compute import cost

ARGUMENTS = {"mnist": False, "rates": False}
WIDTHS, DEPTH, SPIKING_STEPS = (20, 24, 32, 48, 64), 2, 4  # Wider than the 16 pixels of a patch, or noise cannot pass.
BUDGETS = {"digits": (6e9, 2e10, 6e10), "mnist": (6e10, 2e11, 6e11)}  # FLOPs.
DEPTHS = {4: (20, 24)}  # Widths of deeper networks.
OTHER_SPIKING_STEPS = (1, 2, 8, 16)
RATES, RATE_WIDTHS, RATE_IMAGES = (4e-3, 8e-3, 1.6e-2, 3.2e-2, 6.4e-2), (24, 96), 25_600


def get_config(arg=None):
    arg = parse_arg(arg, **ARGUMENTS)
    config = default_config(preset("digits"))
    config.model.image_size = 16 if arg.mnist else 8
    config.data.name = "mnist" if arg.mnist else "digits"
    config.batch_size = 64
    config.duration = "1000 steps"  # Of a single run; a sweep sets it.
    config.diffusion.schedule = "cosine"
    config.diffusion.clip_x0 = True
    config.optimizer.learning_rate = 1.6e-2
    config.optimizer.base_width = 24
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup = "5%"
    config.optimizer.clip_norm = 1.0
    config.ema.half_life = 10_000.0
    config.checkpoint.every = "never"  # But at the end.
    config.checkpoint.keep = 1
    config.log.every = "5%"
    config.samples.every = "never"
    config.evaluation.every = "25%"
    config.evaluation.names = "loss"
    return config


def sweep(arg=None):
    config = get_config(arg)
    if parse_arg(arg, **ARGUMENTS).rates:
        for base_width, widths in ((RATE_WIDTHS[0], RATE_WIDTHS), (0, RATE_WIDTHS[1:])):
            for width in widths:
                for rate in RATES:
                    yield {
                        "model.width": width, "optimizer.base_width": base_width, "optimizer.learning_rate": rate,
                        "duration": f"{RATE_IMAGES} images",
                    }  # fmt: skip
        return
    low, middle, high = BUDGETS[config.data.name]
    runs = [(budget, width, DEPTH, SPIKING_STEPS) for budget in (low, middle, high) for width in WIDTHS]
    runs += [(middle, WIDTHS[1], DEPTH, steps) for steps in OTHER_SPIKING_STEPS]
    runs += [(middle, width, depth, SPIKING_STEPS) for depth, widths in DEPTHS.items() for width in widths]
    for budget, width, depth, steps in runs:
        images = budget / cost(build(config.model.to_dict() | {"width": width, "depth": depth})).training
        yield {
            "model.width": width, "model.depth": depth, "model.spiking_steps": steps, "duration": f"{images:.0f} images",
        }  # fmt: skip
