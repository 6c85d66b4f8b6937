"""The spike-driven network on MNIST, Fashion-MNIST or CIFAR-10, on one CPU core: the recipe of configs/small.py with Muon.

The network: 28x28 grey, patches of 4, width 164, 3 blocks, T = 8; every matrix of its blocks and its head multiplies spikes.
That for CIFAR-10, 32x32 in colour, has width 184 and 5 blocks, and predicts the velocity of a rectified flow, which learned
faster there (docs/results.md). Each takes about an hour.

    sdit train --config=spike_driven --workdir=runs/mnist --config.data.dir=DATA/mnist
    sdit train --config=spike_driven:fashion_mnist --workdir=runs/fashion --config.data.dir=DATA/fashion-mnist
    sdit train --config=spike_driven:cifar10 --workdir=runs/cifar10 --config.data.dir=DATA/cifar-10-batches-bin

`fewer_spikes` trains such a network on for 20 minutes, at T = 6 and with a penalty on its firing rates, which removes a third
of its spikes:

    sdit train --config=spike_driven:fewer_spikes --config.init=runs/mnist --workdir=runs/sparse --config.data.dir=DATA/mnist

Both on MNIST give `pretrained:mnist`. `pretrained:fashion_mnist` is the first alone, which scores better there, run at T = 7.
`pretrained:cifar10` is the third; with a longer `config.duration` the same command trains on.
docs/results.md has scores and energy.
"""

import runpy

from sdit_jax.config import parse_arg, shipped
from sdit_jax.models import preset


def get_config(arg=None):
    parsed = parse_arg(arg, fashion_mnist=False, cifar10=False, tiny=False, fewer_spikes=False)
    small = runpy.run_path(str(shipped()["small"]))
    config = small["get_config"](",".join(name for name in ("fashion_mnist", "tiny") if parsed[name]))
    config.model = preset("spike_cifar10" if parsed.cifar10 else "spike_small", **({"width": 32} if parsed.tiny else {}))
    config.optimizer.name = "muon"
    if not parsed.tiny:
        config.duration = "330000 images" if parsed.fashion_mnist else "300000 images"
    if parsed.cifar10:
        config.data.name, config.data.flip = "cifar10", True
        config.diffusion.schedule, config.diffusion.prediction = "rectified_flow", "velocity"
        if not parsed.tiny:
            config.duration = "160000 images"
            config.evaluation.every = "40000 images"
    if parsed.fewer_spikes:
        config.model.spiking_steps = 6
        config.spike_penalty = 0.03
        config.optimizer.learning_rate = 2e-3
        config.duration = config.duration if parsed.tiny else "130000 images"
    return config
