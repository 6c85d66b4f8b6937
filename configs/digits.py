"""The quickstart: 8x8 handwritten digits that come with the package (1,438 to train, 359 to test), minutes on a laptop.

The release's recipe learns far more slowly at this budget. This one differs from it: normalised currents and a soft reset;
gates and the final convolution start at identity, since white noise cannot be predicted through the release's random 3x3
filter; fixed variance, cosine schedule, clipped x0; averaged weights, a learning rate that decays.

    sdit train --config=configs/digits.py --workdir=runs/digits
    sdit train --config=configs/digits.py:tiny --workdir=runs/digits_tiny      (under a minute; a smoke test)
"""

from sdit_jax.config import cut_to_a_minute, default_config, parse_arg
from sdit_jax.models import preset


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
