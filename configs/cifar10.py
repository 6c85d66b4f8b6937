"""CIFAR-10 by the release's exact recipe (PAPER section 6): that of MNIST with a larger network.

32x32 resized to 28x28 (bilinear); width 512, 9 blocks, 36,052,047 parameters. Published: FID 22.17, protocol unknown. The
312,500 steps have never been run with this code.

    sdit train --config=configs/cifar10.py --workdir=runs/cifar10 --config.data.dir=DATA/cifar-10-batches-bin
    sdit train --config=configs/cifar10.py:tiny --workdir=runs/tiny --config.data.dir=DATA/cifar-10-batches-bin
"""

from sdit_jax.config import cut_to_a_minute, default_config, parse_arg
from sdit_jax.models import preset


def get_config(arg=None):
    arg = parse_arg(arg, tiny=False)
    config = default_config(preset("sdit_tiny" if arg.tiny else "sdit_cifar10"))
    config.data.name = "cifar10"
    if arg.tiny:
        cut_to_a_minute(config)
    return config
