"""The spike-driven network on MNIST or Fashion-MNIST, by the recipe of configs/small.py.

The network: 28x28 grey, patches of 4, width 164, 3 blocks, T = 8; every matrix of its blocks and its head multiplies spikes.
docs/results.md compares it with SDiT, its rivals and its non-spiking baseline.

    sdit train --config=configs/spike_driven.py --workdir=runs/spike_driven --config.data.dir=DATA/mnist
    sdit train --config=configs/spike_driven.py:fashion_mnist --workdir=runs/spike_fashion --config.data.dir=DATA/fashion-mnist
"""

import runpy
from pathlib import Path

from sdit_jax.config import parse_arg
from sdit_jax.models import preset


def get_config(arg=None):
    small = runpy.run_path(str(Path(__file__).with_name("small.py")))
    config = small["get_config"](arg)
    tiny = parse_arg(arg, fashion_mnist=False, tiny=False).tiny
    config.model = preset("spike_small", **({"width": 32} if tiny else {}))
    config.optimizer.name = "muon"
    return config
