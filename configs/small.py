"""MNIST or Fashion-MNIST in about an hour on one CPU core: a small network and the best recipe found for it.

The network: 28x28 grey, patches of 4, width 160, 3 blocks, T = 8; bidirectional WKV, token shift on the image, adaLN, no
Reconstruction Module; normalised currents, a soft reset that is detached from the gradient. The recipe: x0-prediction on the
cosine schedule, logit-normal timesteps; averaged weights, a learning rate that decays. docs/results.md says how it differs from
the release and what each change was worth. Its weights are shipped as `pretrained:mnist_sdit` and `:fashion_mnist_sdit`.

    sdit train --config=configs/small.py --workdir=runs/small --config.data.dir=DATA/mnist
    sdit train --config=configs/small.py:fashion_mnist --workdir=runs/fashion --config.data.dir=DATA/fashion-mnist
    sdit train --config=configs/small.py:network=uvit_small --workdir=runs/uvit --config.data.dir=DATA/mnist

The last trains another network by the same recipe: any preset for 28x28 grey images.
"""

from sdit_jax.config import cut_to_a_minute, default_config, parse_arg
from sdit_jax.errors import InputError
from sdit_jax.models import preset, presets


def get_config(arg=None):
    arg = parse_arg(arg, network="small", fashion_mnist=False, tiny=False)
    if arg.network not in presets():
        raise InputError(f"config argument 'network': found {arg.network!r}, allowed are {', '.join(presets())}")
    config = default_config(preset(arg.network))
    config.data.name = "fashion_mnist" if arg.fashion_mnist else "mnist"
    config.batch_size = 32
    config.duration = "480000 images" if arg.fashion_mnist else "600000 images"
    config.diffusion.schedule = "cosine"
    config.diffusion.prediction = "x0"
    config.diffusion.distribution = "logit_normal"
    config.diffusion.clip_x0 = True
    config.optimizer.learning_rate = 6e-3
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup = "2%"
    config.optimizer.clip_norm = 1.0
    config.ema.half_life = 20_000.0
    config.checkpoint.every = "50000 images"
    config.log.every = "10000 images"
    config.samples.every = "100000 images"
    config.samples.n = 80
    config.samples.sampler = "dpmpp_2m"
    config.samples.steps = 20
    config.samples.guidance = 1.5
    config.evaluation.every = "never"
    config.evaluation.sampler = "dpmpp_2m"
    config.evaluation.steps = 20
    if arg.tiny:
        config.model.width = 32
        cut_to_a_minute(config)
    return config
