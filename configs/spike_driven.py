"""The spike-driven network on MNIST or Fashion-MNIST: an hour on one CPU core, by the recipe of configs/small.py with Muon.

The network: 28x28 grey, patches of 4, width 164, 3 blocks, T = 8; every matrix of its blocks and its head multiplies spikes.
docs/results.md has its scores and its energy. Its weights are shipped as `pretrained:mnist_spike_driven`, at T = 6, and
`pretrained:fashion_mnist_spike_driven`.

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
    parsed = parse_arg(arg, fashion_mnist=False, tiny=False)
    config.model = preset("spike_small", **({"width": 32} if parsed.tiny else {}))
    config.optimizer.name = "muon"
    if not parsed.tiny:
        config.duration = "330000 images" if parsed.fashion_mnist else "300000 images"
    return config
