"""Handwritten digits of 8x8 (1,797 images, inside the package): minutes on a laptop, the first thing to run.

Not the release's recipe: neurons see normalised currents and reset softly, gates start at identity, the variance is fixed,
weights are averaged and the learning rate decays. The release's settings learn far more slowly at this budget.

    python -m sdit_jax.train --config=configs/digits.py --workdir=runs/digits
    python -m sdit_jax.train --config=configs/digits.py:tiny --workdir=runs/digits_tiny      (seconds; a smoke test)
"""

from sdit_jax.config import cut_to_a_minute, default_config, parse_arg
from sdit_jax.models.presets import preset


def get_config(arg=None):
    arg = parse_arg(arg, tiny=False)
    config = default_config(preset("digits"))
    config.data.name = "digits"
    config.batch_size = 64
    config.duration = "2200 steps"
    config.optimizer.learning_rate = 2e-3
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup = "5%"
    config.optimizer.clip_norm = 1.0
    config.ema.half_life = 10_000.0
    config.checkpoint.every = "25%"
    config.samples.every = "25%"
    config.samples.n = 80
    if arg.tiny:
        config.model.width = 16
        cut_to_a_minute(config)
    return config
