"""CIFAR-10 on accelerators: the spike-driven network and recipe of configs/spike_driven.py:cifar10, thirteen times as large.

32x32 in colour, patches of 2 (256 tokens), width 512, 9 blocks, T = 8: 39,502,835 parameters, products in bfloat16; 512 images
a step. Never trained: size, batch and learning rate are guesses from the small network. Cost: docs/plan.md.

    sdit train --config=cifar10_large --workdir=runs/large --config.data.dir=DATA/cifar-10-batches-bin
    ./launch/in_pieces.sh 25 --config=cifar10_large --workdir=runs/large --config.data.dir=DATA/cifar-10-batches-bin

The first goes on until it is done; the second for 25 minutes on whatever there is, and from there when it is called again.
"""

import runpy

from sdit_jax.config import cut_to_a_minute, parse_arg, shipped
from sdit_jax.models import preset


def get_config(arg=None):
    arg = parse_arg(arg, tiny=False)
    config = runpy.run_path(str(shipped()["spike_driven"]))["get_config"]("cifar10")
    config.model = preset("spike_cifar10", patch_size=2, width=512, depth=8, dtype="bfloat16")
    config.batch_size = 512
    config.duration = "400 epochs"
    config.ema.half_life = 500_000.0
    config.checkpoint.every = "10 epochs"
    config.log.every = "1 epochs"
    config.samples.every = "10 epochs"
    config.evaluation.every = "50 epochs"
    config.evaluation.names = "fd_classifier,loss"
    if arg.tiny:
        config.model.width, config.model.depth, config.model.patch_size = 32, 2, 8
        cut_to_a_minute(config)
    return config
