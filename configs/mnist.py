"""MNIST by the release's exact recipe (PAPER section 6): 1600 epochs, batch 256, AdamW at a constant 1e-4, no average.

28x28, grey repeated to 3 channels; width 384, 5 blocks, 11,667,259 parameters. Published: FID 5.54, protocol unknown. The
375,000 steps have never been run with this code.

    sdit train --config=configs/mnist.py --workdir=runs/mnist --config.data.dir=DATA/mnist
    sdit train --config=configs/mnist.py:tiny --workdir=runs/mnist_tiny --config.data.dir=DATA/mnist
"""

from sdit_jax.config import cut_to_a_minute, default_config, parse_arg
from sdit_jax.models import preset


def get_config(arg=None):
    arg = parse_arg(arg, tiny=False)
    config = default_config(preset("sdit_tiny" if arg.tiny else "sdit_mnist"))
    config.data.name = "mnist"
    if arg.tiny:
        cut_to_a_minute(config)
    return config
