"""Handwritten digits of 8x8, inside the package (1,438 to train, 359 to test): minutes on a laptop, the first thing to run.

Not the release's recipe, which learns far more slowly at this budget. What differs: neurons see normalised currents and reset
softly; gates and the last convolution start at identity (the release's random 3x3 filter must first be undone before white
noise can be predicted through it); fixed variance, cosine schedule, clipped x0; weights are averaged, the learning rate decays.

    python -m sdit_jax.train --config=configs/digits.py --workdir=runs/digits
    python -m sdit_jax.train --config=configs/digits.py:tiny --workdir=runs/digits_tiny      (under a minute; a smoke test)
"""

from sdit_jax.config import cut_to_a_minute, default_config, parse_arg
from sdit_jax.models.presets import preset


def get_config(arg=None):
    arg = parse_arg(arg, tiny=False)
    config = default_config(preset("digits"))
    config.data.name = "digits"
    config.batch_size = 64
    config.duration = "1400 steps"
    config.diffusion.schedule = "cosine"
    config.diffusion.clip_x0 = True
    config.optimizer.learning_rate = 2e-3
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup = "5%"
    config.optimizer.clip_norm = 1.0
    config.ema.half_life = 10_000.0
    config.checkpoint.every = "25%"
    config.samples.every = "25%"
    config.samples.n = 80
    config.samples.guidance = 2.0
    if arg.tiny:
        config.model.width = 16
        cut_to_a_minute(config)
    return config
